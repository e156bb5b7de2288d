"""From a ledger to seconds: compute + rounds × one-way delay + bytes a party sends / bandwidth.

In a round both parties send at once, so that it takes half a round trip. Time to compute can only be
measured; without a measurement what comes out is the link's share, a lower bound.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mpcbench.errors import UserError
from mpcbench.parties.network import LinkProfile
from mpcbench.records.schema import Entry, Latency, Ledger, PhaseLedger, Record

_LAYER = re.compile(r"^layers\.\d+\.?")
Place = tuple[str, str]
"""A module without its layer's number, and an operator."""


@dataclass(frozen=True)
class Compute:
    """Seconds to compute at one party, by place, for each layer; ``between``: outside of all operators."""

    seconds: Mapping[Place, float]
    between: float

    def of(self, entry: Entry) -> float:
        """For one entry of an online ledger; raises UserError when it was never measured."""
        found = self.seconds.get(place(entry))
        if found is None and entry.rounds:
            raise UserError(
                f"The records of --compute hold no {entry.operator} in {entry.module}: add a record with as "
                "many kinds of layers."
            )
        return found or 0.0


def place(entry: Entry) -> Place:
    """Where an entry belongs, whatever the layer."""
    return _LAYER.sub("", entry.module), entry.operator


def measured_compute(records: Sequence[Record], model: str, protocol: str, tokens: int) -> Compute:
    """Means over layers and records of one model, protocol and number of tokens.

    Raises UserError when no record is of these.
    """
    fitting = [
        r for r in records
        if (r.kind, r.model.name, r.protocol.name, r.workload.tokens) == ("measured", model, protocol, tokens)
    ]  # fmt: skip
    if not fitting:
        raise UserError(
            f"--compute names no measured record of {model} with {tokens} tokens under {protocol}: measure "
            "one with `mpcbench run`, or leave --compute out."
        )
    seconds: dict[Place, list[float]] = defaultdict(list)
    between = []
    for record in fitting:
        entries = record.ledger.online.entries
        for entry in entries:
            seconds[place(entry)].append(max(0.0, entry.seconds - entry.wait_seconds))
        whole = record.latency.online_seconds
        between.append(max(0.0, sum(whole) / len(whole) - sum(entry.seconds for entry in entries)))
    means = {where: sum(values) / len(values) for where, values in seconds.items()}
    return Compute(means, sum(between) / len(between))


def projected(ledger: Ledger, link: LinkProfile, compute: Compute | None = None) -> tuple[Ledger, Latency]:
    """The same ledger with seconds in it, those of the link as time spent waiting, and their sums."""
    online = _phase(ledger.online, link, compute)
    offline = _phase(ledger.offline, link)
    setup = _phase(ledger.setup, link)
    waiting = sum(entry.wait_seconds for entry in online.entries)
    total = sum(entry.seconds for entry in online.entries) + (compute.between if compute else 0.0)
    dealing = sum(entry.seconds for entry in offline.entries)
    latency = Latency(
        warmup_total_seconds=[], total_seconds=[total + dealing], online_seconds=[total],
        offline_seconds=[dealing], waiting_seconds=[waiting], median_seconds=total, iqr_seconds=0.0,
    )  # fmt: skip
    return Ledger(setup=setup, offline=offline, online=online), latency


def _phase(ledger: PhaseLedger, link: LinkProfile, compute: Compute | None = None) -> PhaseLedger:
    entries = []
    for entry in ledger.entries:
        waiting = link.seconds(entry.rounds, max(entry.bytes_sent))
        whole = waiting + (compute.of(entry) if compute else 0.0)
        entries.append(entry.model_copy(update={"seconds": whole, "wait_seconds": waiting}))
    return ledger.model_copy(update={"entries": entries})

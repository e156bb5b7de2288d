"""What a party reports of its run, and how the reports of two parties become the parts of a record."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

from mpcbench.records.schema import (
    Entry,
    Latency,
    Ledger,
    Openings,
    PartyInfo,
    Phase,
    PhaseLedger,
)


class Line(BaseModel):
    """One scope of one party's ledger."""

    model_config = ConfigDict(extra="forbid")

    phase: Phase
    layer: int | None
    module: str
    operator: str
    calls: int
    bytes_sent: int
    rounds: int
    seconds: float
    wait_seconds: float
    tuples: dict[str, int]


class Inference(BaseModel):
    """One forward pass at one party: wall clock and ledger."""

    model_config = ConfigDict(extra="forbid")

    seconds: float
    lines: list[Line]

    def sum(self, phase: Phase, field: str) -> float:
        """Total of a field over one phase."""
        return sum(getattr(line, field) for line in self.lines if line.phase == phase)


class PartyResult(BaseModel):
    """One party's report. ``other_bytes_sent`` is what is no payload: greetings, probes, frame headers."""

    model_config = ConfigDict(extra="forbid")

    party: PartyInfo
    setup: list[Line]
    warmups: list[Inference]
    inferences: list[Inference]
    masked_openings: int
    unmasked_openings: list[str]
    payload_bytes_sent: int
    other_bytes_sent: int
    round_trip_seconds: float
    bandwidth_bytes_per_second: float


Pair = tuple[PartyResult, PartyResult]


def merge_ledgers(parties: Pair) -> Ledger:
    """Both parties' ledgers as one: bytes by sender, rounds once, times at party 0, whose waiting is not
    stretched by the tuples that it makes. Times are means over the repetitions; traffic does not vary.

    Raises RuntimeError when rounds differ between the parties or traffic between repetitions.
    """
    setup = _phase("setup", parties[0].setup, parties[1].setup, 1)
    runs = [[line for run in party.inferences for line in run.lines] for party in parties]
    count = len(parties[0].inferences)
    offline, online = (_phase(phase, runs[0], runs[1], count) for phase in ("offline", "online"))
    return Ledger(setup=setup, offline=offline, online=online)


def _phase(phase: Phase, first: Iterable[Line], second: Iterable[Line], repetitions: int) -> PhaseLedger:
    sums = [_by_scope(phase, lines) for lines in (first, second)]
    entries = []
    for scope, mine in sums[0].items():
        theirs = sums[1].get(scope)
        if theirs is None or theirs["rounds"] != mine["rounds"]:
            raise RuntimeError(f"the parties disagree on the rounds of {scope}")
        counts = (mine["calls"], mine["rounds"], mine["bytes_sent"], theirs["bytes_sent"], *mine["tuples"].values())
        if any(value % repetitions for value in counts):
            raise RuntimeError(f"the traffic of {scope} varies between repetitions")
        entries.append(_entry(scope, mine, theirs, repetitions))
    sent = tuple(sum(entry.bytes_sent[rank] for entry in entries) for rank in (0, 1))
    rounds = sum(entry.rounds for entry in entries)
    return PhaseLedger(bytes=sum(sent), bytes_sent=sent, rounds=rounds, entries=entries)


def _by_scope(phase: Phase, lines: Iterable[Line]) -> dict[tuple, dict[str, Any]]:
    sums: dict[tuple, dict[str, Any]] = {}
    for line in lines:
        if line.phase != phase:
            continue
        empty = {"calls": 0, "bytes_sent": 0, "rounds": 0, "seconds": 0.0, "wait_seconds": 0.0, "tuples": {}}
        total = sums.setdefault((line.layer, line.module, line.operator), empty)
        for field in ("calls", "bytes_sent", "rounds", "seconds", "wait_seconds"):
            total[field] += getattr(line, field)
        for kind, count in line.tuples.items():
            total["tuples"][kind] = total["tuples"].get(kind, 0) + count
    return sums


def _entry(scope: tuple, mine: dict, theirs: dict, repetitions: int) -> Entry:
    layer, module, operator = scope
    return Entry(
        layer=layer,
        module=module,
        operator=operator,
        calls=mine["calls"] // repetitions,
        bytes_sent=(mine["bytes_sent"] // repetitions, theirs["bytes_sent"] // repetitions),
        rounds=mine["rounds"] // repetitions,
        seconds=mine["seconds"] / repetitions,
        wait_seconds=mine["wait_seconds"] / repetitions,
        tuples={kind: count // repetitions for kind, count in mine["tuples"].items()},
    )


def merge_latency(parties: Pair) -> Latency:
    """Wall clock at the slower party. Tuples made in line, at party 0, are the offline part."""
    runs = list(zip(parties[0].inferences, parties[1].inferences, strict=True))
    total = [max(a.seconds, b.seconds) for a, b in runs]
    offline = [max(a.sum("offline", "seconds"), b.sum("offline", "seconds")) for a, b in runs]
    online = [max(0.0, whole - part) for whole, part in zip(total, offline, strict=True)]
    waiting = [a.sum("online", "wait_seconds") for a, _ in runs]
    quarters = statistics.quantiles(online, n=4, method="inclusive") if len(online) > 1 else [0.0, 0.0, 0.0]
    return Latency(
        warmup_total_seconds=[
            max(a.seconds, b.seconds) for a, b in zip(parties[0].warmups, parties[1].warmups, strict=True)
        ],
        total_seconds=total,
        online_seconds=online,
        offline_seconds=offline,
        waiting_seconds=waiting,
        median_seconds=statistics.median(online),
        iqr_seconds=quarters[2] - quarters[0],
    )


def merge_openings(parties: Pair) -> Openings:
    """What one inference opened; both parties must have seen the same."""
    first, second = parties
    if (first.masked_openings, first.unmasked_openings) != (second.masked_openings, second.unmasked_openings):
        raise RuntimeError("the parties disagree on what was opened")
    return Openings(masked=first.masked_openings, unmasked=first.unmasked_openings)

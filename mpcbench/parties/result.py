"""What a party reports of its run, and how the reports of two parties become the parts of a record."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from mpcbench.records.schema import (
    REPETITION,
    Entry,
    Latency,
    Ledger,
    Openings,
    PartyInfo,
    Phase,
    PhaseLedger,
    Storage,
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
    dealt_bytes: int = 0
    unseeded_bytes: int = 0
    cut_locally: int = 0
    cut_failures: float = 0.0
    cut_failures_per_unit: float = 0.0

    @property
    def scope(self) -> tuple:
        """Whose traffic it is."""
        return (self.phase, self.layer, self.module, self.operator)

    @property
    def traffic(self) -> tuple:
        """What never varies between repetitions, unlike times."""
        return (
            self.calls, self.bytes_sent, self.rounds, self.tuples, self.dealt_bytes, self.unseeded_bytes
        )  # fmt: skip


class Inference(BaseModel):
    """Times of one forward pass at one party: wall clock, tuples, waiting for the peer when online.

    ``dealer_seconds`` are processor seconds that a dealer spent for it, as the dealer told party 1.
    """

    model_config = ConfigDict(extra="forbid")

    seconds: float
    offline_seconds: float
    waiting_seconds: float
    dealer_seconds: float = 0.0


class StepResult(BaseModel):
    """One token after the first at one party: lines by operator, means of all repetitions."""

    model_config = ConfigDict(extra="forbid")

    lines: list[Line]
    inferences: list[Inference]
    masked_openings: int
    unmasked_openings: list[str]


class PartyResult(BaseModel):
    """One party's report: every repetition's times, and one ledger, with mean times, for all of them.

    Of a generation these are of the prompt and the first token; ``later`` are the tokens that follow.
    ``other_bytes_sent`` is what is no payload: greetings, probes, frame headers. ``stored_bytes`` are of
    randomness made ahead of time: for the set-up, and for one inference. ``fixed_seeds`` is what a test had
    all seeds follow from, 0 where they come from the operating system.
    """

    model_config = ConfigDict(extra="forbid")

    party: PartyInfo
    setup: list[Line]
    lines: list[Line]
    warmup_seconds: list[float]
    inferences: list[Inference]
    masked_openings: int
    unmasked_openings: list[str]
    payload_bytes_sent: int
    other_bytes_sent: int
    round_trip_seconds: float
    bandwidth_bytes_per_second: float
    link_backend: str = "none"
    stored_bytes: tuple[int, int] = (0, 0)
    fixed_seeds: int = 0
    later: list[StepResult] = []

    def cuts(self) -> list[Line]:
        """The lines that hold values which each party cut on its own, of set-up and of one inference."""
        lines = [*self.setup, *self.lines]
        return [line for line in lines if line.cut_locally and line.operator != REPETITION]


Pair = tuple[PartyResult, PartyResult]
ALL_LAYERS = "layers"
"""The module under which :func:`by_operator` enters what the decoder layers have in common."""


def average(runs: Sequence[list[Line]]) -> list[Line]:
    """One ledger for several repetitions: their traffic, and the means of their times.

    Openings that had to be made again vary from run to run; those of the run with most of them are kept.
    Raises RuntimeError when other traffic varies.
    """
    planned = [[line for line in run if line.operator != REPETITION] for run in runs]
    first = {line.scope: line for line in planned[0]}
    traffic = {scope: line.traffic for scope, line in first.items()}
    seconds, waits = dict.fromkeys(first, 0.0), dict.fromkeys(first, 0.0)
    for run in planned:
        if {line.scope: line.traffic for line in run} != traffic:
            raise RuntimeError("the traffic varies between repetitions")
        for line in run:
            seconds[line.scope] += line.seconds / len(runs)
            waits[line.scope] += line.wait_seconds / len(runs)
    means = [
        line.model_copy(update={"seconds": seconds[scope], "wait_seconds": waits[scope]})
        for scope, line in first.items()
    ]
    repeated = [[line for line in run if line.operator == REPETITION] for run in runs]
    return means + max(repeated, key=lambda lines: sum(line.rounds for line in lines))


def by_operator(lines: Sequence[Line]) -> list[Line]:
    """The same ledger with the lines of all decoder layers added up, by phase and operator."""
    found: dict[tuple, Line] = {}
    for line in lines:
        if line.layer is not None:
            line = line.model_copy(update={"layer": None, "module": ALL_LAYERS})
        before = found.get(line.scope)
        found[line.scope] = line if before is None else _sum(before, line)
    return list(found.values())


def _sum(first: Line, second: Line) -> Line:
    """All counts and times of two lines of one scope."""
    named = {"phase", "layer", "module", "operator", "tuples"}
    both = {name: getattr(first, name) + getattr(second, name) for name in Line.model_fields.keys() - named}
    return first.model_copy(update={**both, "tuples": dict(Counter(first.tuples) + Counter(second.tuples))})


def merge_ledgers(parties: Pair) -> Ledger:
    """Both parties' ledgers as one: bytes by sender, rounds once, times at party 0, whose waiting is not
    stretched by the tuples that it makes.

    Raises RuntimeError when the parties disagree on anything but times and bytes sent.
    """
    setup = merge_lines("setup", parties[0].setup, parties[1].setup)
    offline, online = (
        merge_lines(phase, parties[0].lines, parties[1].lines) for phase in ("offline", "online")
    )
    return Ledger(setup=setup, offline=offline, online=online)


def merge_lines(phase: Phase, first: list[Line], second: list[Line]) -> PhaseLedger:
    """One phase of both parties' lines; raises as :func:`merge_ledgers` does."""
    mine, theirs = ({line.scope: line for line in lines if line.phase == phase} for lines in (first, second))
    if mine.keys() != theirs.keys():
        raise RuntimeError(f"only one party knows of {sorted(mine.keys() ^ theirs.keys(), key=str)}")
    entries = [_entry(line, theirs[scope]) for scope, line in mine.items()]
    sent = tuple(sum(entry.bytes_sent[rank] for entry in entries) for rank in (0, 1))
    rounds = sum(entry.rounds for entry in entries)
    return PhaseLedger(bytes=sum(sent), bytes_sent=sent, rounds=rounds, entries=entries)


def _entry(mine: Line, theirs: Line) -> Entry:
    for field in ("calls", "rounds", "tuples"):
        if getattr(mine, field) != getattr(theirs, field):
            raise RuntimeError(f"the parties disagree on the {field} of {mine.scope}")
    material = mine.phase != "online"
    return Entry(
        layer=mine.layer,
        module=mine.module,
        operator=mine.operator,
        calls=mine.calls,
        bytes_sent=(mine.bytes_sent, theirs.bytes_sent),
        rounds=mine.rounds,
        seconds=mine.seconds,
        wait_seconds=mine.wait_seconds,
        tuples=mine.tuples,
        dealt_bytes=(mine.dealt_bytes, theirs.dealt_bytes) if material else None,
        unseeded_bytes=(mine.unseeded_bytes, theirs.unseeded_bytes) if material else None,
    )


def merge_latency(parties: Pair) -> Latency:
    """Wall clock at the slower party. Making, fetching and expanding tuples is the offline part."""
    warmups = zip(parties[0].warmup_seconds, parties[1].warmup_seconds, strict=True)
    return latency(parties[0].inferences, parties[1].inferences, [max(pair) for pair in warmups])


def latency(
    first: Sequence[Inference], second: Sequence[Inference], warmups: Sequence[float] = ()
) -> Latency:  # fmt: skip
    """As :func:`merge_latency`, of any inferences, with the seconds of warm-ups."""
    runs = list(zip(first, second, strict=True))
    total = [max(a.seconds, b.seconds) for a, b in runs]
    offline = [max(a.offline_seconds, b.offline_seconds) for a, b in runs]
    online = [max(0.0, whole - part) for whole, part in zip(total, offline, strict=True)]
    waiting = [a.waiting_seconds for a, _ in runs]
    quarters = statistics.quantiles(online, n=4, method="inclusive") if len(online) > 1 else [0.0, 0.0, 0.0]
    return Latency(
        warmup_total_seconds=list(warmups),
        total_seconds=total,
        online_seconds=online,
        offline_seconds=offline,
        waiting_seconds=waiting,
        dealer_seconds=[max(a.dealer_seconds, b.dealer_seconds) for a, b in runs],
        median_seconds=statistics.median(online),
        iqr_seconds=quarters[2] - quarters[0],
    )


def later_steps(parties: Pair) -> list[tuple[PhaseLedger, PhaseLedger, Latency, Openings]]:
    """For every token of a generation after the first: online and offline by operator, times, openings.

    Raises RuntimeError when the parties disagree.
    """
    steps = []
    for mine, theirs in zip(parties[0].later, parties[1].later, strict=True):
        online, offline = (merge_lines(phase, mine.lines, theirs.lines) for phase in ("online", "offline"))
        steps.append((online, offline, latency(mine.inferences, theirs.inferences), _openings(mine, theirs)))
    return steps


def merge_openings(parties: Pair) -> Openings:
    """What one inference opened; both parties must have seen the same."""
    return _openings(*parties)


def _openings(first: PartyResult | StepResult, second: PartyResult | StepResult) -> Openings:
    if (first.masked_openings, first.unmasked_openings) != (second.masked_openings, second.unmasked_openings):
        raise RuntimeError("the parties disagree on what was opened")
    return Openings(masked=first.masked_openings, unmasked=first.unmasked_openings)


def merge_storage(parties: Pair) -> Storage | None:
    """What both parties had on disk of randomness made ahead of time; None when they had nothing."""
    setup, inference = zip(*(party.stored_bytes for party in parties), strict=True)
    return Storage(setup_bytes=setup, inference_bytes=inference) if any(inference) else None

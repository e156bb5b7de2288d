"""What a comparison's sections are made of: rows, derived numbers of one record, ratios to the baseline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from mpcbench.records.schema import Record
from mpcbench.report.groups import Cost, activation_per_layer, by_group

MEGA = 1e6
NONE = "–"


@dataclass(frozen=True)
class Row:
    """One quantity over all records; a row with ``depth`` is a part or a ratio of a row above it."""

    label: str
    cells: list[str]
    depth: int = 0


@dataclass(frozen=True)
class Section:
    """Rows on one subject; the title says the phase."""

    title: str
    rows: list[Row]


class Summary:
    """The derived numbers of one record."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.online = record.ledger.online
        self.latency = record.latency

    @cached_property
    def groups(self) -> dict[str, Cost]:
        return by_group(self.online)

    @property
    def operator_seconds(self) -> float:
        return sum(cost.seconds for cost in self.groups.values())

    @property
    def mean_online_seconds(self) -> float:
        """Mean over the repetitions: what the ledger's seconds, which are means, are shares of."""
        seconds = self.latency.online_seconds
        return sum(seconds) / len(seconds) if seconds else self.operator_seconds

    @cached_property
    def activation_layer(self) -> tuple[Cost | None, Cost | None]:
        """Mean activation cost of a layer that keeps its activation, and of a polynomial one."""
        kept, replaced = activation_per_layer(self.online, self.record.model.polynomial_layers)
        return mean_cost(kept), mean_cost(replaced)


def mean_cost(costs: Sequence[Cost]) -> Cost | None:
    """Mean over layers (bytes and rounds rounded to whole ones), None of nothing."""
    if not costs:
        return None
    n = len(costs)
    return Cost(
        bytes=round(sum(c.bytes for c in costs) / n),
        bytes_sent=(
            round(sum(c.bytes_sent[0] for c in costs) / n),
            round(sum(c.bytes_sent[1] for c in costs) / n),
        ),
        rounds=round(sum(c.rounds for c in costs) / n),
        seconds=sum(c.seconds for c in costs) / n,
        wait_seconds=sum(c.wait_seconds for c in costs) / n,
    )


def megabytes(count: float) -> str:
    """Bytes as MB with four significant digits, but no fewer decimals than the size can bear."""
    value = count / MEGA
    if 0 < value < 0.001:
        return "<0.001"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def baseline(summaries: Sequence[Summary]) -> Summary | None:
    """The record without polynomial layers, against which ratios are drawn, if it is here alone.

    Of several protocols it is stock CrypTen's, or the first one's.
    """
    plain = [s for s in summaries if not s.record.model.polynomial_layers]
    if len({s.record.protocol.name for s in plain}) > 1:
        plain = [s for s in plain if s.record.protocol.name == "crypten"] or plain[:1]
    return plain[0] if len(plain) == 1 and len(summaries) > 1 else None


def ratio_rows(summaries: Sequence[Summary], value: Callable[[Summary], float], depth: int = 1) -> list[Row]:
    """How many times less than the baseline; no row without one."""
    base = baseline(summaries)
    if base is None:
        return []
    cells = [f"{value(base) / value(s):.2f}×" if value(s) else NONE for s in summaries]
    several = len({s.record.protocol.name for s in summaries}) > 1
    name = f"{base.record.protocol.name} " if several else ""
    return [Row(f"times less than {name}with 0", cells, depth)]


def with_share(value: str, part: float, whole: float) -> str:
    """A number and, in parentheses, how much of the whole it is."""
    percent = 100 * part / whole if whole else 0
    return f"{value} ({percent:.0f}%)" if percent >= 0.5 else value


def in_seconds(value: float) -> str:
    """Seconds with as many decimals as the size can bear."""
    decimals = 1 if value >= 100 else 2 if value >= 1 or not value else 3
    return f"{value:.{decimals}f}"


def median(values: Sequence[float]) -> float:
    """Median of ``values``, 0 of none."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return 0.0
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2

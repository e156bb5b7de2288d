"""The rows of a comparison, worked out once for the terminal, Markdown and LaTeX.

A comparison stands on its side: a column a record, a row a quantity, in sections by subject. Bytes are
payload bytes of both parties; a megabyte (MB) is 10^6 bytes. Ratios say how many times less than the
record with no polynomial layers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from mpcbench.records.schema import Accuracy, PhaseLedger, Record
from mpcbench.report.groups import GROUPS, Cost, activation_per_layer, by_group
from mpcbench.report.words import mark

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


def sections(records: Sequence[Record]) -> list[Section]:
    """Communication, latency and accuracy of ``records``, ready to be laid out."""
    summaries = [Summary(record) for record in records]
    return [_communication(summaries), _latency(summaries), _accuracy(summaries)]


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


def _ratio(summaries: Sequence[Summary], value: Callable[[Summary], float], depth: int = 1) -> list[Row]:
    base = baseline(summaries)
    if base is None:
        return []
    cells = [f"{value(base) / value(s):.2f}×" if value(s) else NONE for s in summaries]
    several = len({s.record.protocol.name for s in summaries}) > 1
    name = f"{base.record.protocol.name} " if several else ""
    return [Row(f"times less than {name}with 0", cells, depth)]


def _share(value: str, part: float, whole: float) -> str:
    percent = 100 * part / whole if whole else 0
    return f"{value} ({percent:.0f}%)" if percent >= 0.5 else value


def _communication(summaries: Sequence[Summary]) -> Section:
    rows = [Row("online traffic [MB]", [megabytes(s.online.bytes) for s in summaries])]
    rows += _ratio(summaries, lambda s: s.online.bytes)
    for group in _present(summaries):
        parts = [(s.groups[group].bytes, s.online.bytes) for s in summaries]
        cells = [_share(megabytes(part), part, whole) for part, whole in parts]
        rows.append(Row(f"{GROUPS[group]} [MB]", cells, 1))
        if group == "activation":
            rows += _ratio(summaries, lambda s: s.groups["activation"].bytes, 2)
            rows += _one_layer(summaries, lambda cost: megabytes(cost.bytes))
    rows.append(Row("online rounds", [f"{s.online.rounds:,}" for s in summaries]))
    rows += _ratio(summaries, lambda s: s.online.rounds)
    parts = [(s.groups["activation"].rounds, s.online.rounds) for s in summaries]
    rows.append(Row("activation rounds", [_share(f"{part:,}", part, whole) for part, whole in parts], 1))
    rows += _ratio(summaries, lambda s: s.groups["activation"].rounds, 2)
    rows += _one_layer(summaries, lambda cost: f"{cost.rounds:,}")
    offline = [megabytes(s.record.ledger.offline.bytes) + mark(s.record) for s in summaries]
    rows.append(Row("offline traffic, dealer to parties [MB]", offline))
    rows += _ratio(summaries, lambda s: s.record.ledger.offline.bytes)
    tuples = [f"{tuple_count(s.record.ledger.offline) / MEGA:.3g}" for s in summaries]
    rows.append(Row("tuples [million]", tuples, 1))
    rows.append(Row("setup traffic [MB]", [megabytes(s.record.ledger.setup.bytes) for s in summaries]))
    return Section("Communication of both parties, online phase unless a row says otherwise", rows)


def tuple_count(ledger: PhaseLedger) -> int:
    """All correlated randomness of a phase, in elements of the product share."""
    return sum(sum(entry.tuples.values()) for entry in ledger.entries)


def _present(summaries: Sequence[Summary]) -> list[str]:
    return [group for group in GROUPS if any(s.groups[group].bytes for s in summaries)]


def _one_layer(summaries: Sequence[Summary], cell: Callable[[Cost], str]) -> list[Row]:
    rows = []
    for index, words in enumerate(("one original layer", "one polynomial layer")):
        costs = [s.activation_layer[index] for s in summaries]
        if any(costs):
            rows.append(Row(words, [cell(cost) if cost else NONE for cost in costs], 2))
    return rows


def _latency(summaries: Sequence[Summary]) -> Section:
    rows = [Row("online latency, median [s]", [_seconds(s.latency.median_seconds) for s in summaries])]
    rows.append(Row("interquartile range [s]", [_seconds(s.latency.iqr_seconds) for s in summaries], 1))
    rows += _ratio(summaries, lambda s: s.latency.median_seconds)
    waiting = [_seconds(median(s.latency.waiting_seconds)) for s in summaries]
    rows.append(Row("waiting for peer, median [s]", waiting, 1))
    for group in ("linear", "activation"):
        parts = [(s.groups[group].seconds, s.mean_online_seconds) for s in summaries]
        cells = [_share(_seconds(part), part, whole) for part, whole in parts]
        rows.append(Row(f"{GROUPS[group]}, mean [s]", cells, 1))
    rows += _ratio(summaries, lambda s: s.groups["activation"].seconds, 2)
    offline = [_seconds(median(s.latency.offline_seconds)) + mark(s.record) for s in summaries]
    rows.append(Row("offline latency, median [s]", offline))
    if any(s.latency.dealer_seconds for s in summaries):
        dealer = [_seconds(median(s.latency.dealer_seconds)) for s in summaries]
        rows.append(Row("processor time of the dealer, median [s]", dealer, 1))
    memory = [
        " / ".join(f"{p.peak_memory_bytes / 1e9:.2f}" for p in s.record.parties) or NONE for s in summaries
    ]
    rows.append(Row("peak memory, P0 / P1 [GB]", memory))
    return Section("Latency at the slower party, online phase unless a row says otherwise", rows)


def _seconds(value: float) -> str:
    decimals = 1 if value >= 100 else 2 if value >= 1 or not value else 3
    return f"{value:.{decimals}f}"


def median(values: Sequence[float]) -> float:
    """Median of ``values``, 0 of none."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    if not ordered:
        return 0.0
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def accuracy_keys(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """(task, setting, metric) of all scores, in order of appearance."""
    return list(dict.fromkeys(accuracy_key(score) for record in records for score in record.accuracy))


def accuracy_key(score: Accuracy) -> tuple[str, str, str]:
    return score.task, score.setting, score.metric


def _accuracy(summaries: Sequence[Summary]) -> Section:
    records = [s.record for s in summaries]
    rows = [_score_row(records, key) for key in accuracy_keys(records)]
    for label, part, cell in _FIDELITY:
        owners = [getattr(record, part) for record in records]
        if any(owner is not None for owner in owners):
            rows.append(Row(label, [NONE if owner is None else cell(owner) for owner in owners]))
    return Section("Accuracy of the checkpoint, and agreement of the two-party run", rows)


_FIDELITY: tuple[tuple[str, str, Callable], ...] = (
    ("KL to original [nats/token]", "fidelity", lambda f: f"{f.kl:.3g}"),
    ("argmax equal to original [%]", "fidelity", lambda f: f"{100 * f.argmax_agreement:.1f}"),
    ("next token, two-party run", "agreement", lambda a: json.dumps(a.next_token, ensure_ascii=False)),
    ("= checkpoint in plaintext", "agreement", lambda a: "yes" if a.argmax_equal else "NO"),
    (
        "= original in plaintext",
        "agreement",
        lambda a: "yes" if a.next_token == a.original_next_token else "no",
    ),
    ("five likeliest tokens kept", "agreement", lambda a: NONE if a.top5_kept is None else str(a.top5_kept)),
    ("mean logit error", "agreement", lambda a: f"{a.mean_logit_error:.3g}"),
    ("largest logit error", "agreement", lambda a: f"{a.max_logit_error:.3g}"),
    ("cosine of the logits", "agreement", lambda a: f"{a.cosine:.6f}"),
    ("truncations expected to fail", "truncation", lambda t: f"{t.expected_failures:.1g}"),
    ("openings made again, in rounds", "truncation", lambda t: f"{t.repeated_rounds:,}"),
    ("logits far from plaintext", "truncation", lambda t: f"{t.far_logits:,}"),
)


def _score_row(records: Sequence[Record], key: tuple[str, str, str]) -> Row:
    task, setting, metric = key
    scores = [next((a for a in r.accuracy if accuracy_key(a) == key), None) for r in records]
    sizes = "/".join(dict.fromkeys(str(score.n) for score in scores if score))
    metrics = {m for t, s, m in accuracy_keys(records) if (t, s) == (task, setting)}
    name = f"{task} {metric}" if len(metrics) > 1 else task
    cells = [f"{100 * a.score:.1f} ± {100 * a.stderr:.1f}" if a else NONE for a in scores]
    return Row(f"{name} {setting}, n={sizes} [%]", cells)

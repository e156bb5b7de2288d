"""What happens before an inference, setup and offline phase, and the latency of estimates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mpcbench.records.schema import PhaseLedger, Record
from mpcbench.report.groups import GROUPS
from mpcbench.report.summary import (
    MEGA,
    NONE,
    Row,
    Section,
    Summary,
    in_seconds,
    median,
    megabytes,
    ratio_rows,
    with_share,
)
from mpcbench.report.words import mark

KINDS = {
    "mul_triple": "triples of products",
    "matmul_triple": "triples of matrix products",
    "square": "squares",
    "binary_triple": "binary triples",
    "bit": "bits in both sharings",
    "weight": "weight masks",
    "linear": "products with weight masks",
    "matmul": "products of activations",
    "trig": "cosines and sines",
    "norm": "RMSNorm",
    "normed_scores": "scores with their norm",
    "swiglu": "SwiGLU",
    "quadratic_glu": "quadratic GLU: powers",
    "nested_glu": "cubic or quartic GLU: powers",
    "products": "products",
}
"""Kinds of tuples as ledgers name them, in words."""


def preparation(summaries: Sequence[Summary]) -> list[Section]:
    """The offline and the setup phase."""
    return [_offline(summaries), _setup(summaries)]


def dealt(record: Record) -> tuple[int, int] | None:
    """Correlated randomness beside seeds, by the party that holds it; None where a record does not say."""
    entries = record.ledger.offline.entries
    if all(entry.dealt_bytes is not None for entry in entries):
        return tuple(sum(entry.dealt_bytes[rank] for entry in entries) for rank in (0, 1))
    return record.ledger.offline.bytes_sent if record.protocol.provider_is_secure else None


def unseeded(record: Record) -> int | None:
    """What each party would be sent without seeds; None where an old record does not say."""
    entries = record.ledger.offline.entries
    known = all(entry.unseeded_bytes is not None for entry in entries)
    return sum(entry.unseeded_bytes[1] for entry in entries) if known else None


def tuples(ledger: PhaseLedger) -> Counter[str]:
    """Correlated randomness of a phase by kind, in elements of the product share."""
    found: Counter[str] = Counter()
    for entry in ledger.entries:
        found.update(entry.tuples)
    return found


def _offline(summaries: Sequence[Summary]) -> Section:
    records = [s.record for s in summaries]
    beside, full = [dealt(r) for r in records], [unseeded(r) for r in records]
    cells = [NONE if d is None else megabytes(sum(d)) + mark(r) for d, r in zip(beside, records, strict=True)]
    rows = [Row("dealt beside seeds [MB]", cells)]
    if None not in beside:
        rows += ratio_rows(summaries, lambda s: sum(dealt(s.record)))
    parties = [NONE if d is None else f"{megabytes(d[0])} / {megabytes(d[1])}" for d in beside]
    rows.append(Row("held by P0 / P1 [MB]", parties, 1))
    wire = [megabytes(r.ledger.offline.bytes) for r in records]
    rows.append(Row("sent by the dealer [MB]", wire, 1))
    rows.append(Row("without seeds, to each [MB]", [NONE if f is None else megabytes(f) for f in full]))
    counts = [tuples(r.ledger.offline) for r in records]
    rows.append(Row("tuples [million]", [f"{c.total() / MEGA:.3g}" for c in counts]))
    for kind in dict.fromkeys(kind for count in counts for kind in count):
        shown = [f"{count[kind] / MEGA:.3g}" for count in counts]
        rows.append(Row(KINDS.get(kind, kind), shown, 1))
    if any(s.latency.dealer_seconds for s in summaries):
        seconds = [in_seconds(median(s.latency.dealer_seconds)) for s in summaries]
        rows.append(Row("processor time of the dealer, median [s]", seconds))
    return Section("Offline phase: correlated randomness of one inference", rows)


def _setup(summaries: Sequence[Summary]) -> Section:
    records = [s.record for s in summaries]
    folders = [
        " / ".join(megabytes(size) for size in r.sharing.folder_bytes) if r.sharing else NONE for r in records
    ]
    rows = [Row("shares of the model, P0 / P1 [MB]", folders)]
    rows.append(Row("opened, both parties [MB]", [megabytes(r.ledger.setup.bytes) for r in records]))
    rows.append(Row("rounds", [f"{r.ledger.setup.rounds:,}" for r in records]))
    masks = [f"{tuples(r.ledger.setup)['weight'] / MEGA:.3g}" for r in records]
    rows.append(Row("weight masks [million]", masks))
    return Section("Setup phase: once a model", rows)


def projected_latency(summaries: Sequence[Summary]) -> Section:
    """What estimates say of time, all of it from the link unless time to compute was given."""
    rows = [Row("online latency [s]", [in_seconds(s.latency.median_seconds) for s in summaries])]
    rows += ratio_rows(summaries, lambda s: s.latency.median_seconds)
    link = [in_seconds(s.latency.waiting_seconds[0]) for s in summaries]
    rows.append(Row("of it the link [s]", link, 1))
    for group in ("linear", "activation"):
        parts = [(s.groups[group].seconds, s.mean_online_seconds) for s in summaries]
        cells = [with_share(in_seconds(part), part, whole) for part, whole in parts]
        rows.append(Row(f"{GROUPS[group]} [s]", cells, 1))
    offline = [in_seconds(s.latency.offline_seconds[0]) for s in summaries]
    rows.append(Row("from the dealer, at the link's bandwidth [s]", offline))
    return Section("Estimated latency", rows)

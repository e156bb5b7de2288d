"""The rows of a comparison, worked out once for the terminal, Markdown and LaTeX.

A comparison stands on its side: a column a record, a row a quantity, in sections by subject. Bytes are
payload bytes of both parties; a megabyte (MB) is 10^6 bytes. Ratios say how many times less than the
record with no polynomial layers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from mpcbench.records.schema import Accuracy, Record
from mpcbench.report.groups import GROUPS, Cost
from mpcbench.report.links import links_section
from mpcbench.report.paired import lost
from mpcbench.report.phases import preparation, projected_latency
from mpcbench.report.summary import (
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
from mpcbench.report.words import estimated, mark


def sections(records: Sequence[Record], elsewhere: Sequence[Record] = ()) -> list[Section]:
    """Communication by phase, latency and accuracy of ``records``, ready to be laid out.

    ``elsewhere``: records of the same settings on other links, whose latency is shown beside.
    """
    summaries = [Summary(record) for record in records]
    parts = [_communication(summaries), *preparation(summaries)]
    if estimated(records):
        return [*parts, projected_latency(summaries)]
    links = links_section(records, elsewhere)
    return [*parts, _latency(summaries), *([links] if links else []), _accuracy(summaries)]


def _communication(summaries: Sequence[Summary]) -> Section:
    rows = [Row("online traffic [MB]", [megabytes(s.online.bytes) for s in summaries])]
    rows += ratio_rows(summaries, lambda s: s.online.bytes)
    for group in _present(summaries):
        parts = [(s.groups[group].bytes, s.online.bytes) for s in summaries]
        cells = [with_share(megabytes(part), part, whole) for part, whole in parts]
        rows.append(Row(f"{GROUPS[group]} [MB]", cells, 1))
        if group == "activation":
            rows += ratio_rows(summaries, lambda s: s.groups["activation"].bytes, 2)
            rows += _one_layer(summaries, lambda cost: megabytes(cost.bytes))
    rows.append(Row("online rounds", [f"{s.online.rounds:,}" for s in summaries]))
    rows += ratio_rows(summaries, lambda s: s.online.rounds)
    parts = [(s.groups["activation"].rounds, s.online.rounds) for s in summaries]
    rows.append(Row("activation rounds", [with_share(f"{part:,}", part, whole) for part, whole in parts], 1))
    rows += ratio_rows(summaries, lambda s: s.groups["activation"].rounds, 2)
    rows += _one_layer(summaries, lambda cost: f"{cost.rounds:,}")
    return Section("Online communication of both parties", rows)


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
    rows = [Row("online latency, median [s]", [in_seconds(s.latency.median_seconds) for s in summaries])]
    rows.append(Row("interquartile range [s]", [in_seconds(s.latency.iqr_seconds) for s in summaries], 1))
    rows += ratio_rows(summaries, lambda s: s.latency.median_seconds)
    waiting = [in_seconds(median(s.latency.waiting_seconds)) for s in summaries]
    rows.append(Row("waiting for peer, median [s]", waiting, 1))
    for group in ("linear", "activation"):
        parts = [(s.groups[group].seconds, s.mean_online_seconds) for s in summaries]
        cells = [with_share(in_seconds(part), part, whole) for part, whole in parts]
        rows.append(Row(f"{GROUPS[group]}, mean [s]", cells, 1))
    rows += ratio_rows(summaries, lambda s: s.groups["activation"].seconds, 2)
    offline = [in_seconds(median(s.latency.offline_seconds)) + mark(s.record) for s in summaries]
    rows.append(Row("offline latency, median [s]", offline))
    memory = [
        " / ".join(f"{p.peak_memory_bytes / 1e9:.2f}" for p in s.record.parties) or NONE for s in summaries
    ]
    rows.append(Row("peak memory, P0 / P1 [GB]", memory))
    return Section("Latency at the slower party, online phase unless a row says otherwise", rows)


def accuracy_keys(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """(task, setting, metric) of all scores, in order of appearance."""
    return list(dict.fromkeys(accuracy_key(score) for record in records for score in record.accuracy))


def accuracy_key(score: Accuracy) -> tuple[str, str, str]:
    return score.task, score.setting, score.metric


def _accuracy(summaries: Sequence[Summary]) -> Section:
    records = [s.record for s in summaries]
    rows = [row for key in accuracy_keys(records) for row in _score_rows(records, key)]
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


def _score_rows(records: Sequence[Record], key: tuple[str, str, str]) -> list[Row]:
    """The score, and what was lost of that of a model without polynomials where single answers are known."""
    task, setting, metric = key
    scores = [next((a for a in r.accuracy if accuracy_key(a) == key), None) for r in records]
    sizes = "/".join(dict.fromkeys(str(score.n) for score in scores if score))
    metrics = {m for t, s, m in accuracy_keys(records) if (t, s) == (task, setting)}
    name = f"{task} {metric}" if len(metrics) > 1 else task
    cells = [f"{100 * a.score:.1f} ± {100 * a.stderr:.1f}" if a else NONE for a in scores]
    rows = [Row(f"{name} {setting}, n={sizes} [%]", cells)]
    replaced = [bool(record.model.polynomial_layers) for record in records]
    base = next((score for score, poly in zip(scores, replaced, strict=True) if score and not poly), None)
    pairs = [
        lost(base, score) if base and score and poly else None
        for score, poly in zip(scores, replaced, strict=True)
    ]
    if any(pairs):
        cells = [NONE if pair is None else f"{100 * pair[0]:.1f} ± {100 * pair[1]:.1f}" for pair in pairs]
        rows.append(Row("points lost, question by question", cells, 1))
    return rows

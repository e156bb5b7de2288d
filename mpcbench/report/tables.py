"""The comparison as files: CSV with every number, Markdown for a README, LaTeX for a paper."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mpcbench.errors import UserError
from mpcbench.records.schema import PHASES, Record
from mpcbench.report.groups import group_of
from mpcbench.report.latex import latex_table
from mpcbench.report.sections import sections
from mpcbench.report.summary import Summary
from mpcbench.report.words import footnotes, labels, mark, marked_labels, notes, setting


def write_tables(
    records: Sequence[Record], folder: Path, elsewhere: Sequence[Record] = ()
) -> list[Path]:  # fmt: skip
    """Write comparison.csv, .md, .tex and operators.csv into ``folder``; return their paths.

    ``elsewhere``: the same settings measured on other links, for the tables to read.
    Raises UserError naming the path when the disk is full or the folder cannot be written.
    """
    texts = {
        "comparison.csv": comparison_csv(records),
        "operators.csv": operators_csv(records),
        "comparison.md": markdown(records, elsewhere),
        "comparison.tex": latex_table(records, elsewhere),
    }
    return [save(Path(folder) / name, text.encode()) for name, text in texts.items()]


def save(path: Path, content: bytes) -> Path:
    """Put ``content`` under ``path`` in one step, so that a full disk leaves no half of a file."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; make room there or choose another folder"
        ) from error
    return path


def markdown(records: Sequence[Record], elsewhere: Sequence[Record] = ()) -> str:
    """One Markdown table a section, then the footnotes."""
    heads = [_cell(label) for label in marked_labels(records)]
    lines = [f"{setting(records)}.", ""]
    for section in sections(records, elsewhere):
        lines += [f"**{section.title}**", "", f"| polynomial layers | {' | '.join(heads)} |"]
        lines.append("|:---|" + "---:|" * len(heads))
        for row in section.rows:
            label = "&nbsp;&nbsp;" * row.depth + _cell(row.label) if row.depth else f"**{_cell(row.label)}**"
            lines.append(f"| {label} | {' | '.join(map(_cell, row.cells))} |")
        lines.append("")
    for note in notes(records):
        lines += [note, ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|")
    for sign in "*_`<[":
        escaped = escaped.replace(sign, "\\" + sign)
    return escaped


def comparison_csv(records: Sequence[Record]) -> str:
    """A row a record, a column every field (dotted names), preceded by derived numbers.

    Lists stand in one cell, separated by semicolons; the ledger's entries are in operators.csv.
    """
    rows = [_wide_row(label, record) for label, record in zip(labels(records), records, strict=True)]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return _csv(columns, ([row.get(column, "") for column in columns] for row in rows))


def _wide_row(label: str, record: Record) -> dict[str, object]:
    row: dict[str, object] = {
        "label": label,
        "mark": mark(record),
        "mark_meaning": " ".join(footnotes([record])),
        "polynomial_layers": len(record.model.polynomial_layers),
    }
    for group, cost in Summary(record).groups.items():
        row[f"online.{group}.bytes"] = cost.bytes
        row[f"online.{group}.rounds"] = cost.rounds
        row[f"online.{group}.seconds"] = cost.seconds
        row[f"online.{group}.wait_seconds"] = cost.wait_seconds
    for score in record.accuracy:
        name = f"accuracy.{score.task}.{score.setting}.{score.metric}"
        row |= {name: score.score, f"{name}.stderr": score.stderr, f"{name}.n": score.n}
        row[f"{name}.source"] = score.source
    data = record.model_dump(
        mode="json", exclude={"accuracy": True, "ledger": {p: {"entries"} for p in PHASES}}
    )
    _flatten("", data, row)
    return row


def _flatten(name: str, value: object, row: dict[str, object]) -> None:
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{name}.{key}" if name else str(key), item, row)
    elif isinstance(value, list):
        row[name] = ";".join(map(str, value))
    else:
        row[name] = "" if value is None else value


OPERATOR_COLUMNS = (
    "label", "mark", "polynomial_layers", "run_id", "phase", "layer", "layer_is_polynomial", "module",
    "operator", "group", "calls", "bytes", "bytes_sent_party0", "bytes_sent_party1", "rounds", "seconds",
    "wait_seconds", "tuples", "dealt_bytes_party0", "dealt_bytes_party1", "unseeded_bytes_a_party",
)  # fmt: skip


def operators_csv(records: Sequence[Record]) -> str:
    """A row for every record, phase, layer and operator, with exact numbers."""
    rows: list[list[object]] = []
    for label, record in zip(labels(records), records, strict=True):
        replaced = set(record.model.polynomial_layers)
        for phase in PHASES:
            for entry in getattr(record.ledger, phase).entries:
                tuples = ";".join(f"{kind}={count}" for kind, count in sorted(entry.tuples.items()))
                layer = "" if entry.layer is None else entry.layer
                rows.append(
                    [label, mark(record), len(replaced), record.run_id, phase, layer, entry.layer in replaced,
                     entry.module, entry.operator, group_of(entry), entry.calls, sum(entry.bytes_sent),
                     *entry.bytes_sent, entry.rounds, entry.seconds, entry.wait_seconds, tuples,
                     *(entry.dealt_bytes or ("", "")), (entry.unseeded_bytes or ("",))[0]]
                )  # fmt: skip
    return _csv(OPERATOR_COLUMNS, rows)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()

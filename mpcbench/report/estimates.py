"""Estimates as tables: a row a protocol, length and number of polynomial layers, a column a link."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpcbench.records.schema import Entry, Record
from mpcbench.report.groups import GROUPS, group_of
from mpcbench.report.phases import dealt, unseeded
from mpcbench.report.summary import in_seconds, megabytes
from mpcbench.report.tables import save
from mpcbench.report.words import asked, footnotes, length, mark

if TYPE_CHECKING:
    from rich.console import Group

CSV = (
    "model", "protocol", "provider", "tokens", "cached", "embedding", "layers", "polynomial_layers", "degree",
    "link", "bandwidth_bits_per_second", "round_trip_seconds", "shares_party0_bytes", "shares_party1_bytes",
    "setup_bytes", "setup_rounds", "offline_dealt_bytes", "offline_unseeded_bytes_a_party", "online_bytes",
    "online_bytes_party0", "online_bytes_party1", "online_rounds", "offline_seconds", "online_seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One run that is priced: its record on the first link, and its latency on every link."""

    record: Record
    seconds: dict[str, float]

    @property
    def head(self) -> list[str]:
        """Protocol, tokens and polynomial layers."""
        record = self.record
        layers = f"{len(record.model.polynomial_layers)} of {record.model.layers}"
        return [record.protocol.name + mark(record), length(record), layers]


def lines(records: Sequence[Record]) -> list[Line]:
    """Records that differ in the link alone, gathered."""
    found: dict[tuple, Line] = {}
    for record in records:
        model = record.model
        layers = tuple(model.polynomial_layers)
        run = (model.name, layers, record.protocol.sha256, record.workload.tokens, record.workload.cached)
        line = found.setdefault(run, Line(record, {}))
        line.seconds[record.link.profile] = record.latency.median_seconds
    return list(found.values())


def rows(records: Sequence[Record], by: str = "total") -> tuple[list[str], list[list[str]]]:
    """Heads and cells. ``by``: ``total``, ``operator``, ``layer``, or ``block``: one layer, on average."""
    links = list(dict.fromkeys(record.link.profile for record in records))
    heads = ["protocol", "tokens", "polynomial"]
    if by == "total":
        heads += ["setup [MB]", "offline [MB]", "online [MB]", "rounds", *(f"{link} [s]" for link in links)]
        return heads, [line.head + _total(line, links) for line in lines(records)]
    heads += [by, "setup [MB]", "offline [MB]", "online [MB]", "rounds"]
    cells = []
    for line in lines(records):
        head = line.head
        for name, numbers in _parts(line.record, by).items():
            cells.append([*head, name, *numbers])
            head = [""] * len(head)
    return heads, cells


def _total(line: Line, links: Sequence[str]) -> list[str]:
    ledger = line.record.ledger
    offline = sum(dealt(line.record) or (0, 0))
    sizes = [megabytes(count) for count in (ledger.setup.bytes, offline, ledger.online.bytes)]
    return [*sizes, f"{ledger.online.rounds:,}", *(in_seconds(line.seconds[link]) for link in links)]


def _parts(record: Record, by: str) -> dict[str, list[str]]:
    """Cells of every part; those of a block are divided by the number of layers that have it."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    layers: dict[str, set[int | None]] = defaultdict(set)
    ledger = record.ledger
    for column, phase in enumerate((ledger.setup, ledger.offline, ledger.online)):
        for entry in phase.entries:
            name = _part(entry, by)
            layers[name].add(entry.layer)
            sums[name][column] += sum((entry.dealt_bytes or (0, 0)) if column == 1 else entry.bytes_sent)
            sums[name][3] += entry.rounds if column == 2 else 0
    order = list(GROUPS.values()) if by == "operator" else list(sums)
    named = sorted((name for name in sums if any(sums[name])), key=order.index)
    return {name: _cells(sums[name], len(layers[name]) if by == "block" else 1) for name in named}


def _cells(sums: Sequence[int], count: int) -> list[str]:
    rounds = sums[3] / count
    whole = f"{rounds:,.0f}" if rounds == int(rounds) else f"{rounds:,.1f}"
    return [*(megabytes(size / count) for size in sums[:3]), whole]


def _part(entry: Entry, by: str) -> str:
    if by == "operator":
        return GROUPS[group_of(entry)]
    if by == "block":
        return entry.module.split(".")[2 if entry.layer is not None and entry.module.count(".") > 1 else 0]
    return "outside the layers" if entry.layer is None else f"layer {entry.layer}"


def terminal_estimates(records: Sequence[Record], by: str = "total") -> Group:
    """A rich table of 120 columns with what belongs beneath it."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    heads, cells = rows(records, by)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=Text(title(records)), title_justify="left")
    for index, head in enumerate(heads):
        table.add_column(Text(head), justify="left" if index == 0 or head == by else "right")
    for row in cells:
        table.add_row(*map(Text, row))
    return Group(table, *(Text(note) for note in notes(records)))


def title(records: Sequence[Record]) -> str:
    """Which model, and that this is an estimate."""
    first = records[0]
    return (
        f"Estimate for {first.model.name}: {first.model.layers} layers, "
        f"{first.model.parameters / 1e6:,.0f} M parameters"
    )


def notes(records: Sequence[Record]) -> list[str]:
    """What a reader has to know of the numbers."""
    links = {record.link.profile: asked(record) for record in records}
    shares = records[0].sharing.folder_bytes
    return [
        *footnotes(records),
        "Bytes are those of both parties; offline is what is dealt beside seeds, setup is once a model. "
        f"Shares of the model: {megabytes(shares[0])} MB for party 0, {megabytes(shares[1])} MB for party 1.",
        f"Links: {'; '.join(f'{name}: {words}' for name, words in links.items())}.",
        *dict.fromkeys(f"Note: {note}" for record in records for note in record.notes),
    ]


def write_estimates(records: Sequence[Record], folder: Path) -> list[Path]:
    """estimates.csv, exact, and estimates.md; raises UserError when the folder cannot be written."""
    texts = {"estimates.csv": estimates_csv(records), "estimates.md": estimates_markdown(records)}
    return [save(Path(folder) / name, text.encode()) for name, text in texts.items()]


def estimates_markdown(records: Sequence[Record]) -> str:
    """The command, the table and its notes."""
    heads, cells = rows(records)
    text = [f"`{records[0].command}`", "", f"{title(records)}.", ""]
    text += [f"| {' | '.join(heads)} |", "|:---|" + "---:|" * (len(heads) - 1)]
    text += [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([*text, "", *(f"{note}\n" for note in notes(records))])


def estimates_csv(records: Sequence[Record]) -> str:
    """A row a record, with exact numbers."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV)
    for r in records:
        setup, online = r.ledger.setup, r.ledger.online
        writer.writerow([
            r.model.name, r.protocol.name, r.protocol.provider, r.workload.tokens, r.workload.cached,
            r.workload.embedding, r.model.layers, len(r.model.polynomial_layers), r.model.degree,
            r.link.profile,
            r.link.asked_bandwidth_bits_per_second, r.link.asked_round_trip_seconds, *r.sharing.folder_bytes,
            setup.bytes, setup.rounds, sum(dealt(r)), unseeded(r), online.bytes, *online.bytes_sent,
            online.rounds, r.latency.offline_seconds[0], r.latency.median_seconds,
        ])  # fmt: skip
    return text.getvalue()

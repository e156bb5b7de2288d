"""A sweep as one long table: a row a record, whatever its model, protocol, length or link."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpcbench.records.schema import Record
from mpcbench.report.summary import NONE, megabytes
from mpcbench.report.tables import comparison_csv, save
from mpcbench.report.words import DAGGER, footnotes, mark

if TYPE_CHECKING:
    from rich.console import Group

WIDTH = 140
COLUMNS = ("model", "layers", "protocol", "tokens", "link", "seed", "online [MB]", "rounds", "offline [MB]",
           "latency [s]", "accuracy [%]")  # fmt: skip


def write_sweep(records: Sequence[Record], folder: Path) -> Path:
    """sweep.csv: a row a record, a column every number of it."""
    return save(folder / "sweep.csv", comparison_csv(records).encode())


def terminal_sweep(records: Sequence[Record]) -> Group:
    """The table for a terminal, without columns that no record fills; latencies are online medians.

    Beneath it stands what daggers mean, and what estimates had to assume.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows = [row(record) for record in records]
    shown = [i for i in range(len(COLUMNS)) if any(cells[i] != NONE for cells in rows)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i in shown:
        table.add_column(Text(COLUMNS[i]), justify="left" if i == 0 else "right")
    for cells in rows:
        table.add_row(*(Text(cells[i]) for i in shown))
    notes = [Text(note, style="red" if note.startswith(DAGGER) else "") for note in footnotes(records)]
    assumed = (note for record in records if record.kind == "estimated" for note in record.notes)
    return Group(table, *notes, *(Text(f"Note: {note}") for note in dict.fromkeys(assumed)))


def row(record: Record) -> list[str]:
    """The cells of one record, in the order of :data:`COLUMNS`."""
    workload, ledger = record.workload, record.ledger
    score = next(iter(record.accuracy), None)
    return [
        record.model.name.rstrip("/").rsplit("/", 1)[-1],
        str(len(record.model.polynomial_layers)),
        record.protocol.name + mark(record),
        str(workload.tokens),
        record.link.profile,
        NONE if workload.seed is None else str(workload.seed),
        megabytes(ledger.online.bytes),
        f"{ledger.online.rounds:,}",
        megabytes(ledger.offline.bytes),
        f"{record.latency.median_seconds:.3g}" if record.latency else NONE,
        f"{100 * score.score:.1f} ± {100 * score.stderr:.1f}" if score else NONE,
    ]

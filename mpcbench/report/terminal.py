"""The comparison as tables for a terminal of 120 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpcbench.records.schema import Record
from mpcbench.report.sections import sections
from mpcbench.report.summary import Section
from mpcbench.report.words import DAGGER, marked_labels, notes, setting

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

WIDTH = 120
COLUMNS = 4  # records side by side; more go into further tables below


def terminal_table(records: Sequence[Record], elsewhere: Sequence[Record] = ()) -> Group:
    """Stacked tables of communication, latency and accuracy, with footnotes; a rich renderable.

    ``elsewhere``: the same settings measured on other links.
    """
    from rich.console import Group
    from rich.text import Text

    parts = [Text(setting(records) + ".\n", style="bold")]
    for start in range(0, len(records), COLUMNS):
        shown = range(start, min(start + COLUMNS, len(records)))
        heads = [marked_labels(records)[i] for i in shown]
        parts += [_table(section, heads, shown) for section in sections(records, elsewhere)]
    parts += [Text(note, style="red" if note.startswith(DAGGER) else "") for note in notes(records)]
    return Group(*parts)


def _table(section: Section, heads: Sequence[str], shown: range) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(section.title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, width=WIDTH
    )
    table.add_column("polynomial layers", ratio=3, no_wrap=False)
    for head in heads:
        table.add_column(Text(head), justify="right", ratio=1)
    for row in section.rows:
        style = "" if row.depth else "bold"
        label = "  " * row.depth + row.label
        table.add_row(Text(label, style=style), *(Text(row.cells[i], style=style) for i in shown))
    return table

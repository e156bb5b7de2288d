"""A generated text as a table for a terminal: what every token took."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING

from mpcbench.records.schema import Generation, Record
from mpcbench.report.terminal import WIDTH
from mpcbench.report.words import notes

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

COLUMNS = (
    "token",
    "text",
    "cached",
    "online [MB]",
    "rounds",
    "online [s]",
    "offline [MB]",
    "client learns",
)


def generation_table(record: Record) -> Group:
    """The text, a row for every token, and footnotes; a rich renderable. The record must hold a text."""
    from rich.console import Group
    from rich.text import Text

    made = record.generation
    model = record.model
    about = f"{model.name}, {len(model.polynomial_layers)} of {model.layers} layers polynomial"
    head = Text(f"{about}, protocol {record.protocol.name}, both parties together.", style="bold")
    words = [Text(sentence) for sentence in _sentences(record, made)]
    return Group(head, _table(made), *words, *(Text(note) for note in notes([record])))


def _table(made: Generation) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, width=WIDTH)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "text" else "right")
    for number, token in enumerate(made.tokens, 1):
        table.add_row(
            str(number),
            json.dumps(token.text, ensure_ascii=False),
            str(token.cached),
            f"{token.online.bytes / 1e6:,.3f}",
            f"{token.online.rounds:,}",
            f"{token.latency.median_seconds:.2f}",
            f"{token.offline.bytes / 1e6:,.2f}",
            ", ".join(token.openings.unmasked),
        )
    return table


def _sentences(record: Record, made: Generation) -> list[str]:
    later = made.tokens[1:]
    found = [f"Text: {json.dumps(record.workload.prompt + made.text, ensure_ascii=False)}"]
    if made.equals_plaintext:
        found.append("Plaintext greedy generation of the same checkpoint gives the same tokens.")
    else:
        found.append(
            f"Plaintext greedy generation DIFFERS: {json.dumps(made.plaintext_text, ensure_ascii=False)}"
        )
    if later:
        size = statistics.mean(token.online.bytes for token in later) / 1e6
        rounds = max(token.online.rounds for token in later)
        seconds = statistics.median(token.latency.median_seconds for token in later)
        found.append(
            f"A token after the first takes {size:,.2f} MB and up to {rounds:,} rounds online, "
            f"{seconds:.2f} s (median)."
        )
    found.append(f"Cached keys and values: {made.cache}.")
    return found

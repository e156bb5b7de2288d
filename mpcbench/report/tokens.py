"""Figure of generated texts: what every decoding step took, by how many tokens were cached."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpcbench.records.schema import GeneratedToken, Record
from mpcbench.report.style import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    VERMILLION,
    Sheet,
    legend_columns,
    panel_letter,
    paper,
    write_figure,
)
from mpcbench.report.words import marked_labels, short_footnote

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURVES = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (ORANGE, "D"), (PURPLE, "v"))


def write_tokens_figure(records: Sequence[Record], folder: Path) -> list[Path]:
    """tokens.pdf and .png of the records that hold a text of several tokens; nothing where none does."""
    shown = [record for record in records if record.generation and len(record.generation.tokens) > 1]
    if not shown:
        return []
    with paper():
        return write_figure(tokens_figure(shown), folder, "tokens")


def tokens_figure(records: Sequence[Record]) -> Figure:
    """(a) Online bytes of both parties, (b) rounds, (c) online seconds of every token after the first."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    sheet = Sheet([0.9, 0.9, 0.9], [0.36, 0.36, 0.46], top=0.5)
    handles = []
    for index, (record, label) in enumerate(zip(records, _labels(records), strict=True)):
        colour, mark = _CURVES[index % len(_CURVES)]
        later = record.generation.tokens[1:]
        cached = [token.cached for token in later]
        for axes, values in zip(sheet.axes, _values(later), strict=True):
            (curve,) = axes.plot(
                cached, values, f"{mark}-", color=colour, markersize=2.5, lw=0.8, label=label
            )
        handles.append(curve)
    words = ("online traffic, both parties [MB]", "online rounds", "online time [s]")
    for axes, letter, what in zip(sheet.axes, "abc", words, strict=True):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 50 * low else (1.0,)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:,g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.get_major_locator().set_params(integer=True)
        panel_letter(axes, letter, what)
    sheet.axes[-1].set_xlabel("tokens cached", labelpad=1)
    sheet.legend(handles, legend_columns(handles))
    sheet.footnote(short_footnote(records))
    return sheet.figure


def _values(tokens: Sequence[GeneratedToken]) -> tuple[list[float], list[float], list[float]]:
    return (
        [token.online.bytes / 1e6 for token in tokens],
        [float(token.online.rounds) for token in tokens],
        [token.latency.median_seconds for token in tokens],
    )


def _labels(records: Sequence[Record]) -> list[str]:
    """Protocol, polynomial layers where there are some, and whether logits stay private."""
    names = []
    for record, label in zip(records, marked_labels(records), strict=True):
        layers = len(record.model.polynomial_layers)
        parts = [record.protocol.name] + [f"{layers} polynomial"] * bool(layers)
        parts += ["private logits"] * record.generation.private_logits
        names.append(", ".join(parts) + ("†" if label.endswith("†") else ""))
    return names

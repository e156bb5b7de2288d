"""Figures of estimates: what links, layers and lengths do to the cost of every protocol.

Lines are told apart by colour and marker (the protocol) and by their stroke (solid: no polynomial layer;
dashed: as many as were priced). Whatever lacks a second value to draw a line to is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mpcbench.records.schema import Record
from mpcbench.report.estimates import lines
from mpcbench.report.phases import dealt
from mpcbench.report.style import (
    BLUE,
    GREEN,
    VERMILLION,
    Sheet,
    legend_columns,
    panel_letter,
    paper,
    protocol_handles,
    protocol_look,
    write_figure,
)
from mpcbench.report.tables import save
from mpcbench.report.words import asked, footnotes, length, mark, short_footnote

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

AXIS, GAP, PANEL = 0.36, 0.24, 1.25
GIGA = 1e9

Key = Callable[[Record], int]


def write_curves(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draw every figure that the records have data for, as PDF and PNG, and curves.md, their captions."""
    paths, texts = [], []
    with paper():
        for name, (draw, caption) in FIGURES.items():
            figure = draw(records)
            if figure is not None:
                paths += write_figure(figure, folder, name)
                texts.append(f"## {name}\n\n{caption} {_setting(records)}\n")
    return [*paths, save(Path(folder) / "curves.md", "\n".join(texts).encode())] if texts else []


def links_figure(records: Sequence[Record]) -> Figure | None:
    """Online latency without time to compute, (a) against the round trip, (b) against the bandwidth."""
    chosen = _ends(_one_length(records))
    if chosen is None:
        return None
    sheet = curve_sheet(records, 2)
    trips = [1e-4 * 10 ** (step / 10) for step in range(34)]
    rates = [1e7 * 10 ** (step / 10) for step in range(41)]
    fixed = chosen[0].link
    bandwidth = fixed.asked_bandwidth_bits_per_second or 1e9
    for record in chosen:
        style = look(record, markevery=10)
        sheet.axes[0].plot([1e3 * t for t in trips], [_seconds(record, t, bandwidth) for t in trips], **style)
        by_rate = [_seconds(record, fixed.asked_round_trip_seconds, rate) for rate in rates]
        sheet.axes[1].plot([rate / 1e6 for rate in rates], by_rate, **style)
    labels = ("round-trip time [ms]", "bandwidth [Mbit/s]")
    titles = (f"at {bandwidth / 1e6:g} Mbit/s", f"at {fixed.asked_round_trip_seconds * 1e3:g} ms")
    for axes, label, letter, words in zip(sheet.axes, labels, "ab", titles, strict=True):
        log_axis(axes, "x")
        log_axis(axes)
        axes.set_xlabel(label, labelpad=1)
        axes.set_ylabel("link's share [s]", labelpad=2)
        panel_letter(axes, letter, words)
    return sheet.figure


def phases_figure(records: Sequence[Record]) -> Figure | None:
    """Bytes of setup, offline and online phase for every protocol and number of polynomial layers."""
    chosen = [line.record for line in lines(_one_length(records))]
    if len(chosen) < 2:
        return None
    note = short_footnote(records)
    height = 0.15 * len(chosen) + 0.1
    names = [f"{r.protocol.name} {len(r.model.polynomial_layers)}{mark(r)}" for r in chosen]
    sheet = Sheet([height], [AXIS + (0.13 if note else 0)], top=0.25, left=0.2 + 0.065 * max(map(len, names)))
    axes = sheet.axes[0]
    phases = (
        ("online", "o", VERMILLION, lambda r: r.ledger.online.bytes),
        ("offline, dealt beside seeds", "s", BLUE, lambda r: sum(dealt(r))),
        ("setup, once", "^", GREEN, lambda r: r.ledger.setup.bytes + sum(r.sharing.folder_bytes)),
    )
    handles = [
        axes.plot([value(r) / GIGA for r in chosen], range(len(chosen)), marker, color=colour, markersize=4,
                  label=label)[0]
        for label, marker, colour, value in phases
    ]  # fmt: skip
    log_axis(axes, "x")
    axes.set_yticks(range(len(chosen)), names, fontsize=7)
    axes.set_ylim(len(chosen) - 0.5, -0.5)
    axes.grid(axis="x", linewidth=0.3, color="0.85")
    axes.set_axisbelow(True)
    axes.set_xlabel("both parties together [GB]", labelpad=1)
    sheet.legend(handles, 3)
    sheet.footnote(note)
    return sheet.figure


def layers_figure(records: Sequence[Record]) -> Figure | None:
    """(a) Online and (b) offline bytes against the number of polynomial layers."""
    chosen = [line.record for line in lines(_one_length(records))]
    return _growth(chosen, polynomials, "polynomial layers", log=False)


def length_figure(records: Sequence[Record]) -> Figure | None:
    """(a) Online and (b) offline bytes against the number of tokens, without and with polynomial layers."""
    every = [line.record for line in lines(records)]
    counts = {polynomials(record) for record in every}
    chosen = [record for record in every if polynomials(record) in (min(counts), max(counts))]
    return _growth(chosen, lambda r: r.workload.tokens + r.workload.cached, "tokens", log=True)


def _growth(chosen: Sequence[Record], key: Key, label: str, log: bool) -> Figure | None:
    if len({key(record) for record in chosen}) < 3:
        return None
    sheet = curve_sheet(chosen, 2, strokes=log)
    values = (lambda r: r.ledger.online.bytes, lambda r: sum(dealt(r)))
    for axes, value, letter, words in zip(sheet.axes, values, "ab", ("online", "offline"), strict=True):
        for line in _curves(chosen, by_layers=log):
            points = sorted((key(record), value(record) / GIGA) for record in line)
            axes.plot(*zip(*points, strict=True), **look(line[0] if log else None, line[0]))
        log_axis(axes)
        axes.set_ylabel("both parties [GB]", labelpad=2)
        panel_letter(axes, letter, words)
        axes.set_xlabel(label, labelpad=1)
        if log:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    return sheet.figure


def log_axis(axes: Axes, which: str = "y") -> None:
    """A logarithmic axis with plain numbers: one a decade, or three where there are few decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axes, f"set_{which}scale")("log")
    low, high = getattr(axes, f"get_{which}lim")()
    axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogLocator(base=10, subs=(1.0,) if high / low > 300 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.12g}"))
    axis.set_minor_formatter(NullFormatter())


def _curves(chosen: Sequence[Record], by_layers: bool) -> list[list[Record]]:
    found: dict[tuple, list[Record]] = {}
    for record in chosen:
        key = (record.protocol.name, polynomials(record) if by_layers else None)
        found.setdefault(key, []).append(record)
    return list(found.values())


def _one_length(records: Sequence[Record]) -> list[Record]:
    """Of several lengths the first."""
    return [r for r in records if length(r) == length(records[0])]


def _ends(records: Sequence[Record]) -> list[Record] | None:
    """Of every protocol the run with fewest and the one with most polynomial layers, on the first link."""
    every = [line.record for line in lines(records)]
    counts = {polynomials(record) for record in every}
    if len(counts) < 2:
        return None
    return [record for record in every if polynomials(record) in (min(counts), max(counts))]


def polynomials(record: Record) -> int:
    """How many layers are polynomial."""
    return len(record.model.polynomial_layers)


def _seconds(record: Record, round_trip: float, bandwidth: float) -> float:
    online = record.ledger.online
    sent = sum(max(entry.bytes_sent) for entry in online.entries)
    return online.rounds * round_trip / 2 + 8 * sent / bandwidth


def look(stroke: Record | None, record: Record | None = None, **more: object) -> dict:
    """Colour and marker of the protocol; dashed for polynomial layers where ``stroke`` is given."""
    colour, marker = protocol_look((record or stroke).protocol.name)
    dashed = stroke is not None and bool(stroke.model.polynomial_layers)
    return {
        "color": colour, "marker": marker, "linestyle": "--" if dashed else "-", "linewidth": 1.0,
        "markersize": 3, "markerfacecolor": "white" if dashed else colour, **more,
    }  # fmt: skip


def curve_sheet(
    records: Sequence[Record], panels: int, strokes: bool = True, marks: Sequence[Line2D] | None = None
) -> Sheet:
    """Panels beneath one legend: of every protocol, of what strokes mean, and of ``marks``, where
    these do not tell protocols apart."""
    from matplotlib.lines import Line2D

    found = {record.protocol.name: record for record in records}
    names = {name: name + mark(record) for name, record in found.items()}
    handles = protocol_handles(names, markers=marks is None, linewidth=1.0)
    if strokes:
        most = max(polynomials(record) for record in records)
        for label, style in (("SwiGLU", "-"), (f"{most} polynomial", "--")):
            handles.append(Line2D([], [], color="0.4", linestyle=style, linewidth=1.0, label=label))
    handles += marks or []
    columns, note = legend_columns(handles), short_footnote(records)
    legend = 0.06 + 0.14 * -(-len(handles) // columns)
    gaps = [AXIS + GAP] * (panels - 1) + [AXIS + (0.13 if note else 0)]
    sheet = Sheet([PANEL] * panels, gaps, top=legend + 0.2, left=0.72, right=0.18)
    sheet.legend(handles, columns)
    sheet.footnote(note)
    for axes in sheet.axes:
        axes.grid(linewidth=0.3, color="0.85")
        axes.set_axisbelow(True)
    return sheet


def _setting(records: Sequence[Record]) -> str:
    first = records[0]
    lengths = ", ".join(dict.fromkeys(map(length, records)))
    return " ".join([
        f"{first.model.name}, {first.model.layers} layers, {lengths} tokens; link {first.link.profile} "
        f"({asked(first)}) where none is named.", *footnotes(records),
        *dict.fromkeys(note for record in records for note in record.notes),
    ])  # fmt: skip


FIGURES: dict[str, tuple[Callable[[Sequence[Record]], Figure | None], str]] = {
    "links": (
        links_figure,
        "Online latency of one inference, the link's share alone, (a) against the round-trip time and (b) "
        "against the bandwidth of each direction. Where solid and dashed lines lie together, polynomials "
        "save no time.",
    ),
    "phases": (
        phases_figure,
        "Bytes by phase, by protocol and number of polynomial layers: online, offline (correlated randomness "
        "beside seeds), and setup (the parties' shares of the model, and opening weight masks).",
    ),
    "layers": (
        layers_figure,
        "Bytes of both parties against the number of polynomial layers, (a) online and (b) offline, dealt "
        "beside seeds.",
    ),
    "length": (
        length_figure,
        "Bytes of both parties against the length of the prompt, (a) online and (b) offline, dealt beside "
        "seeds.",
    ),
}
"""Figures by file name, with their captions."""

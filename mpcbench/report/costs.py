"""Figures of cost: online bytes and latency by operator group, and the activation of one layer."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpcbench.records.schema import Record
from mpcbench.report.bars import (
    BAR,
    ROW,
    group_handles,
    numbers_inside,
    rows_axis,
    stack_names,
    stack_values,
    stacked_bars,
    totals,
)
from mpcbench.report.groups import Cost
from mpcbench.report.style import COLOURS, HATCHES, ORANGE, Sheet, legend_columns, panel_letter
from mpcbench.report.summary import Summary, baseline, mean_cost
from mpcbench.report.words import DAGGER, marked_labels, short_footnote

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXIS = 0.36  # inches beneath a panel: tick labels and axis label
TITLE = 0.19  # inches above a panel: its letter and title
NOTE = 0.13  # inches of a footnote
LAYERS = "polynomial layers"
PAIR = {"original": (COLOURS["activation"], HATCHES["activation"]), "polynomial": (ORANGE, "")}
"""Colours and hatches of the two activations of a layer."""


def bytes_figure(records: Sequence[Record]) -> Figure:
    """(a) Online bytes of both parties, stacked by operator group; (b) the activation alone."""
    summaries = [Summary(record) for record in records]
    stacks = [stack_values(s, lambda cost: cost.bytes / 1e6) for s in summaries]
    sheet = _two_panels(records, stacks)
    top, bottom = sheet.axes
    _stacked_panel(top, records, stacks, _megabytes, _less(summaries, lambda s: s.online.bytes))
    top.set_xlabel("online traffic, both parties [MB]", labelpad=1)
    panel_letter(top, "a", "all operators")
    activation = [stack["activation"] for stack in stacks]
    less = _less(summaries, lambda s: s.groups["activation"].bytes)
    _single_panel(bottom, records, activation, [_megabytes(value) for value in activation], less)
    bottom.set_xlabel("online traffic, both parties [MB]", labelpad=1)
    panel_letter(bottom, "b", "activation alone")
    return sheet.figure


def latency_figure(records: Sequence[Record]) -> Figure:
    """(a) Online latency by operator group, and how much of it is waiting; (b) rounds by group."""
    summaries = [Summary(record) for record in records]
    stacks = [_seconds_by_group(s) for s in summaries]
    rounds = [stack_values(s, lambda cost: cost.rounds) for s in summaries]
    sheet = _two_panels(
        records, stacks, extra_handles=_waiting_handles(), names=stack_names("other, between")
    )
    top, bottom = sheet.axes
    less = _less(summaries, lambda s: s.latency.median_seconds)
    _stacked_panel(
        top, records, stacks, lambda v: f"{v:.1f}", less, [s.latency.median_seconds for s in summaries]
    )
    for row, summary in enumerate(summaries):
        _waiting_strip(top, row, summary)
        _quartiles(top, row, summary)
    whiskers = [latency_quartiles(record)[1] for record in records]
    top.set_xlim(0, max(top.get_xlim()[1], 1.02 * max(whiskers)))
    top.set_xlabel("online latency [s]", labelpad=1)
    panel_letter(top, "a", "time")
    _stacked_panel(
        bottom, records, rounds, lambda v: f"{v:,.0f}", _less(summaries, lambda s: s.online.rounds)
    )
    bottom.set_xlabel("online rounds", labelpad=1)
    panel_letter(bottom, "b", "rounds")
    return sheet.figure


def activation_figure(records: Sequence[Record]) -> Figure | None:
    """The activation of one layer, original beside polynomial: bytes, rounds, time; None without both."""
    pairs = one_layer(records)
    if not pairs:
        return None
    note = short_footnote(records)
    names = _pair_names(list(pairs), DAGGER if note else "")
    several = len(pairs) > 1
    left = max(0.76, 0.1 + 0.062 * max(map(len, names)))
    sheet = Sheet(
        [0.31 * len(names)], [AXIS + (NOTE if note else 0)], top=0.22 if several else 0.05, left=left
    )
    sheet.footnote(note)
    if several:
        sheet.legend(_pair_handles(), 2)
    box = sheet.axes[0].get_position()
    sheet.axes[0].remove()
    width = (box.width - 2 * 0.03) / 3
    quantities = (
        ("traffic [MB]", lambda c: c.bytes / 1e6),
        ("rounds", lambda c: c.rounds),
        ("time [ms]", lambda c: c.seconds * 1e3),
    )
    for i, (label, value) in enumerate(quantities):
        axes = sheet.figure.add_axes((box.x0 + i * (width + 0.03), box.y0, width, box.height))
        values = [(value(kept), value(replaced)) for kept, replaced in pairs.values()]
        _pairs_of_bars(axes, values, names if i == 0 else [""] * len(names))
        axes.set_xlabel(label, labelpad=1)
        axes.locator_params(axis="x", nbins=3)
    return sheet.figure


def _pair_names(protocols: list[str], dagger: str) -> list[str]:
    """Of the bars, from the top down: of protocols, where there are several, once a pair."""
    names = [word for name in protocols for word in (name, "")] if len(protocols) > 1 else PAIR
    return [name and f"{name}{dagger}" for name in names]


def _pair_handles() -> list:
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0.4, label=name)
        for name, (colour, hatch) in PAIR.items()
    ]


def _pairs_of_bars(axes: Axes, pairs: list[tuple[float, float]], names: list[str]) -> None:
    values = [value for pair in pairs for value in pair]
    colours, hatches = zip(*PAIR.values(), strict=True)
    axes.barh(
        range(len(values)), values, BAR, color=colours * len(pairs), hatch=hatches * len(pairs),
        edgecolor="white", linewidth=0.4,
    )  # fmt: skip
    rows_axis(axes, names)
    words = []
    for kept, replaced in pairs:
        less = f" ({kept / replaced:.1f}×)" if replaced else ""
        words += [f"{kept:.3g}", f"{replaced:.3g}{less}"]
    totals(axes, values, words)


def one_layer(records: Sequence[Record]) -> dict[str, tuple[Cost, Cost]]:
    """Protocol by protocol, of those with both: the mean over its records of the mean activation cost of one
    original and one polynomial layer."""
    found = {}
    for protocol in dict.fromkeys(record.protocol.name for record in records):
        pairs = [Summary(r).activation_layer for r in records if r.protocol.name == protocol]
        kept, replaced = mean_cost([k for k, _ in pairs if k]), mean_cost([r for _, r in pairs if r])
        if kept and replaced:
            found[protocol] = (kept, replaced)
    return found


def _two_panels(records, stacks, extra_handles=(), names=None) -> Sheet:
    note = short_footnote(records)
    handles = [*group_handles(stacks, names or stack_names()), *extra_handles]
    columns = legend_columns(handles)
    legend = 0.04 + 0.14 * -(-len(handles) // columns)
    height = ROW * len(records) + 0.05
    gaps = [AXIS + TITLE, AXIS + (NOTE if note else 0)]
    left = 0.38 + 0.06 * max(map(len, marked_labels(records)))
    sheet = Sheet([height, height], gaps, top=legend + TITLE, left=left)
    sheet.legend(handles, columns)
    sheet.footnote(note)
    for axes in sheet.axes:
        axes.set_ylabel(LAYERS if len(records) > 3 else "polynomial\nlayers", labelpad=2)
    return sheet


def _stacked_panel(axes: Axes, records, stacks, number, less, stated=None) -> None:
    stacked_bars(axes, stacks)
    rows_axis(axes, marked_labels(records))
    ends = [sum(stack.values()) for stack in stacks]
    words = [number(value) + extra for value, extra in zip(stated or ends, less, strict=True)]
    totals(axes, ends, words)
    numbers_inside(axes, stacks, number)


def _single_panel(axes: Axes, records, values, numbers, less) -> None:
    axes.barh(
        range(len(values)), values, BAR, color=COLOURS["activation"], hatch=HATCHES["activation"],
        edgecolor="white", linewidth=0.4,
    )  # fmt: skip
    rows_axis(axes, marked_labels(records))
    totals(axes, values, [n + extra for n, extra in zip(numbers, less, strict=True)])


def _less(summaries: Sequence[Summary], value) -> list[str]:
    base = baseline(summaries)
    if base is None:
        return [""] * len(summaries)
    return ["" if s is base or not value(s) else f" ({value(base) / value(s):.2f}×)" for s in summaries]


def _megabytes(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _seconds_by_group(summary: Summary) -> dict[str, float]:
    stack = stack_values(summary, lambda cost: cost.seconds)
    # What the run spent between operators (the interpreter, reshapes of shares) belongs to no entry.
    stack["rest"] += max(0.0, summary.mean_online_seconds - summary.operator_seconds)
    return {group: _of_median(seconds, summary) for group, seconds in stack.items()}


def _of_median(seconds: float, summary: Summary) -> float:
    """A part of the mean of all repetitions as the same part of their median, which the figure states."""
    mean = summary.mean_online_seconds
    return seconds * summary.latency.median_seconds / mean if mean else 0.0


STRIP = 0.15  # height of the strip beneath a bar that shows waiting
STRIP_BELOW = BAR / 2 + STRIP / 2 + 0.02


def _waiting_strip(axes: Axes, row: int, summary: Summary) -> None:
    waiting = summary.latency.waiting_seconds
    waited = _of_median(sum(waiting) / len(waiting), summary) if waiting else 0.0
    computed = max(0.0, summary.latency.median_seconds - waited)
    y = row + STRIP_BELOW
    line = {"edgecolor": "black", "linewidth": 0.4}
    axes.barh(y, waited, STRIP, color="black", **line)
    axes.barh(y, computed, STRIP, left=waited, color="white", **line)


def _waiting_handles() -> list:
    from matplotlib.patches import Patch

    return [
        Patch(facecolor="black", edgecolor="black", linewidth=0.4, label="waiting for peer"),
        Patch(facecolor="white", edgecolor="black", linewidth=0.4, label="computing"),
    ]


def _quartiles(axes: Axes, row: int, summary: Summary) -> None:
    low, high = latency_quartiles(summary.record)
    if low == high:
        return
    y = row + STRIP_BELOW
    axes.plot([low, high], [y, y], color="black", linewidth=0.8, solid_capstyle="butt")
    for end in (low, high):
        axes.plot([end, end], [y - STRIP, y + STRIP], color="black", linewidth=0.8)


def latency_quartiles(record: Record) -> tuple[float, float]:
    """First and third quartile of the online latency; twice its median where there are too few times."""
    seconds, median = record.latency.online_seconds, record.latency.median_seconds
    if len(seconds) < 3:
        return median, median
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return low, high

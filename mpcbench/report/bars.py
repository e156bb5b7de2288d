"""Stacked horizontal bars by operator group: the building block of the cost figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mpcbench.report.groups import GROUPS, Cost
from mpcbench.report.style import COLOURS, HATCHES, ink
from mpcbench.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

BAR = 0.62  # height of a bar, as a part of its row
ROW = 0.27  # inches a row
STACK = ("linear", "lm_head", "embedding", "attention", "rms_norm", "rest", "activation")
"""Order in a stack; the activation comes last, so that what it saves shows at the bar's end."""

Value = Callable[[Cost], float]


def stack_values(summary: Summary, value: Value) -> dict[str, float]:
    """``value`` of every group in :data:`STACK`; input, output and unknown operators are the rest."""
    values = dict.fromkeys(STACK, 0.0)
    for group, cost in summary.groups.items():
        values[group if group in values else "rest"] += value(cost)
    return values


def stack_names(with_rest: str = "other") -> dict[str, str]:
    """Legend names of :data:`STACK`."""
    return {group: GROUPS.get(group, with_rest) for group in STACK}


def stacked_bars(axes: Axes, stacks: Sequence[dict[str, float]]) -> None:
    """Draw one bar a stack, from the top down."""
    for row, stack in enumerate(stacks):
        start = 0.0
        for group in STACK:
            axes.barh(
                row, stack[group], BAR, left=start, color=COLOURS[group], hatch=HATCHES.get(group),
                edgecolor="white", linewidth=0.4,
            )  # fmt: skip
            start += stack[group]


def numbers_inside(axes: Axes, stacks: Sequence[dict[str, float]], number: Callable[[float], str]) -> None:
    """Write into every segment its number, where it fits; the limits of the axes must be set."""
    renderer = axes.figure.canvas.get_renderer()
    scale = axes.transData.transform([(0, 0), (1, 0)])[:, 0]
    for row, stack in enumerate(stacks):
        start = 0.0
        for group in STACK:
            width, colour = stack[group], COLOURS[group]
            text = axes.text(
                start + width / 2, row, number(width), ha="center", va="center", fontsize=7, color=ink(colour)
            )
            if group in HATCHES:  # the hatch would run through the digits
                text.set_bbox({"facecolor": colour, "edgecolor": "none", "pad": 0.8})
            if text.get_window_extent(renderer).width * 1.2 > width * (scale[1] - scale[0]):
                text.remove()
            start += width


def rows_axis(axes: Axes, labels: Sequence[str]) -> None:
    """Records down the left side, first on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_linewidth(0.6)


def totals(axes: Axes, ends: Sequence[float], words: Sequence[str]) -> None:
    """Words beyond the end of every bar, on an axis that starts at zero and leaves them room."""
    renderer = axes.figure.canvas.get_renderer()
    whole = axes.get_window_extent(renderer).width
    limit = max([*ends, 0.0]) or 1.0
    gap = 3 * axes.figure.dpi / 72
    for row, (end, text) in enumerate(zip(ends, words, strict=True)):
        written = axes.annotate(text, (end, row), (3, 0), textcoords="offset points", va="center", fontsize=7)
        room = 1 - (written.get_window_extent(renderer).width + 2 * gap) / whole
        limit = max(limit, end / max(room, 0.2))
    axes.set_xlim(0, limit)


def group_handles(stacks: Sequence[dict[str, float]], names: dict[str, str]) -> list[Patch]:
    """Legend handles of the groups that occur."""
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=COLOURS[g], hatch=HATCHES.get(g), edgecolor="white", linewidth=0.4, label=names[g])
        for g in STACK
        if any(stack[g] for stack in stacks)
    ]

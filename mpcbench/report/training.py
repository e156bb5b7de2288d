"""Figures of training runs, drawn from their logs (:mod:`mpcbench.distill.log`) alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpcbench.report.style import (
    BLUE,
    GREEN,
    LEGEND_ROW,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Sheet,
    legend_columns,
    panel_letter,
    paper,
    write_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Lines = Sequence[Mapping[str, Any]]

PARTS = {
    "loss": ("loss", "black", "-"),
    "kl": ("KL", BLUE, "-"),
    "layer_mse": ("layer MSE", VERMILLION, "--"),
    "cross_entropy": ("cross-entropy", GREEN, "-."),
    "likelihood": ("likelihood", ORANGE, (0, (4, 1, 1, 1))),
    "gate_range": ("gate range", PURPLE, ":"),
}


def write_training_figure(lines: Lines, folder: Path) -> list[Path]:
    """training.pdf and .png of one run: loss and its parts, gradient norm, largest |gate|, held-out KL."""
    with paper():
        return write_figure(training_figure(lines), folder, "training")


def training_figure(lines: Lines) -> Figure:
    """Four panels over the steps of all stages; a grey line marks where a stage begins."""
    steps, starts = _steps(lines)
    curves = {
        part: [(step["at"], step[part]) for step in steps if step.get(part) is not None] for part in PARTS
    }
    if steps and len(steps[0].keys() & PARTS) == 2:  # one part, which is the loss
        del curves["loss"]
    shown = [part for part, points in curves.items() if points]
    top = _legend_height(len(shown), 3)
    sheet = Sheet([0.95, 0.7, 0.7, 0.7], [0.24, 0.24, 0.24, 0.36], top=top, left=0.6, right=0.14)
    handles = []
    for part in shown:
        label, colour, style = PARTS[part]
        handles += _curve(sheet.axes[0], curves[part], colour, style, label)
    sheet.legend(handles, 3)
    _curve(sheet.axes[1], [(s["at"], s["grad_norm"]) for s in steps if s["grad_norm"] is not None], BLUE, "-")
    gates = [(s["at"], max(s["largest_gate"].values())) for s in steps if s.get("largest_gate")]
    _curve(sheet.axes[2], gates, VERMILLION, "-")
    held_out = [
        (starts[line["stage"]] + line["step"], line["kl"]) for line in lines if line["event"] == "held_out"
    ]
    sheet.axes[3].plot(
        *_columns([p for p in held_out if p[1] is not None]), "o-", color=BLUE, markersize=2, lw=0.8
    )
    words = ("loss and its parts", "gradient norm before clipping", "largest |g| over polynomial layers",
             "KL to the teacher, held-out text [nats/token]")  # fmt: skip
    _finish(sheet, starts, words)
    return sheet.figure


def comparison_figure(runs: Mapping[str, Lines]) -> Figure:
    """Loss and gradient norm of runs, at most four, on shared logarithmic axes; runs: label -> log lines."""
    from matplotlib.lines import Line2D

    colours = ((VERMILLION, "-"), (BLUE, "-"), (ORANGE, "--"), (SKY, "-."))
    styles = dict(zip(runs, colours, strict=False))
    handles = [
        Line2D([], [], color=colour, linestyle=style, lw=0.8, label=label)
        for label, (colour, style) in styles.items()
    ]
    columns = legend_columns(handles)
    sheet = Sheet([1.0, 0.8], [0.24, 0.36], top=_legend_height(len(handles), columns), left=0.6, right=0.14)
    sheet.legend(handles, columns)
    for label, (colour, style) in styles.items():
        steps, _ = _steps(runs[label])
        for axes, key in zip(sheet.axes, ("loss", "grad_norm"), strict=True):
            _curve(axes, [(s["at"], s[key]) for s in steps if s[key] is not None], colour, style, label)
    _finish(sheet, [], ("loss", "gradient norm before clipping"))
    return sheet.figure


def _legend_height(entries: int, columns: int) -> float:
    """Inches above the first panel for a legend and the panel's title."""
    return 0.34 + LEGEND_ROW * (math.ceil(entries / columns) - 1)


def _steps(lines: Lines) -> tuple[list[dict[str, Any]], list[int]]:
    """Step lines with ``at``, their number over all stages; and where each stage starts."""
    steps = [dict(line) for line in lines if line["event"] == "step"]
    stages = 1 + max((line["stage"] for line in lines), default=0)
    lengths = [max((s["step"] for s in steps if s["stage"] == stage), default=0) for stage in range(stages)]
    starts = [sum(lengths[:stage]) for stage in range(stages)]
    for step in steps:
        step["at"] = starts[step["stage"]] + step["step"]
    return steps, starts


def _curve(axes: Axes, points: list[tuple[float, float]], colour: str, style: Any, label: str = "") -> list:
    return axes.plot(*_columns(points), linestyle=style, color=colour, lw=0.8, label=label)


def _columns(points: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _finish(sheet: Sheet, starts: Sequence[int], words: Sequence[str]) -> None:
    """One axis of steps for all panels; values that range far are logarithmic, with plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    last = max(axes.get_xlim()[1] for axes in sheet.axes)
    for axes, letter, text in zip(sheet.axes, "abcd", words, strict=False):
        low, high = axes.dataLim.intervaly
        if high > 4 * low > 0:
            axes.set_yscale("log")
            subs = (1, 2, 5) if high < 100 * low else (1,)
            axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=6))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.locator_params(axis="y", nbins=4)
        axes.set_xlim(0, last)
        axes.tick_params(labelbottom=axes is sheet.axes[-1])
        for start in starts[1:]:
            axes.axvline(start, color="0.8", lw=0.6, zorder=0)
        panel_letter(axes, letter, text)
    sheet.axes[-1].set_xlabel("step", labelpad=1)

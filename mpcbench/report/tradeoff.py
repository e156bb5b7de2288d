"""Figures of accuracy against communication and latency, whose labels keep out of each other's way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mpcbench.records.schema import Accuracy, Record
from mpcbench.report.costs import latency_quartiles
from mpcbench.report.sections import accuracy_key, accuracy_keys
from mpcbench.report.style import (
    BLUE,
    GREEN,
    LEGEND_ROW,
    VERMILLION,
    Sheet,
    legend_columns,
    panel_letter,
    protocol_handles,
    protocol_look,
)
from mpcbench.report.words import mark, names_within, protocols, short_footnote

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.transforms import Bbox

SETTINGS = {  # marker, colour, shift in points so that settings at the same traffic stand side by side
    "plaintext": ("o", BLUE, 0.0),
    "fixed-point": ("s", GREEN, 4.0),
    "secret-shared": ("^", VERMILLION, 8.0),
}


FRONT = "front"
Spread = tuple[float, float]


def tradeoff_figure(records: Sequence[Record]) -> Figure | None:
    """Score with its standard error, and KL to the original, against online bytes of both parties.

    One panel for the task with most questions, one for the KL; None when the records hold neither. The
    points carry their number of polynomial layers, in the lower panel, which has no bars in their way.
    """
    traffic = [record.ledger.online.bytes / 1e6 for record in records]
    return _figure(records, traffic, "online traffic, both parties [MB]")


def latency_tradeoff_figure(records: Sequence[Record]) -> Figure | None:
    """As :func:`tradeoff_figure`, against the median of the online latency, with the quartiles as bars."""
    medians = [record.latency.median_seconds for record in records]
    spreads = [_quartiles(record) for record in records]
    return _figure(records, medians, "online latency [s]", spreads)


def _quartiles(record: Record) -> Spread:
    """How far both quartiles of the latency lie from its median."""
    (low, high), median = latency_quartiles(record), record.latency.median_seconds
    return max(0.0, median - low), max(0.0, high - median)


def _figure(
    records: Sequence[Record], costs: Sequence[float], label: str, spreads: Sequence[Spread] | None = None
) -> Figure | None:
    task = main_task(records)
    kl = [record.fidelity.kl if record.fidelity else None for record in records]
    panels = [task is not None, any(value is not None for value in kl)]
    if not any(panels):
        return None
    note = short_footnote(records)
    both = all(panels)
    names = _named(records)
    settings = {key[1] for key in accuracy_keys(records) if task and key[::2] == task}
    rows = [-(-len(settings) // 2)] if len(settings) > 1 else []
    columns = legend_columns(names) if names else 0
    rows += [-(-len(names) // columns)] if names else []
    top = 0.2 + LEGEND_ROW * sum(rows)
    gaps = [0.3, 0.36] if both else [0.36]
    gaps[-1] += 0.13 if note else 0
    sheet = Sheet([1.15, 0.85] if both else [1.3], gaps, top=top, left=0.68, right=0.12)
    sheet.footnote(note)
    if task is not None:
        handles = _scores(sheet.axes[0], records, costs, task, not panels[1], spreads)
        if len(handles) > 1:
            sheet.legend(handles, 2)
    if names:
        sheet.legend(names, columns, below=sum(rows[:-1]))
    if panels[1]:
        _divergence(sheet.axes[-1], records, costs, kl, "b" if both else "a", spreads)
    ends = [
        cost + end for cost, (low, high) in zip(costs, spreads or [], strict=False) for end in (-low, high)
    ]
    for axes in sheet.axes:
        _limits(axes, ends or costs)
    if both:
        sheet.axes[0].tick_params(labelbottom=False)
    sheet.axes[-1].set_xlabel(label, labelpad=1)
    for axes in sheet.axes:
        place_labels(axes)
    return sheet.figure


def _named(records: Sequence[Record]) -> list[Line2D]:
    """A legend of the protocols, where there are several."""
    names = protocols(records)
    return protocol_handles({name: name for name in names}) if len(names) > 1 else []


def _alike(records: Sequence[Record], places: Sequence[int]) -> Iterator[tuple[list[int], dict[str, str]]]:
    """Places of records that are drawn alike, and how: by protocol, where there are several."""
    names = protocols(records)
    for name in names:
        found = [place for place in places if records[place].protocol.name == name]
        colour, marker = protocol_look(name)
        if found:
            yield found, {"color": colour, "fmt": marker} if len(names) > 1 else {}


def main_task(records: Sequence[Record]) -> tuple[str, str] | None:
    """(task, metric) with the most plaintext questions over all records; ties go to the first named."""
    sizes: Counter[tuple[str, str]] = Counter()
    for record in records:
        for score in record.accuracy:
            sizes[(score.task, score.metric)] += score.n if score.setting == "plaintext" else 0
    return sizes.most_common(1)[0][0] if sizes else None


def _scores(
    axes: Axes, records: Sequence[Record], traffic: Sequence[float], task: tuple[str, str], named: bool,
    spreads: Sequence[Spread] | None,
) -> list:  # fmt: skip
    from matplotlib.transforms import ScaledTranslation

    found = {setting: _scored(records, task, setting) for setting in SETTINGS}
    found = {setting: scores for setting, scores in found.items() if scores}
    handles = []
    for setting, scores in found.items():
        marker, colour, shift = SETTINGS[setting]
        name = f"{setting} (n={'/'.join(dict.fromkeys(str(score.n) for score in scores.values()))})"
        move = ScaledTranslation(shift / 72, 0, axes.figure.dpi_scale_trans)
        alike = _alike(records, list(scores)) if len(found) == 1 else [(list(scores), {})]
        for places, look in alike:
            handle = axes.errorbar(
                [traffic[i] for i in places],
                [100 * scores[i].score for i in places],
                [100 * scores[i].stderr for i in places],
                _bars(spreads, places),
                **{"fmt": marker, "color": colour} | look,
                markersize=4, elinewidth=0.8, capsize=2, capthick=0.8, label=name,
                transform=axes.transData + move,
            )  # fmt: skip
        if not handles:
            _front(axes, [(traffic[i], 100 * score.score) for i, score in scores.items()], most=True)
            if named:
                _label(axes, records, [(traffic[i], 100 * score.score, i) for i, score in scores.items()])
        handles.append(handle)
    drawn = [score for scores in found.values() for score in scores.values()]
    axes.set_ylabel(f"{task[1]} [%]", labelpad=2)
    panel_letter(axes, "a", task[0] + (f", {handles[0].get_label()}" if len(handles) == 1 else ""))
    ends = [100 * (score.score + sign * score.stderr) for score in drawn for sign in (-1, 1)]
    room = 0.08 * (max(ends) - min(ends)) or 1.0
    axes.set_ylim(min(ends) - room, max(ends) + room)  # shifted points do not count in autoscaling
    return handles


def _scored(records: Sequence[Record], task: tuple[str, str], setting: str) -> dict[int, Accuracy]:
    """The score of each record that has one, by its place."""
    key = (task[0], setting, task[1])
    found = {
        i: next((score for score in record.accuracy if accuracy_key(score) == key), None)
        for i, record in enumerate(records)
    }
    return {i: score for i, score in found.items() if score is not None}


def _bars(spreads: Sequence[Spread] | None, places: Sequence[int]) -> list[tuple[float, ...]] | None:
    """What Matplotlib takes for horizontal bars: all lengths to the left, and all to the right."""
    return None if spreads is None else list(zip(*(spreads[i] for i in places), strict=True))


def _divergence(
    axes: Axes, records: Sequence[Record], traffic: Sequence[float], kl, letter: str,
    spreads: Sequence[Spread] | None,
) -> None:  # fmt: skip
    points = [(x, y, i) for i, (x, y) in enumerate(zip(traffic, kl, strict=True)) if y is not None]
    for places, look in _alike(records, [i for *_, i in points]):
        axes.errorbar(
            [traffic[i] for i in places], [kl[i] for i in places], xerr=_bars(spreads, places),
            **{"fmt": "D", "color": "black"} | look,
            markersize=3.5, elinewidth=0.8, capsize=2, capthick=0.8,
        )  # fmt: skip
    _front(axes, [(x, y) for x, y, _ in points], most=False)
    _label(axes, records, points)
    axes.set_ylabel("KL [nats/token]", labelpad=2)
    panel_letter(axes, letter, "divergence from the original model")
    highest = max(p[1] for p in points) or 1.0
    axes.set_ylim(-0.08 * highest, 1.25 * highest)


def pareto(points: Sequence[tuple[float, float]], most: bool) -> list[tuple[float, float]]:
    """The points than which none is as cheap and better, by cost; better is more if ``most``, else less."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda p: (p[0], -p[1] if most else p[1])):
        if not front or (value > front[-1][1] if most else value < front[-1][1]):
            front.append((cost, value))
    return front


def _front(axes: Axes, points: Sequence[tuple[float, float]], most: bool) -> None:
    """A grey line through the points on the front, where there are several."""
    front = pareto(points, most)
    if len(front) > 1:
        axes.plot(*zip(*front, strict=True), color="0.6", linewidth=0.8, zorder=1, gid=FRONT)


def _limits(axes: Axes, traffic: Sequence[float]) -> None:
    low, high = min(traffic), max(traffic)
    room = 0.28 * (high - low) or 0.05 * high or 1.0
    axes.set_xlim(low - room, high + room)
    axes.locator_params(axis="x", nbins=5)
    axes.locator_params(axis="y", nbins=5)


def _label(axes: Axes, records: Sequence[Record], points: Sequence[tuple[float, float, int]]) -> None:
    alone = names_within(records)  # the legend names protocols
    for x, y, i in points:
        axes.annotate(
            f"{alone[i]}{' layers' if i == points[0][2] else ''}{mark(records[i])}",
            (x, y), (0, 0), textcoords="offset points",
            fontsize=7, ha="center", va="center", gid="label",
        )  # fmt: skip


DISTANCES = (1, 6, 14, 24, 36)  # points between a point's marker and its label
DIRECTIONS = ((1, 0), (-1, 0), (0.8, 0.8), (-0.8, 0.8), (0.8, -0.8), (-0.8, -0.8), (0, 1), (0, -1))


def place_labels(axes: Axes) -> None:
    """Move every label beside its point, to the nearest place that is free of points, bars and labels.

    Labels are placed one after the other; each tries eight directions at growing distances, keeps clear
    of what belongs to other points, and gets a thin line to its own point if it had to move far. The
    limits of the axes must be set.
    """
    renderer = axes.figure.canvas.get_renderer()
    points = axes.figure.dpi / 72
    taken = _obstacles(axes, renderer)
    frame = axes.get_window_extent(renderer)
    for label in [text for text in axes.texts if text.get_gid() == "label"]:
        box = label.get_window_extent(renderer)
        offset, distance = _free_place(box, axes.transData.transform(label.xy), taken, frame, points)
        label.xyann = offset
        if distance > DISTANCES[1]:
            _leader(axes, label.xy, offset, box, points)
        taken.append(label.get_window_extent(renderer))


def _free_place(box: Bbox, own, taken: Sequence[Bbox], frame: Bbox, points: float):
    """The first (offset, distance) in points at which ``box`` overlaps nothing, else the least bad."""
    mine = [other for other in taken if other.contains(*own)]
    others = [other.padded(4 * points) for other in taken if not other.contains(*own)]
    best, chosen, least = (0.0, 0.0), 0, float("inf")
    for distance in DISTANCES:
        for across, up in DIRECTIONS:
            offset = (
                across * (box.width / 2 / points + 3 + distance),
                up * (box.height / 2 / points + 2 + distance),
            )
            moved = box.translated(offset[0] * points, offset[1] * points)
            badness = _overlap(moved, [*mine, *others]) + _outside(moved, frame)
            badness += _crossed(own, moved, others)
            if badness < least:
                best, chosen, least = offset, distance, badness
        if least == 0:
            break
    return best, chosen


def _leader(axes: Axes, xy, offset, box: Bbox, points: float) -> None:
    """A thin line from the point to the label's edge."""
    half = (box.width / 2 / points + 1, box.height / 2 / points + 1)
    across = abs(offset[0]) / half[0]
    up = abs(offset[1]) / half[1]
    share = 1 - 1 / max(across, up, 1.0)  # where the line from the label's middle leaves its box
    end = (offset[0] * share, offset[1] * share)
    axes.annotate(
        "", xy, end, textcoords="offset points", gid="leader",
        arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "0.4", "shrinkA": 0, "shrinkB": 2},
    )  # fmt: skip


def _obstacles(axes: Axes, renderer) -> list[Bbox]:
    """Boxes of markers and error bars, in display coordinates."""
    from matplotlib.transforms import Bbox

    boxes = []
    size = 2.6 * axes.figure.dpi / 72
    for line in (line for line in axes.lines if line.get_gid() != FRONT):
        for x, y in line.get_transform().transform(line.get_xydata()):
            boxes.append(Bbox([[x - size, y - size], [x + size, y + size]]))
    for bars in axes.collections:
        for (x0, y0), (x1, y1) in (bars.get_transform().transform(s) for s in bars.get_segments()):
            half = size / 2
            boxes.append(Bbox([[x0 - half, min(y0, y1 - half)], [x1 + half, max(y1, y0 + half)]]))
    return boxes


def _overlap(box: Bbox, taken: Sequence[Bbox]) -> float:
    from matplotlib.transforms import Bbox

    shared = (Bbox.intersection(box, other) for other in taken)
    return sum(part.width * part.height for part in shared if part is not None)


def _crossed(own, box: Bbox, others: Sequence[Bbox]) -> float:
    """How much of the straight way from a point to its label lies on what belongs to others."""
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    steps = [(own[0] + (x - own[0]) * t / 10, own[1] + (y - own[1]) * t / 10) for t in range(1, 10)]
    return sum(other.contains(*step) for step in steps for other in others) * box.height


def _outside(box: Bbox, frame: Bbox) -> float:
    inside = _overlap(box, [frame])
    return box.width * box.height - inside if inside < 0.999 * box.width * box.height else 0.0

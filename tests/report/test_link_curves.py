"""Latency by link as a figure: lines by the formula, marks where it was measured, one column wide."""

from __future__ import annotations

from itertools import pairwise

import pytest

from mpcbench.parties.network import LinkProfile
from mpcbench.report.link_curves import link_latency_figure
from mpcbench.report.links import projected
from mpcbench.report.style import COLUMN, paper
from tests.records.factory import make_comparison, make_record
from tests.report.test_links import _on


def _drawn(*arguments: object):
    with paper():
        figure = link_latency_figure(*arguments)
        figure.canvas.draw()
    return figure


def test_lines_are_projections_at_the_panels_bandwidth() -> None:
    records = make_comparison()
    trips, rates = _drawn(records).axes
    assert [axes.get_title(loc="left") for axes in (trips, rates)] == ["(a) at 100 Mbit/s", "(b) at 40 ms"]
    assert len(trips.lines) == len(rates.lines) == 2  # of 0, 8 and 16 polynomial layers the ends
    for line, record in zip(trips.lines, (records[0], records[-1]), strict=True):
        at = LinkProfile("", 100e6, line.get_xdata()[20] / 1e3)
        assert line.get_ydata()[20] == pytest.approx(projected(record, at))
    at = LinkProfile("", rates.lines[0].get_xdata()[3] * 1e6, 0.04)
    assert rates.lines[0].get_ydata()[3] == pytest.approx(projected(records[0], at))


def test_measurements_stand_in_the_panel_of_their_bandwidth() -> None:
    records = make_comparison()
    elsewhere = [
        _on(records[0], "lan", seconds=11.0), _on(records[0], "wan", seconds=22.0),
        _on(records[-1], "wan", "namespaces", 33.0), _on(make_record(4), "wan", seconds=44.0),
    ]  # fmt: skip
    lan, wan, rates = _drawn(records, elsewhere).axes
    assert [axes.get_title(loc="left")[4:] for axes in (lan, wan)] == ["at 1000 Mbit/s", "at 100 Mbit/s"]
    assert _marks(lan) == [(0.5, 11.0)]
    assert _marks(wan) == [(40.0, 22.0), (40.0, 33.0)]
    assert _marks(rates) == [(100.0, 22.0), (100.0, 33.0)]


def _marks(axes) -> list[tuple[float, float]]:
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]


def test_legend_names_who_made_the_link_and_the_figure_fits_a_column() -> None:
    records = make_comparison()
    figure = _drawn(records, [_on(records[0], "wan"), _on(records[-1], "wan", "namespaces")])
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words[-2:] == ["measured (transport)", "measured (namespaces)"]
    assert figure.get_size_inches()[0] == COLUMN
    boxes = [axes.get_tightbbox(figure.canvas.get_renderer()) for axes in figure.axes]
    assert all(box.x0 >= -1 and box.x1 <= figure.bbox.width + 1 for box in boxes)
    assert all(lower.y1 <= upper.y0 for upper, lower in pairwise(boxes))


def test_nothing_is_projected_from_a_link() -> None:
    assert link_latency_figure([_on(record, "wan") for record in make_comparison()]) is None

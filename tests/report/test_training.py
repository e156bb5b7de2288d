from __future__ import annotations

import pytest

from mpcbench.distill.recipe import Objective
from mpcbench.report.style import COLUMN, paper
from mpcbench.report.training import PARTS, comparison_figure, training_figure, write_training_figure
from tests.report.studies import log_lines


@pytest.fixture(autouse=True)
def style():
    with paper():
        yield


def test_stages_follow_one_another_on_the_axis():
    figure = training_figure(log_lines(stages=2, steps=10))
    loss = figure.axes[0].lines[0]
    assert list(loss.get_xdata()) == list(range(1, 21))
    assert loss.get_ydata()[0] == pytest.approx(4.5)
    held_out = figure.axes[3].lines[0]
    assert list(held_out.get_xdata()) == [0, 5, 10, 10, 15, 20]


def test_steps_that_were_not_finite_are_left_out_of_the_gradient_norm():
    norms = training_figure(log_lines(stages=1, steps=10)).axes[1].lines[0]
    assert list(norms.get_xdata()) == [1, 2, 4, 5, 6, 7, 8, 9, 10]


def test_the_largest_gate_is_that_of_the_worst_layer():
    gates = training_figure(log_lines(stages=1, steps=3)).axes[2].lines[0]
    assert list(gates.get_ydata()) == [5, 6, 7]


def test_a_loss_of_one_part_is_drawn_once():
    lines = log_lines(stages=1)
    for line in lines:
        line.pop("layer_mse") if line["event"] == "step" else None
    (curve,) = training_figure(lines).axes[0].lines
    assert curve.get_label() == "KL"


def test_every_part_that_an_objective_can_have_is_drawn_in_a_look_of_its_own():
    weighted = [name for name in Objective.model_fields if name in PARTS]
    assert {"kl", "layer_mse", "cross_entropy", "likelihood", "gate_range"} == set(weighted)
    lines = log_lines(stages=1)
    for line in lines:
        line |= dict.fromkeys(weighted, 0.5) if line["event"] == "step" else {}
    curves = training_figure(lines).axes[0].lines
    assert len({(curve.get_color(), str(curve._dash_pattern)) for curve in curves}) == len(weighted) + 1


@pytest.mark.parametrize("draw", [training_figure, lambda lines: comparison_figure({"one": lines})])
def test_the_last_number_of_the_axis_of_steps_is_not_cut_off(draw):
    figure = draw(log_lines(stages=1, steps=572, grows=1.0))
    renderer, axes = figure.canvas.get_renderer(), figure.axes[-1]
    shown = [label for label in axes.get_xticklabels() if label.get_position()[0] <= axes.get_xlim()[1]]
    assert shown[-1].get_text() == "600"
    assert shown[-1].get_window_extent(renderer).x1 <= figure.bbox.x1


def test_two_runs_are_told_apart(tmp_path):
    figure = comparison_figure({"without": log_lines(1, grows=1.2), "with": log_lines(1)})
    first, second = figure.axes[0].lines
    assert first.get_color() != second.get_color()
    assert first.get_ydata()[-1] > second.get_ydata()[-1]
    assert figure.get_size_inches()[0] == pytest.approx(COLUMN)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["without", "with"]


@pytest.mark.parametrize(
    "labels", [("one", "two", "three"), ("clipped", "a label of two dozen letters", "x")]
)
def test_a_legend_of_two_rows_leaves_room_for_the_title(labels):
    figure = comparison_figure({label: log_lines(1) for label in labels})
    renderer = figure.canvas.get_renderer()
    legend = figure.legends[0].get_window_extent(renderer)
    assert legend.y0 >= figure.axes[0].get_tightbbox(renderer).y1 - 1
    assert legend.width <= figure.bbox.width


def test_the_figure_of_a_run_is_written_as_pdf_and_png(tmp_path):
    assert {path.name for path in write_training_figure(log_lines(), tmp_path)} == {
        "training.pdf",
        "training.png",
    }

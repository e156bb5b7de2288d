from __future__ import annotations

import json
import math

from mpcbench.distill.log import GIVE_UP, Log, Watchdog, read_log


def test_lines_hold_what_was_written(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log.write("step", 0, 1, loss=0.5, grad_norm=math.inf, largest_gate={3: math.nan, 4: 1.0})
    (line,) = read_log(log.path)
    assert line == {
        "event": "step", "stage": 0, "step": 1, "loss": 0.5, "grad_norm": None,
        "largest_gate": {"3": None, "4": 1.0},
    }  # fmt: skip
    json.loads(log.path.read_text(), parse_constant=lambda name: 1 / 0)


def test_a_line_cut_short_is_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    Log(path).write("step", 0, 1, loss=1.0)
    path.write_text(path.read_text() + '{"event": "st')
    assert [line["step"] for line in read_log(path)] == [1]
    assert read_log(tmp_path / "none.jsonl") == []


def test_opened_again_at_a_step_it_forgets_what_came_after(tmp_path):
    path = tmp_path / "log.jsonl"
    log = Log(path)
    for stage, step in ((0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)):
        log.write("step", stage, step)
    Log(path, 1, 2)
    kept = [(line["stage"], line["step"]) for line in read_log(path)]
    assert kept == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    Log(path)
    assert read_log(path) == []


def test_a_spike_is_told_against_what_was_usual():
    dog = Watchdog(clipped=True)
    assert not any(dog.look(1.0, 1.0) for _ in range(10))
    assert dog.look(2.9, 1.0) is None
    said = dog.look(4.5, 1.0)
    assert said.startswith("loss 4.5 is 4.")
    assert "times what nine steps in ten before stayed under: if that happens again" in said


def test_texts_of_two_kinds_in_turn_are_no_spikes():
    dog = Watchdog(clipped=True)
    assert [dog.look(loss, 1.0) for loss in (0.01, 0.01, 0.01, 0.05) * 20] == [None] * 80
    assert "times what nine steps" in dog.look(0.2, 1.0)


def test_advice_names_a_part_of_the_loss_only_where_there_is_one():
    with_part = Watchdog(clipped=True, losses=[1.0] * 20, layer_mse=True)
    assert "layer_mse" in with_part.look(9.0, 1.0)
    assert "layer_mse" not in Watchdog(clipped=True, losses=[1.0] * 20).look(9.0, 1.0)


def test_the_first_steps_spike_as_they_like():
    dog = Watchdog(clipped=True)
    assert [dog.look(loss, 1.0) for loss in (1.0, 50.0, 2.0)] == [None] * 3


def test_advice_without_clipping_is_to_clip():
    dog = Watchdog(clipped=False, losses=[1.0] * 20)
    assert "optimiser.clip: 1.0" in dog.look(9.0, 1.0)


def test_steps_that_are_not_finite_are_hopeless_in_the_end():
    dog = Watchdog(clipped=True)
    for _ in range(GIVE_UP - 1):
        assert "is not finite: the step is left out" in dog.look(1.0, math.nan)
    dog.look(1.0, 1.0)
    assert not dog.hopeless
    for _ in range(GIVE_UP):
        dog.look(math.inf, 1.0)
    assert dog.hopeless
    assert list(dog.losses) == [1.0]

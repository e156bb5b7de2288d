from __future__ import annotations

import math

import pytest

from mpcbench.distill.distill import distill
from mpcbench.distill.log import GIVE_UP, read_log
from mpcbench.distill.objective import Distillation
from mpcbench.distill.recipe import Optimiser
from mpcbench.distill.start import add_polynomials
from mpcbench.distill.train import rate_factor
from mpcbench.errors import UserError
from tests.distill.runs import plan

pytestmark = pytest.mark.usefixtures("cache")


def lines(folder, event):
    return [line for line in read_log(folder / "log.jsonl") if line["event"] == event]


def spoil(monkeypatch, bad, factor):
    """Multiply the loss of the steps in ``bad``, 1-based, by ``factor``."""
    forward = Distillation.forward
    count = 0

    def spoiled(self, batch, targets=None, answer=None):
        nonlocal count
        parts = forward(self, batch, targets, answer)
        if answer is None:
            count += 1
            if count in bad:
                parts["loss"] = parts["loss"] * factor
        return parts

    monkeypatch.setattr(Distillation, "forward", spoiled)


def test_rates_warm_up_and_end_at_the_final_rate():
    settings = Optimiser(steps=100, warm_up=10, final_rate=0.1)
    factors = [rate_factor(settings, step, 100) for step in range(101)]
    assert factors[0] == pytest.approx(0.1, rel=1e-2)
    assert factors[:10] == sorted(factors[:10]) and factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[50] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert rate_factor(Optimiser(warm_up=0), 0, 100) == 1.0


def test_every_step_is_logged_with_its_parts_and_gates(tmp_path):
    objective = {"kl": 0.5, "layer_mse": 2.0}
    distill(plan(tmp_path / "run", objective=objective))
    steps = lines(tmp_path / "run", "step")
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    for line in steps:
        assert line["loss"] == pytest.approx(0.5 * line["kl"] + 2 * line["layer_mse"], rel=1e-4)
        assert line["grad_norm"] > 0 and 0 < line["tokens"] <= 100
        assert set(line["largest_gate"]) == set(line["largest_gate_first"]) == {"0", "1"}
        assert all(size > 0 for size in line["largest_gate"].values())
    held_out = lines(tmp_path / "run", "held_out")
    assert [line["step"] for line in held_out] == [0, 3, 6]
    assert all(line["kl"] > 0 and line["tokens"] == 60 for line in held_out)


def test_the_gradient_norm_is_logged_before_clipping(tmp_path):
    norms = []
    for name, clip in (("free", None), ("clipped", 1e-6)):
        distill(plan(tmp_path / name, optimiser={"clip": clip}))
        norms.append([line["grad_norm"] for line in lines(tmp_path / name, "step")])
    assert norms[0][0] == norms[1][0] > 1e-3
    assert norms[0] != norms[1]


def test_training_recovers_from_a_bad_start(tmp_path):
    settings = {"polynomials": {"start": "series"}, "optimiser": {"steps": 40, "rate": 5e-3}}
    distill(plan(tmp_path / "run", **settings, evaluate_every=10))
    kls = [line["kl"] for line in lines(tmp_path / "run", "held_out")]
    assert kls[-1] < 0.7 * kls[0]


def test_a_step_that_is_not_finite_is_left_out_and_told(tmp_path, monkeypatch):
    spoil(monkeypatch, {2}, math.nan)
    said = []
    distill(plan(tmp_path / "run"), say=said.append)
    (warning,) = lines(tmp_path / "run", "warning")
    assert warning["step"] == 2 and "not finite: the step is left out" in warning["text"]
    assert any("not finite" in text for text in said)
    steps = lines(tmp_path / "run", "step")
    assert steps[1]["loss"] is None and math.isfinite(steps[5]["loss"])


def test_a_spike_is_told_with_what_to_do(tmp_path, monkeypatch):
    spoil(monkeypatch, {14}, 1e4)
    distill(plan(tmp_path / "run", optimiser={"steps": 15, "clip": None}))
    (warning,) = lines(tmp_path / "run", "warning")
    assert warning["step"] == 14 and "stayed under: clip the gradient" in warning["text"]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_hopeless_steps_end_a_stage_with_the_last_good_state(tmp_path, monkeypatch, keep):
    spoil(monkeypatch, set(range(3, 100)), math.inf)
    distill(plan(tmp_path / "run", optimiser={"steps": 60}, keep=keep))
    run = tmp_path / "run"
    assert [line["step"] for line in lines(run, "step")] == list(range(1, 3 + GIVE_UP))
    assert (run / "adapter-2.safetensors").is_file() and (run / "checkpoint").is_dir()


def test_a_start_that_is_not_finite_is_refused(tmp_path, monkeypatch):
    def overflow(student, layers, *rest):
        add_polynomials(student, layers, *rest)
        student.polynomials[0].start.fill_(math.inf)

    monkeypatch.setattr("mpcbench.distill.distill.add_polynomials", overflow)
    with pytest.raises(UserError, match="not finite before its first step"):
        distill(plan(tmp_path / "run"))

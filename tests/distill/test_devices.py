"""Nothing of a training run mixes tensors of the accelerator's device and of the CPU."""

from __future__ import annotations

import pytest
import torch

from mpcbench.distill import distill as module
from mpcbench.distill.adapter import load_adapter
from mpcbench.distill.distill import distill
from tests.distill.runs import checkpoint, plan
from tests.far import FAR, Far, far_away

RUNS = {
    "plain": {},
    "parts of the objective": {
        "student": {"precision": "nf4", "lora_start": "error"},
        "objective": {"layer_mse": 1.0, "gate_range": 1.0, "cross_entropy": 0.1},
    },
    "own text, stages, quartics": {
        "polynomials": {"layers": [1, 2], "basis": "orthogonal", "degree": 4},
        "own_text": {"passages": 8, "examples": 2, "fit_weight": 0.1},
    },
    "four-bit teacher": {"teacher": {"precision": "nf4"}, "polynomials": {"layers": [2], "shared": True}},
}


@pytest.fixture
def far(monkeypatch, tmp_path):
    """Accelerate says that the device is far."""
    from accelerate.state import AcceleratorState, PartialState

    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path / "cache"))
    usual = module.accelerator

    def accelerator(recipe):
        found = usual(recipe)
        for state in (PartialState(), AcceleratorState()):
            monkeypatch.setattr(state, "device", FAR)
        return found

    monkeypatch.setattr(module, "accelerator", accelerator)
    with far_away(monkeypatch):
        yield


def test_two_devices_in_one_operation_are_found(far):
    there = torch.ones(2, device=FAR)
    assert isinstance(there, Far) and there.device == FAR and (there + there).cpu().tolist() == [2.0, 2.0]
    with pytest.raises(RuntimeError, match="aten::add of tensors on two devices"):
        there + torch.ones(2)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_away_from_the_cpu(far, tmp_path, name):
    paths = distill(plan(tmp_path / "run", checkpoint(hidden=64, intermediate=64), **RUNS[name]))
    for path in paths:
        adapter, info = load_adapter(path)
        assert set(adapter.coefficients) == set(info.polynomial_layers) and info.held_out.tokens > 0

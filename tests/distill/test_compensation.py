from __future__ import annotations

import pytest
import torch

from mpcbench.distill.compensation import compensate
from mpcbench.distill.distill import distill
from mpcbench.distill.precision import dense_weight, is_projection
from mpcbench.distill.recipe import Student as Settings
from mpcbench.distill.student import Student
from tests.distill.runs import plan, tensors
from tests.tiny import tiny_llama

SEQUENCES = [[1, 5, 9, 33, 7, 60, 4], [1, 2, 3, 4], [1, 60, 50, 40, 30, 20, 10, 8]]


def merged_weight(module):
    return dense_weight(module) + module.get_delta_weight("default")


def student_of(model, rank, alpha=None):
    settings = Settings(precision="nf4", lora_rank=rank, lora_alpha=alpha or rank)
    return Student(model, settings, list(range(model.config.num_hidden_layers)))


def updated(student):
    return [(name, module) for name, module in student.model.named_modules() if hasattr(module, "lora_A")]


@pytest.mark.parametrize("alpha", [16.0, 4.0])
def test_a_full_rank_gives_the_weights_back(alpha):
    model = tiny_llama()
    student = student_of(model, 16, alpha)
    compensate(student.model, model, SEQUENCES)
    found = updated(student)
    assert len(found) == sum(is_projection(name) for name, _ in model.named_modules())
    for name, module in found:
        weight = model.get_submodule(name).weight
        if min(weight.shape) <= 16:
            torch.testing.assert_close(merged_weight(module), weight, atol=2e-3, rtol=1e-3)


@torch.no_grad()
def test_a_low_rank_brings_the_outputs_nearer():
    model = tiny_llama(hidden=64, intermediate=96)
    ids = torch.tensor([[token for row in SEQUENCES for token in row]])
    seen = model.model.layers[0].input_layernorm(model.model.embed_tokens(ids))[0, 1:]
    student = student_of(model, 8)
    weights = {name: (model.get_submodule(name).weight, dense_weight(m)) for name, m in updated(student)}
    compensate(student.model, model, ids.tolist())
    for name, module in updated(student):
        if "layers.0.self_attn" in name and "o_proj" not in name:
            weight, rounded = weights[name]
            before = (seen @ (weight - rounded).T).norm()
            after = (seen @ (weight - merged_weight(module)).T).norm()
            assert 0 < after < 0.9 * before


def test_channels_with_large_inputs_come_first():
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[0].input_layernorm.weight[3] = 1e3
    student = student_of(model, 1)
    compensate(student.model, model, SEQUENCES)
    name = "model.layers.0.self_attn.q_proj"
    error = model.get_submodule(name).weight - merged_weight(dict(updated(student))[name])
    untouched = model.get_submodule(name).weight - dense_weight(dict(updated(student))[name])
    assert error[:, 3].norm() < 0.05 * untouched[:, 3].norm()


def test_a_run_starts_from_it_and_resumes(tmp_path):
    changes = {
        "student": {"precision": "nf4", "lora_start": "error"},
        "polynomials": {"layers": [0, 1], "placement": "first"},
        "optimiser": {"steps": 2},
    }
    whole = distill(plan(tmp_path / "whole", **changes))
    (tmp_path / "whole" / "adapter-1.safetensors").rename(tmp_path / "kept.safetensors")
    again = distill(plan(tmp_path / "whole", **changes))
    assert again == whole
    ours, theirs = tensors(again[1]), tensors(tmp_path / "kept.safetensors")
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    plain = distill(plan(tmp_path / "plain", **changes | {"student": {"precision": "nf4"}}))
    assert not torch.equal(
        next(v for k, v in tensors(plain[0]).items() if "q_proj" in k),
        next(v for k, v in tensors(whole[0]).items() if "q_proj" in k),
    )

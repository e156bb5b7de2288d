from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mpcbench.checkpoints.polyllama import MIN_LEADING
from mpcbench.distill.recipe import Optimiser
from mpcbench.distill.recipe import Student as Settings
from mpcbench.distill.student import Start, Student, TrainedGLU, Watch, power_basis
from mpcbench.errors import UserError
from tests.tiny import tiny_llama

IDS = torch.tensor([[1, 5, 9, 33, 7, 60, 4]])


def start(channels=24, degree=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coefficients = torch.randn(degree + 1, channels, generator=generator)
    scale = torch.rand(channels, generator=generator) + 0.5
    return Start(coefficients, power_basis(scale, degree), torch.full((channels,), 9.0))


def student_of(model, layers=(), shared=False, **settings):
    student = Student(model, Settings(**{"lora_rank": 2, **settings}), [0, 1])
    for layer in layers:
        student.replace(layer, start(seed=layer), shared)
    return student


def disturb(student, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("degree", [2, 3, 4])
@pytest.mark.parametrize("shared", [False, True])
def test_the_activation_is_the_polynomial(degree, shared):
    glu = TrainedGLU(0, start(degree=degree), shared, Watch())
    torch.nn.init.normal_(glu.delta)
    gate, up = torch.randn(2, 3, 5, 24)
    value = sum(glu.coefficients[power] * gate**power for power in range(degree + 1)) * up
    torch.testing.assert_close(glu(gate, up), value, atol=1e-4, rtol=1e-4)


def test_a_delta_is_in_units_of_the_channels_gate():
    glu = TrainedGLU(0, start(), False, Watch())
    with torch.no_grad():
        glu.delta.fill_(0.01)
    scale = glu.basis[0, 0]
    moved = (glu.coefficients - glu.start) * scale ** torch.arange(3)[:, None]
    torch.testing.assert_close(moved, 0.01 * scale.expand(3, -1), atol=1e-5, rtol=1e-4)


def test_a_shared_polynomial_stays_shared():
    basis = power_basis(torch.tensor([0.8]), 2)
    one = Start(torch.randn(3, 1).expand(3, 24), basis, torch.ones(24))
    glu = TrainedGLU(0, one, True, Watch())
    torch.nn.init.normal_(glu.delta)
    assert glu.delta.numel() == 3
    torch.testing.assert_close(glu.coefficients, glu.coefficients[:, :1].expand(3, 24))


def test_a_new_student_says_what_its_original_says():
    model = tiny_llama()
    assert torch.equal(student_of(model).model(IDS).logits, model(IDS).logits)


def test_the_seed_decides_the_updates():
    weights = [
        student_of(tiny_llama()).trained_state(),
        student_of(tiny_llama()).trained_state(),
        Student(tiny_llama(), Settings(lora_rank=2), [0, 1], seed=1).trained_state(),
    ]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert any(not torch.equal(value, weights[2][name]) for name, value in weights[0].items())


def test_the_original_shares_its_weights_and_is_never_changed():
    model = tiny_llama()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = [type(module) for module in model.modules()]
    student = student_of(model, [0])
    own = student.model.model.layers[1].self_attn.q_proj.get_base_layer().weight
    assert own.data_ptr() == model.model.layers[1].self_attn.q_proj.weight.data_ptr()
    optimiser = torch.optim.AdamW(student.groups(Optimiser(rate=0.1, norm_rate=0.1, coefficient_rate=0.1)))
    for _ in range(3):
        student.model(IDS).logits.square().mean().backward()
        optimiser.step()
    assert not torch.equal(student.model(IDS).logits, model(IDS).logits)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [type(module) for module in model.modules()] == modules


def test_what_is_trained_is_what_the_settings_say():
    def kinds(**settings):
        student = student_of(tiny_llama(), [0], **settings)
        return [group["name"] for group in student.groups(Optimiser())]

    assert kinds() == ["lora", "delta", "norm"]
    assert kinds(lora_rank=0) == ["delta", "norm"]
    assert kinds(train_norms=False) == ["lora", "delta"]
    assert kinds(train_coefficients=False) == ["lora", "norm"]
    with pytest.raises(UserError, match="trains nothing"):
        kinds(lora_rank=0, train_norms=False, train_coefficients=False)


def test_rates_go_to_their_groups():
    groups = student_of(tiny_llama(), [0]).groups(Optimiser(rate=1, coefficient_rate=2, norm_rate=3))
    assert {group["name"]: group["lr"] for group in groups} == {"lora": 1, "delta": 2, "norm": 3}
    assert len(groups[2]["params"]) == 5


@pytest.mark.parametrize("shared", [False, True])
def test_a_trained_state_makes_another_student_the_same(shared):
    model = tiny_llama()
    student = student_of(model, [1], shared)
    disturb(student)
    twin = student_of(model)
    twin.load_trained_state(student.trained_state(), shared)
    assert twin.polynomial_layers == [1]
    assert torch.equal(twin.model(IDS).logits, student.model(IDS).logits)


def test_an_earlier_state_goes_into_a_student_with_more_polynomials():
    model = tiny_llama()
    student = student_of(model, [1])
    disturb(student)
    kept = student.trained_state()
    said = student.model(IDS).logits
    disturb(student, seed=1)
    assert not torch.equal(student.model(IDS).logits, said)
    student.load_trained_state(kept, False)
    assert torch.equal(student.model(IDS).logits, said)
    student.replace(0, start(), False)
    student.load_trained_state(kept, False)
    assert student.polynomial_layers == [0, 1]


def test_a_low_rank_update_is_scaled_by_alpha_over_rank():
    student = student_of(tiny_llama(), lora_rank=2, lora_alpha=6.0)
    disturb(student)
    layer = student.model.model.layers[0].self_attn.q_proj
    update = student.adapter().updates["model.layers.0.self_attn.q_proj"]
    hidden = torch.randn(3, 16)
    expected = functional.linear(hidden, layer.get_base_layer().weight + update.up @ update.down)
    torch.testing.assert_close(layer(hidden), expected)


def test_updates_only_where_they_are_wanted():
    student = Student(tiny_llama(), Settings(lora_rank=2, lora_on=["o_proj"]), [1])
    assert list(student.adapter().updates) == ["model.layers.1.self_attn.o_proj"]


def test_a_quadratic_that_training_flattens_keeps_its_square():
    glu = TrainedGLU(0, start(), False, Watch())
    with torch.no_grad():
        glu.delta[2] = -glu.start[2] / glu.basis[2, 2]
    assert glu.coefficients[2].abs().tolist() == pytest.approx([MIN_LEADING] * 24)
    glu(torch.randn(5, 24), torch.randn(5, 24)).sum().backward()
    assert bool((glu.delta.grad[2] != 0).all())

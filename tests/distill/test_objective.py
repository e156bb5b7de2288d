from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mpcbench.distill.data import pad
from mpcbench.distill.objective import Distillation, Teacher, _plain_attention, layer_error, outputs_of
from mpcbench.distill.recipe import Objective
from mpcbench.distill.recipe import Student as Settings
from mpcbench.distill.student import Start, Student, power_basis
from tests.tiny import tiny_llama

BATCH = pad([[1, 5, 9, 33, 7], [8, 4], [3, 17, 50]])


def student_of(model, layers=(0,), bound=10.0, **settings):
    student = Student(model, Settings(lora_rank=2, **settings), [0, 1])
    channels = model.config.intermediate_size
    for layer in layers:
        coefficients = torch.tensor([0.0, 0.5, 0.25])[:, None].expand(3, channels)
        ones = torch.ones(channels)
        student.replace(layer, Start(coefficients, power_basis(ones, 2), bound * ones), False)
    return student


def parts_of(student, model, objective):
    module = Distillation(student, objective, None, autocast=False)
    return module(BATCH, Teacher(model).answer(BATCH, module.compared_layers))


def test_kl_is_that_of_the_models_logits():
    model = tiny_llama()
    student = student_of(model)
    parts = parts_of(student, model, Objective())
    p, q = (m(BATCH.ids).logits[BATCH.real].log_softmax(-1) for m in (model, student.model))
    expected = functional.kl_div(q, p, reduction="batchmean", log_target=True)
    assert parts["kl"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert parts["loss"] is not None and parts["loss"].item() == parts["kl"].item()


def test_attention_is_plain_for_a_step_and_as_it_was_after_it():
    model = tiny_llama()
    student = student_of(model)
    config, used = student.model.config, []
    usual = config._attn_implementation
    hook = student.model.model.layers[0].register_forward_hook(
        lambda *_: used.append(config._attn_implementation)
    )
    parts_of(student, model, Objective())
    Distillation(student, Objective(), None, autocast=False)(BATCH, answer=[])
    hook.remove()
    assert used == ["eager", usual] and usual != "eager"
    with pytest.raises(ZeroDivisionError), _plain_attention(student.model):
        raise ZeroDivisionError
    assert config._attn_implementation == usual


@pytest.mark.parametrize("kl", [0.0, 1.0])
def test_likelihood_compares_what_both_say_of_the_texts_next_token(kl):
    model = tiny_llama()
    student = student_of(model)
    parts = parts_of(student, model, Objective(kl=kl, likelihood=0.5))
    later = BATCH.real[:, 1:]
    p, q = (
        m(BATCH.ids).logits[:, :-1].log_softmax(-1).gather(2, BATCH.ids[:, 1:, None])[..., 0][later]
        for m in (model, student.model)
    )
    expected = (q - p).square().mean().item()
    assert parts["likelihood"].item() == pytest.approx(expected, rel=1e-4)
    assert parts["loss"].item() == pytest.approx(kl * parts["kl"].item() + 0.5 * expected, rel=1e-4)


def test_cross_entropy_is_of_the_next_token_within_a_row():
    model = tiny_llama()
    student = student_of(model)
    part = parts_of(student, model, Objective(kl=0.0, cross_entropy=1.0))["cross_entropy"]
    logits = student.model(BATCH.ids).logits
    labels = BATCH.ids.masked_fill(~BATCH.real, -100)[:, 1:]
    expected = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=-100)
    assert part.item() == pytest.approx(expected.item(), rel=1e-5)


def test_layer_error_leaves_out_first_tokens():
    teacher = {0: torch.ones(4, 2), 3: torch.full((4, 2), 2.0)}
    student = {0: torch.ones(4, 2), 3: torch.full((4, 2), 3.0)}
    student[0][0] = student[3][2] = 1e6  # first tokens of two rows
    counted = torch.tensor([False, True, False, True])
    assert layer_error(student, teacher, counted, relative=False).item() == pytest.approx(0.5)
    assert layer_error(student, teacher, counted, relative=True).item() == pytest.approx(0.125)


def test_layer_mse_compares_what_polynomial_layers_return():
    model = tiny_llama()
    student = student_of(model, layers=(1,))
    part = parts_of(student, model, Objective(kl=0.0, layer_mse=1.0))["layer_mse"]
    with outputs_of(model, [1]) as goal, outputs_of(student.model, [1]) as seen:
        model(BATCH.ids), student.model(BATCH.ids)
    later = BATCH.real.clone()
    later[:, 0] = False
    assert part.item() == pytest.approx((goal[1] - seen[1])[later].square().mean().item(), rel=1e-4)
    assert part.item() > 0


def test_gates_beyond_their_range_are_penalised():
    model = tiny_llama()
    gates = []
    model.model.layers[0].mlp.gate_proj.register_forward_hook(lambda _, __, gate: gates.append(gate))
    model(BATCH.ids)
    later = BATCH.real.clone()
    later[:, 0] = False
    excess = (gates[0][later].abs() / 0.5 - 1).clamp_min(0).square().mean()
    goal = Objective(kl=0.0, gate_range=1.0)
    part = parts_of(student_of(tiny_llama(), bound=0.5), model, goal)["gate_range"]
    assert part.item() == pytest.approx(excess.item(), rel=1e-4)
    assert parts_of(student_of(tiny_llama(), bound=1e3), model, goal)["gate_range"].item() == 0
    part.backward()


def test_the_loss_is_the_weighted_sum_of_its_parts():
    model = tiny_llama()
    weights = {"kl": 0.7, "layer_mse": 0.2, "cross_entropy": 0.5, "gate_range": 2.0}
    parts = parts_of(student_of(model, bound=0.5), model, Objective(**weights))
    assert set(parts) == {"loss", *weights}
    total = sum(weight * parts[name].item() for name, weight in weights.items())
    assert parts["loss"].item() == pytest.approx(total, rel=1e-5)


def test_the_watch_tells_first_tokens_from_later_ones():
    model = tiny_llama()
    student = student_of(model)
    gates = []
    student.model.model.layers[0].mlp.gate_proj.register_forward_hook(lambda _, __, gate: gates.append(gate))
    parts_of(student, model, Objective())
    size = gates[0].abs().amax(-1)
    later = BATCH.real.clone()
    later[:, 0] = False
    assert student.watch.largest[0].item() == pytest.approx(size[later].max().item())
    assert student.watch.largest_first[0].item() == pytest.approx(size[:, 0].max().item())


def test_a_teacher_remembers_by_text_not_by_batch():
    model = tiny_llama()
    teacher = Teacher(model)
    teacher.keep([[3, 17, 50], [8, 4], [1, 5, 9, 33, 7]])
    first = teacher.answer(BATCH, [])
    model.model.forward = None  # asked again, it would fail
    shuffled = pad([[8, 4], [3, 17, 50], [1, 5, 9, 33, 7]])
    again = teacher.answer(shuffled, [])
    torch.testing.assert_close(again.hidden, torch.cat([first.hidden[5:], first.hidden[:5]]), rtol=0, atol=0)


def test_a_teacher_keeps_as_much_as_there_is_room_for(monkeypatch):
    model, asked = tiny_llama(), []
    monkeypatch.setattr("mpcbench.distill.objective.CACHED_BYTES", 4 * model.config.hidden_size * 6)
    teacher = Teacher(model)
    teacher.keep([[3, 17, 50], [1, 5, 9, 33, 7], [8, 4]])  # the second does not fit
    model.model.register_forward_hook(lambda *_: asked.append(1))
    for rows in ([[8, 4]], [[3, 17, 50]], [[1, 5, 9, 33, 7]], [[1, 5, 9, 33, 7]], [[3, 17, 50], [8, 4]]):
        hidden = teacher.answer(pad(rows), []).hidden
        expected = torch.cat([model.model(torch.tensor([row])).last_hidden_state[0] for row in rows])
        asked[-len(rows) :] = []
        torch.testing.assert_close(hidden, expected)
    assert len(asked) == 3  # the two kept ones together, and the other each time


def test_a_teacher_of_ones_own_head_teaches_through_it():
    model, other = tiny_llama(), tiny_llama(seed=1)
    module = Distillation(student_of(model), Objective(), other.lm_head, autocast=False)
    parts = module(BATCH, Teacher(other).answer(BATCH, []))
    p, q = (m(BATCH.ids).logits[BATCH.real].log_softmax(-1) for m in (other, module.student.model))
    expected = functional.kl_div(q, p, reduction="batchmean", log_target=True)
    assert parts["kl"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_first_tokens_count_in_the_layers_error_if_asked():
    model = tiny_llama()
    with torch.no_grad():
        model.model.embed_tokens.weight[[1, 8, 3]] *= 50  # the first tokens of BATCH
    student = student_of(model)
    without, withal = (
        parts_of(student, model, Objective(layer_mse=1.0, layer_mse_first=first))["layer_mse"]
        for first in (False, True)
    )
    with outputs_of(student.model, [0]) as own, outputs_of(model, [0]) as goal:
        student.model(BATCH.ids), model(BATCH.ids)
    everywhere = (own[0] - goal[0])[BATCH.real].square().mean()
    torch.testing.assert_close(withal, everywhere)
    assert not torch.isclose(without, withal)

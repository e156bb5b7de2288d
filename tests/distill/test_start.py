from __future__ import annotations

import pytest
import torch

from mpcbench.checkpoints.polyllama import SILU_SERIES
from mpcbench.distill.calibrate import fit_layer
from mpcbench.distill.recipe import Polynomials
from mpcbench.distill.recipe import Student as Settings
from mpcbench.distill.start import add_polynomials
from mpcbench.distill.stream import Stream
from mpcbench.distill.student import Student
from tests.tiny import tiny_llama

SEQUENCES = torch.randint(3, 60, (40, 12), generator=torch.Generator().manual_seed(3)).tolist()


def student_with(layers=(0,), seed=0, **settings):
    student = Student(tiny_llama(), Settings(lora_rank=2), [0, 1])
    add_polynomials(student, layers, Polynomials(**settings), SEQUENCES, seed)
    return student


def started(layers=(0,), seed=0, **settings):
    """Coefficients by layer that a new student starts from."""
    polynomials = student_with(layers, seed, **settings).polynomials
    return {layer: glu.start for layer, glu in polynomials.items()}


def test_a_calibrated_start_is_the_closed_form_fit():
    stream = Stream(tiny_llama(), SEQUENCES)
    stream.attend(0)
    torch.testing.assert_close(started()[0], fit_layer(stream, 0, 2))


def test_a_later_layer_is_fitted_behind_the_ones_that_were_replaced():
    alone, behind = started([1])[1], started([0, 1])[1]
    assert not torch.equal(alone, behind)
    torch.testing.assert_close(alone, behind, atol=0.05, rtol=0.05)


def test_layers_that_are_replaced_already_stay():
    student = student_with(start="random")
    before = student.polynomials[0].start.clone()
    add_polynomials(student, [1], Polynomials(), SEQUENCES, seed=0)
    assert torch.equal(student.polynomials[0].start, before)


@pytest.mark.parametrize("degree", [2, 4])
def test_the_series_is_the_same_in_every_channel(degree):
    ours = started(start="series", degree=degree)[0]
    assert torch.equal(ours, torch.tensor(SILU_SERIES[: degree + 1])[:, None].expand_as(ours))


def test_a_random_start_follows_its_seed():
    one, again, other = (started(start="random", seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    shared = started(start="random", shared=True)[0]
    assert torch.equal(shared, shared[:, :1].expand_as(shared))


def test_the_unit_and_bound_are_those_of_gates_behind_the_first_token():
    glu, together = (student_with(shared=shared).polynomials[0] for shared in (False, True))
    stream = Stream(tiny_llama(), SEQUENCES)
    stream.attend(0)
    mlp = stream.model.model.layers[0].mlp
    gates = torch.cat([mlp.gate_proj(normed) for normed in stream.mlp_inputs(0)])[~stream.first]
    torch.testing.assert_close(glu.bound, gates.abs().amax(0))
    torch.testing.assert_close(glu.basis[0, 0], gates.square().mean(0).sqrt())
    torch.testing.assert_close(together.basis[0, 0], gates.square().mean().sqrt()[None])


def test_the_guard_of_a_quartic_reaches_as_far_as_the_recipe_says():
    near, far = (started(degree=4, guard_reach=reach)[0] for reach in (1.0, 4.0))
    assert not torch.equal(near, far)
    quadratics = [started(guard_reach=reach)[0] for reach in (1.0, 4.0)]
    assert torch.equal(*quadratics), "quadratics are not guarded"


@pytest.mark.parametrize("start", ["calibrated", "series"])
def test_a_step_along_an_orthogonal_basis_moves_the_activation_alike_in_all_directions(start):
    glu = student_with(start=start, degree=4, basis="orthogonal").polynomials[0]
    stream = Stream(tiny_llama(), SEQUENCES)
    stream.attend(0)
    mlp, inputs = stream.model.model.layers[0].mlp, torch.cat(stream.mlp_inputs(0))[~stream.first]
    gate, up = mlp.gate_proj(inputs), mlp.up_proj(inputs)
    unit = student_with(start=start, degree=4).polynomials[0].basis[0, 0]
    before, moved = glu(gate, up), []
    for power in range(5):
        with torch.no_grad():
            glu.delta.zero_()
            glu.delta[power] = 0.01
        moved.append(((glu(gate, up) - before).square().sum(0) / up.square().sum(0)).sqrt())
    torch.testing.assert_close(torch.stack(moved), 0.01 * unit.expand(5, -1), atol=0, rtol=0.25)

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from mpcbench.checkpoints.polyllama import MIN_LEADING
from mpcbench.distill.fit import Moments


def draw(tokens=400, channels=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([0.1, 0.5, 1.0, 3.0, 10.0, 40.0])[:channels]
    gate = torch.randn(tokens, channels, generator=generator) * spread + 0.2
    up = torch.randn(tokens, channels, generator=generator)
    weight = torch.rand(tokens, generator=generator) + 0.1
    return gate, up, weight


def fitted(gate, up, weight, degree, output_weight=None, **options):
    moments = Moments(gate.shape[1], degree)
    for rows in torch.arange(len(gate)).chunk(3):
        moments.add(gate[rows], up[rows], weight[rows])
    return moments.solve(torch.ones(gate.shape[1]) if output_weight is None else output_weight, **options)


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_each_channel_is_the_weighted_least_squares_solution(degree):
    gate, up, weight = draw()
    ours = fitted(gate, up, weight, degree, ridge=0.0)
    for channel in range(gate.shape[1]):
        g = gate[:, channel].double()
        root = (weight.double().sqrt() * up[:, channel].double().abs()).numpy()
        scale = float(g.abs().max())  # numpy's own conditioning, undone below
        basis = np.vander(g.numpy() / scale, degree + 1, increasing=True)
        oracle = np.linalg.lstsq(basis * root[:, None], functional.silu(g).numpy() * root, rcond=None)[0]
        oracle /= scale ** np.arange(degree + 1)
        np.testing.assert_allclose(ours[:, channel].numpy(), oracle, rtol=1e-4, atol=1e-7)


def test_a_shared_polynomial_weighs_channels_by_their_output():
    gate, up, weight = draw()
    output_weight = torch.tensor([5.0, 0.1, 2.0, 1.0, 0.5, 0.01])
    ours = fitted(gate, up, weight, 2, output_weight, per_channel=False)
    assert torch.equal(ours, ours[:, :1].expand_as(ours))
    g = gate.double().flatten().numpy()
    root = (weight[:, None] * output_weight).double().sqrt() * up.double().abs()
    basis = np.vander(g, 3, increasing=True) * root.flatten().numpy()[:, None]
    target = functional.silu(gate.double()).flatten().numpy() * root.flatten().numpy()
    oracle = np.linalg.lstsq(basis, target, rcond=None)[0]
    np.testing.assert_allclose(ours[:, 0].numpy(), oracle, rtol=1e-4, atol=1e-6)


def test_the_output_weight_cancels_when_channels_do_not_share():
    gate, up, weight = draw()
    one = fitted(gate, up, weight, 2, torch.ones(6), ridge=0.0)
    other = fitted(gate, up, weight, 2, torch.rand(6) + 0.1, ridge=0.0)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_a_polynomial_target_is_recovered(degree, monkeypatch):
    truth = torch.tensor([0.3, -0.5, 0.25, 0.04, -0.01], dtype=torch.float64)[: degree + 1]
    monkeypatch.setattr(functional, "silu", lambda g: sum(c * g**k for k, c in enumerate(truth)))
    gate, up, weight = draw(channels=4)
    ours = fitted(gate, up, weight, degree)
    torch.testing.assert_close(ours, truth[:, None].expand_as(ours), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("leading", [0.0, 4e-4, -4e-4])
def test_a_nearly_straight_activation_keeps_a_leading_coefficient(leading, monkeypatch):
    monkeypatch.setattr(functional, "silu", lambda g: 0.3 + 0.5 * g + leading * g**2)
    gate, up, weight = draw(channels=4)
    ours = fitted(gate, up, weight, 2, ridge=0.0)
    bound = -MIN_LEADING if leading < 0 else MIN_LEADING
    if leading:
        assert ours[2].tolist() == [bound] * 4
    else:  # either sign is as good
        assert ours[2].abs().tolist() == [MIN_LEADING] * 4
    for channel in range(4):
        g = gate[:, channel].double().numpy()
        root = (weight.double().sqrt() * up[:, channel].double().abs()).numpy()
        rest = (0.3 + 0.5 * g + (leading - ours[2, channel].item()) * g**2) * root
        oracle = np.linalg.lstsq(np.stack([root, g * root], 1), rest, rcond=None)[0]
        np.testing.assert_allclose(ours[:2, channel].numpy(), oracle, rtol=1e-6, atol=1e-9)


def test_a_token_without_weight_does_not_count():
    gate, up, weight = draw()
    outlier = gate.clone()
    outlier[7] = 1000.0
    weight[7] = 0.0
    torch.testing.assert_close(fitted(gate, up, weight, 2), fitted(outlier, up, weight, 2))


def test_dead_channels_get_the_shared_polynomial():
    gate, up, weight = draw()
    up[:, 2] = 0.0  # never on
    gate[:, 1] = 0.7  # never moves
    ours = fitted(gate, up, weight, 4)
    shared = fitted(gate, up, weight, 4, per_channel=False)[:, 0]
    assert torch.isfinite(ours).all()
    torch.testing.assert_close(ours[:, 2], shared)
    still = sum(ours[k, 1] * 0.7**k for k in range(5))
    assert still.item() == pytest.approx(functional.silu(torch.tensor(0.7)).item(), abs=1e-5)


def test_with_no_data_at_all_it_is_the_series_of_silu():
    ours = fitted(torch.zeros(5, 3), torch.zeros(5, 3), torch.ones(5), 2)
    torch.testing.assert_close(ours[:, 0], torch.tensor([0.0, 0.5, 0.25], dtype=torch.float64))


@pytest.mark.parametrize("reach", [1.2, 1.5])
def test_a_guarded_quartic_stays_near_beyond_what_was_seen(reach):
    gate, up, weight = draw(channels=4)
    moments = Moments(4, 4)
    moments.add(gate, up, weight)
    free = moments.solve(torch.ones(4))
    largest = gate.abs().amax(0)
    moments.guard(largest, reach)
    guarded = moments.solve(torch.ones(4))

    def error(coefficients, gates):
        powers = gates.double()[None] ** torch.arange(5)[:, None, None]
        value = (coefficients[:, None] * powers).sum(0)
        return (value - functional.silu(gates.double())).square().mean(0)

    beyond = (reach - 0.1) * torch.stack([-largest, largest])
    assert (error(guarded, beyond) < error(free, beyond)).all()
    assert (error(guarded, gate) < 1.1 * error(free, gate) + 1e-9).all()


@pytest.mark.parametrize("degree", [2, 4])
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_basis_is_orthonormal_over_the_weighted_gates(degree, per_channel, monkeypatch):
    monkeypatch.setattr("mpcbench.distill.fit.BASIS_RIDGE", 1e-12)
    gate, up, weight = draw(tokens=2000)
    gate[0] = 60.0  # a token such as an attention sink
    output_weight = torch.linspace(0.5, 2, gate.shape[1])
    moments = Moments(gate.shape[1], degree)
    moments.add(gate, up, weight)
    basis = moments.basis(output_weight, per_channel).expand(-1, -1, gate.shape[1])
    powers = gate.double() ** torch.arange(degree + 1)[:, None, None]
    values = torch.einsum("kjc,ktc->jtc", basis, powers)
    share = weight[:, None].double() * up.double().square() * (1.0 if per_channel else output_weight)
    share = share / share.sum(0) if per_channel else share / share.sum()
    gram = torch.einsum("itc,jtc,tc->ijc", values, values, share)
    one = torch.eye(degree + 1, dtype=torch.float64)
    grams = gram.movedim(-1, 0) if per_channel else gram.sum(-1)
    torch.testing.assert_close(grams, one.expand_as(grams), atol=5e-3, rtol=0)


def test_the_basis_is_bounded_where_gates_never_move():
    gate, up, weight = draw()
    gate[:, 1], up[:, 2] = 0.7, 0.0
    moments = Moments(gate.shape[1], 4)
    moments.add(gate, up, weight)
    basis = moments.basis(torch.ones(gate.shape[1]))
    assert torch.isfinite(basis).all()
    at_twice = torch.einsum("kjc,kc->jc", basis, (1.4 ** torch.arange(5.0)).double()[:, None].expand(5, 6))
    assert (at_twice[:, 1].abs() < 1000).all()

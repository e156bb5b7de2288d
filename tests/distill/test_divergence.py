from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mpcbench.distill.divergence import ROWS, Divergence


def plain_kl(student, teacher, own, other, temperature):
    p = (teacher @ other.T / temperature).log_softmax(-1)
    q = (student @ own.T / temperature).log_softmax(-1)
    return temperature**2 * functional.kl_div(q, p, reduction="batchmean", log_target=True)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_divergence_and_its_gradient_are_those_of_autograd(separate, temperature, dtype, tolerance):
    torch.manual_seed(0)
    teacher = torch.randn(ROWS + 86, 16)  # more than one block of rows, and a smaller one
    student = (teacher + 0.5 * torch.randn(ROWS + 86, 16)).requires_grad_()
    own = torch.randn(40, 16)
    other = own + 0.1 * torch.randn(40, 16) if separate else own
    expected = plain_kl(student, teacher, own, other, temperature)
    (gradient,) = torch.autograd.grad(3 * expected, student)
    value, _ = Divergence.apply(student, teacher, own, other if separate else None, dtype, temperature)
    (ours,) = torch.autograd.grad(3 * value, student)
    assert value.item() == pytest.approx(expected.item(), rel=tolerance)
    assert (ours - gradient).norm() < tolerance * gradient.norm()


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 3e-2)])
def test_distance_of_likelihoods_and_its_gradient_are_those_of_autograd(
    separate, temperature, dtype, tolerance
):
    torch.manual_seed(1)
    count = ROWS + 86
    teacher = torch.randn(count, 16)
    student = (teacher + 0.5 * torch.randn(count, 16)).requires_grad_()
    own = torch.randn(40, 16)
    other = own + 0.1 * torch.randn(40, 16) if separate else own
    labels = torch.randint(40, (count,)).masked_fill(torch.arange(count) % 9 == 8, -100)
    given = labels >= 0
    p, q = ((x @ w.T / temperature).log_softmax(-1)[given] for x, w in ((teacher, other), (student, own)))
    apart = (q - p).gather(1, labels[given][:, None]).square().mean() * temperature**2
    kl = plain_kl(student, teacher, own, other, temperature)
    (gradient,) = torch.autograd.grad(3 * kl + 2 * apart, student)
    values = Divergence.apply(student, teacher, own, other if separate else None, dtype, temperature, labels)
    (ours,) = torch.autograd.grad(3 * values[0] + 2 * values[1], student)
    assert values[0].item() == pytest.approx(kl.item(), rel=tolerance)
    assert values[1].item() == pytest.approx(apart.item(), rel=tolerance)
    assert (ours - gradient).norm() < tolerance * gradient.norm()

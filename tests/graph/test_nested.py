"""The normal form of cubics and quartics is the same polynomial, or one near by that fixed point computes."""

from __future__ import annotations

import pytest
import torch

from mpcbench.graph.interpreter import PlaintextInterpreter
from mpcbench.graph.lower import lower
from mpcbench.graph.nested import MAX_CENTRE, NormalForm, normal_form
from tests.graph.models import last_logits, polynomial_model, tokens


@pytest.mark.parametrize("degree", [3, 4])
def test_form_is_the_polynomial(degree: int) -> None:
    generator = torch.Generator().manual_seed(degree)
    coefficients = torch.randn(degree + 1, 40, generator=generator, dtype=torch.float64)
    coefficients[-1] = torch.where(torch.arange(40) % 2 == 0, 0.3, -0.4)
    form = normal_form(coefficients)
    g = torch.linspace(-3, 3, 61, dtype=torch.float64)[:, None]
    expected = sum(row * g**power for power, row in enumerate(coefficients))
    torch.testing.assert_close(polynomial(form, g, degree), expected, rtol=1e-9, atol=1e-9)


def silu_like(degree: int, leading: float) -> torch.Tensor:
    """Five channels near SiLU, the third with another leading coefficient."""
    coefficients = torch.tensor([0.1, 0.5, 0.15, 0.01, 0.01], dtype=torch.float64)[: degree + 1]
    coefficients = coefficients[:, None].repeat(1, 5)
    coefficients[-1, 2] = leading
    if degree == 4:
        coefficients[3] = 0.0
    return coefficients


def polynomial(form: NormalForm, g: torch.Tensor, degree: int) -> torch.Tensor:
    t, c = form.scale * (g + form.shift), form.constants
    value = (t**2 + c["e"]) ** 2 + c["m"] * t + c["n"] if degree == 4 else (t**2 + c["e"]) * t + c["n"]
    return form.sign * value


@pytest.mark.parametrize("leading", [0.0, 1e-9, -1e-7])
def test_a_small_leading_coefficient_is_raised_as_far_as_it_must(leading: float) -> None:
    coefficients = silu_like(4, leading)
    form = normal_form(coefficients)
    assert MAX_CENTRE / 1.1 < form.constants["e"][2].abs() <= MAX_CENTRE
    g = torch.linspace(-4, 4, 81, dtype=torch.float64)[:, None]
    expected = sum(row * g**power for power, row in enumerate(coefficients))
    error = (polynomial(form, g, 4) - expected).abs().amax(0)
    assert error[2] < 1e-3 and error[[0, 1, 3, 4]].max() < 1e-9


@pytest.mark.parametrize("degree", [3, 4])
def test_what_would_have_to_be_raised_too_far_does_not_fold(degree: int) -> None:
    coefficients = silu_like(degree, 1e-9)
    coefficients[2, 2] = 30.0
    assert normal_form(coefficients) is None
    coefficients[2, 2] = torch.nan
    assert normal_form(coefficients) is None


@pytest.mark.parametrize("degree", [3, 4])
def test_whole_model_is_the_same_after_folding(degree: int) -> None:
    model = polynomial_model(degree, layers=(0, 1), leading=0.3)
    lowered = lower(model)
    assert [node.op for node in lowered.graph.nodes if node.op.endswith("glu")] == ["nested_glu"] * 2
    ids = tokens(7)
    plain = PlaintextInterpreter(lowered.graph, lowered.weights).run(ids)
    torch.testing.assert_close(plain, last_logits(model, ids), rtol=1e-3, atol=1e-3)

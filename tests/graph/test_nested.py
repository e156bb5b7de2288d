"""The normal form of cubics and quartics is the same polynomial, and is refused where it would be inexact."""

from __future__ import annotations

import pytest
import torch

from mpcbench.graph.interpreter import PlaintextInterpreter
from mpcbench.graph.lower import lower
from mpcbench.graph.nested import MAX_CENTRE, normal_form
from tests.graph.models import last_logits, polynomial_model, tokens


@pytest.mark.parametrize("degree", [3, 4])
def test_form_is_the_polynomial(degree: int) -> None:
    generator = torch.Generator().manual_seed(degree)
    coefficients = torch.randn(degree + 1, 40, generator=generator, dtype=torch.float64)
    coefficients[-1] = torch.where(torch.arange(40) % 2 == 0, 0.3, -0.4)
    form = normal_form(coefficients)
    g = torch.linspace(-3, 3, 61, dtype=torch.float64)[:, None]
    expected = sum(row * g**power for power, row in enumerate(coefficients))
    t = form.scale * (g + form.shift)
    c = form.constants
    value = (t**2 + c["e"]) ** 2 + c["m"] * t + c["n"] if degree == 4 else (t**2 + c["e"]) * t + c["n"]
    torch.testing.assert_close(form.sign * value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("leading", [0.0, 1e-9])
@pytest.mark.parametrize("degree", [3, 4])
def test_vanishing_leading_coefficient_does_not_fold(degree: int, leading: float) -> None:
    coefficients = torch.ones(degree + 1, 5, dtype=torch.float64)
    coefficients[-1, 2] = leading
    assert normal_form(coefficients) is None
    assert MAX_CENTRE > 0


@pytest.mark.parametrize("degree", [3, 4])
def test_whole_model_is_the_same_after_folding(degree: int) -> None:
    model = polynomial_model(degree, layers=(0, 1), leading=0.3)
    lowered = lower(model)
    assert [node.op for node in lowered.graph.nodes if node.op.endswith("glu")] == ["nested_glu"] * 2
    ids = tokens(7)
    plain = PlaintextInterpreter(lowered.graph, lowered.weights).run(ids)
    torch.testing.assert_close(plain, last_logits(model, ids), rtol=1e-3, atol=1e-3)

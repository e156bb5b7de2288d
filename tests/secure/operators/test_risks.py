"""What an operator enters of chance: openings that are made again, and values that are cut unchecked."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from mpcbench.secure import opening
from mpcbench.secure.opening import Cut
from mpcbench.secure.operators import REGISTRY, frontier_glu
from mpcbench.secure.ring import wrap
from tests.secure.single import one_party

BITS = 34
CHECKED = (
    "frontier.swiglu", "frontier.quadratic_glu", "frontier.linear", "frontier.matmul", "frontier.rms_norm",
    "frontier.sum_squares",
)  # fmt: skip


class Chance(NamedTuple):
    """What one call enters: the risk of repetitions, and what was cut locally with its chance of failing."""

    risk: float
    cut: int
    failures: float
    per_unit: float


def _run(name: str, bits: int = BITS, **params: object) -> Chance:
    """Of one call, load included, on the sample, whose values have ``bits`` fraction bits."""
    operator = REGISTRY[name]
    sample, made = operator.sample(), operator(operator.Params(**params))
    values = [wrap((x.double() * 2.0**bits).round().long(), bits) for x in sample.inputs]
    with one_party() as communicator:
        weights = [
            made.load(sample.node, weight, (value.double() * 2.0**16).round().long(), 16)
            for weight, value in zip(sample.node.weights, sample.weights, strict=False)
        ] or sample.weights
        ledger = communicator.ledger
        before = ledger.risks.total()
        with ledger.scope("online", 0, "m", operator.op):
            made.run(sample.node, values, weights)
        assert before == 0.0
        tallies = ledger.tallies.values()
        return Chance(
            ledger.risks.total(),
            sum(tally.cut_locally for tally in tallies),
            sum(tally.cut_failures for tally in tallies),
            sum(tally.cut_failures_per_unit for tally in tallies),
        )


@pytest.mark.parametrize("name", CHECKED)
def test_the_risk_entered_is_that_of_every_check(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    checks: list[float] = []

    def check(z: torch.Tensor, cut: Cut) -> bool:
        checks.append(opening.repetition_chance([z], [cut]))
        return False

    for module in (opening, frontier_glu):
        monkeypatch.setattr(module, "may_have_wrapped", check)
    entered = _run(name)
    assert sum(checks) > 0
    assert entered == (pytest.approx(sum(checks)), 0, 0.0, 0.0)


def test_the_gate_of_swiglu_counts_with_its_own_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates of 20 and values of 1, both cut by 22 bits: nearly all of the risk is the gates'."""
    operator = REGISTRY["frontier.swiglu"]
    sample = operator.sample()
    sample.node.attrs["range"] = {"gate": [-20.0, 20.0], "up": [-1.0, 1.0]}
    monkeypatch.setattr(operator, "sample", classmethod(lambda cls: sample))
    count, scale = sample.inputs[0].numel(), 1.25 * 2.0 ** (BITS - 63)
    assert _run("frontier.swiglu").risk == pytest.approx(count * (20 + 1) * scale, rel=1e-3)


@pytest.mark.parametrize("name", CHECKED)
def test_unchecked_openings_fail_half_as_often_as_checked_ones_are_repeated(name: str) -> None:
    checked, local = _run(name), _run(name, truncation="local")
    assert local.risk == 0.0
    assert local.cut > 0
    assert local.failures == pytest.approx(checked.risk / 2)


def test_local_cuts_of_a_product_with_a_weight() -> None:
    """8 x 96 products of 32 bits, whose size is that of the output; one-hot rows are not cut at all."""
    assert _run("reuse.linear", 16) == (0.0, 8 * 96, 0.0, 8 * 96 * 2.0**-32)
    assert _run("reuse.embedding", 0) == (0.0, 0, 0.0, 0.0)


def test_local_cuts_of_crypten_s_rope() -> None:
    """Two products with public numbers an element."""
    count = 2 * 3 * 7 * 8
    assert _run("local.rope", 16) == (0.0, count, 0.0, count * 2.0**-32)


def test_local_cut_of_a_fourier_series() -> None:
    count = REGISTRY["fourier.swiglu"].sample().inputs[0].numel()
    assert _run("fourier.swiglu", 16) == (0.0, count, count * 2.0**-32, 0.0)


def test_local_cuts_in_front_of_a_polynomial(monkeypatch: pytest.MonkeyPatch) -> None:
    operator = REGISTRY["frontier.polynomial_glu"]
    sample = operator.sample()
    monkeypatch.setattr(operator, "sample", classmethod(lambda cls: sample))
    count = sample.inputs[0].numel()
    sample.node.attrs["range"] = {"gate": [-6.0, 2.0], "up": [0.0, 3.0], "up_first": [-5.0, 0.0]}
    assert _run("frontier.polynomial_glu")[1:] == (2 * count, count * (6 + 5) * 2.0 ** (BITS - 64), 0.0)
    sample.node.attrs["range"] = {}
    assert _run("frontier.polynomial_glu")[1:] == (2 * count, 0.0, 2 * count * 2.0 ** (BITS - 64))


def test_local_cut_of_a_quartic_s_coefficients() -> None:
    """Once a model: m loses four bits when it is loaded."""
    sample = REGISTRY["frontier.nested_glu"].sample()
    assert len(sample.weights) == 3
    chance = _run("frontier.nested_glu")
    assert chance[1:] == (sample.weights[1].numel(), 0.0, sample.weights[1].numel() * 2.0**-48)

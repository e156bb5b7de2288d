"""What an operator enters of the risk that its openings are made again is what its checks then ask for."""

from __future__ import annotations

import pytest
import torch

from mpcbench.secure import opening
from mpcbench.secure.opening import Cut
from mpcbench.secure.operators import REGISTRY, Operator, frontier_glu
from mpcbench.secure.ring import wrap
from tests.secure.single import one_party

BITS = 34
CHECKED = (
    "frontier.swiglu", "frontier.quadratic_glu", "frontier.linear", "frontier.matmul", "frontier.rms_norm",
    "frontier.sum_squares",
)  # fmt: skip


def _run(operator: type[Operator], **params: object) -> float:
    """The risk that one call on the sample enters, whose values have ``BITS`` fraction bits."""
    sample, made = operator.sample(), operator(operator.Params(**params))
    values = [wrap((x.double() * 2.0**BITS).round().long(), BITS) for x in sample.inputs]
    with one_party() as communicator:
        shares = [(weight.double() * 2.0**16).round().long() for weight in sample.weights]
        names = sample.node.weights
        weights = [made.load(sample.node, name, share, 16) for name, share in zip(names, shares, strict=True)]
        before = communicator.ledger.risks.total()
        with communicator.ledger.scope("online", 0, "m", operator.op):
            made.run(sample.node, values, weights)
        assert before == 0.0
        return communicator.ledger.risks.total()


@pytest.mark.parametrize("name", CHECKED)
def test_the_risk_entered_is_that_of_every_check(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    checks: list[float] = []

    def check(z: torch.Tensor, cut: Cut) -> bool:
        checks.append(opening.repetition_chance([z], [cut]))
        return False

    for module in (opening, frontier_glu):
        monkeypatch.setattr(module, "may_have_wrapped", check)
    entered = _run(REGISTRY[name])
    assert sum(checks) > 0
    assert entered == pytest.approx(sum(checks))


def test_the_gate_of_swiglu_counts_with_its_own_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gates of 20 and values of 1, both cut by 22 bits: nearly all of the risk is the gates'."""
    operator = REGISTRY["frontier.swiglu"]
    sample = operator.sample()
    sample.node.attrs["range"] = {"gate": [-20.0, 20.0], "up": [-1.0, 1.0]}
    monkeypatch.setattr(operator, "sample", classmethod(lambda cls: sample))
    count, scale = sample.inputs[0].numel(), 1.25 * 2.0 ** (BITS - 63)
    assert _run(operator) == pytest.approx(count * (20 + 1) * scale, rel=1e-3)

"""Activations and softmax of MPCFormer and SecFormer, from those papers' descriptions.

They are functions of their own, not approximations of SwiGLU and softmax to a small error: models are
meant to be distilled to them. ``reference`` says in floating point what each computes. Masks are uniform
in the whole ring and periods powers of two, so that an opened difference says nothing of the input.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field

from mpcbench.compat import import_crypten
from mpcbench.cost import crypten as price
from mpcbench.cost.declared import Cost
from mpcbench.graph.interpreter import causal_mask
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.evaluate import evaluate, trig_cost
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape
from mpcbench.secure.operators.crypten_glu import StockGLU
from mpcbench.secure.operators.crypten_glu import SwiGLU as StockSwiGLU
from mpcbench.secure.operators.crypten_softmax import Softmax as StockSoftmax
from mpcbench.secure.operators.limits import Measured, Plain, Seen, Violation
from mpcbench.secure.ring import bits_of, truncated_locally, wrap
from mpcbench.secure.series import Period, Series, fit_exactly

TRIG_BITS, PUBLIC_BITS = 16, 16
SUM = "sum of squares"


class Quad(StockGLU):
    """(0.125 g² + 0.25 g + 0.5) · u: MPCFormer's Quad in place of SiLU."""

    name, op = "mpcformer.swiglu", "swiglu"
    source = "MPCFormer (Li et al., ICLR 2023), section 3.1: Quad"
    domain = "g² < 2^15, product < 2^15"
    error = 5e-3

    @classmethod
    def sample(cls) -> Sample:
        return StockSwiGLU.sample()

    def reference(self, node: Node, inputs: Plain, weights: Plain) -> torch.Tensor:
        gate, up = inputs
        return (0.125 * gate.square() + 0.25 * gate + 0.5) * up

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        return price.square(n) + price.mul(n)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        gate, up = inputs
        return (gate.square() * 0.125 + gate * 0.25 + 0.5) * up


class _TwoQuad(Operator, ABC):
    """(s + c)² / sum (s + c)² over the keys that the mask lets through: 2Quad in place of softmax."""

    op = "softmax"
    domain = "scores above -c, as a distilled model has them; sums of squares up to `largest_sum`, not near 0"
    error = 3e-2

    class Params(Params):
        """``centre``: c; ``largest_sum``: sums are divided by it, so that they lie below one."""

        centre: float = 5.0
        largest_sum: float = Field(default=4096.0, gt=0)

    @classmethod
    def sample(cls) -> Sample:
        return StockSoftmax.sample()

    def reference(self, node: Node, inputs: Plain, weights: Plain) -> torch.Tensor:
        squares = self._squares(node, inputs[0])
        return squares / squares.sum(-1, keepdim=True)

    def measured(self, node: Node, inputs: Plain, weights: Plain, result: torch.Tensor) -> Measured:
        return {SUM: self._squares(node, inputs[0]).sum(-1)}

    def violation(self, node: Node, seen: Seen) -> Violation | None:
        if "scores" not in seen:
            return None
        # No sum is smaller than its largest term.
        term = max((score + self.params.centre) ** 2 for score in seen["scores"])
        low, high = seen.get(SUM, (term, term))
        least, most = self.params.largest_sum * self._least(), self.params.largest_sum
        if least <= low and high <= most:
            return None
        return Violation(SUM, low, high, f"right from {least:.3g} to {most:.3g}")

    def _squares(self, node: Node, scores: torch.Tensor) -> torch.Tensor:
        return (scores + self.params.centre).square() * causal_mask(*scores.shape[-2:], node.attrs["groups"])

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        squares = (inputs[0] + self.params.centre).square()
        squares.share = squares.share * causal_mask(*squares.size()[-2:], node.attrs["groups"]).long()
        return squares * self._inverse(squares.sum(-1, keepdim=True))

    @abstractmethod
    def _inverse(self, total: Any) -> Any:
        """Of sums [..., 1]."""

    @abstractmethod
    def _least(self) -> float:
        """The smallest sum whose inverse is right to a few percent, as a part of ``largest_sum``."""


class TwoQuad(_TwoQuad):
    __doc__ = f"{_TwoQuad.__doc__} The division is CrypTen's Newton-Raphson reciprocal."
    name = "mpcformer.softmax"
    source = "MPCFormer (Li et al., ICLR 2023), section 3.1: 2Quad; approximations.py: reciprocal"

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        rows = n // inputs[0][-1]
        return price.square(n) + price.reciprocal(rows, 8, 10) + price.mul(n, rows)

    def _inverse(self, total: Any) -> Any:
        # Sums of some hundreds are beyond CrypTen's reciprocal, which is right up to about fifty.
        scale = 64 / self.params.largest_sum
        return (total * scale).reciprocal() * scale

    def _least(self) -> float:
        return 2.0 ** (1 - self.bits)

    def settings(self, node: Node) -> Mapping[str, Any]:
        return {"functions.exp_iterations": 8, "functions.reciprocal_nr_iters": 10,
                "functions.reciprocal_all_pos": True}  # fmt: skip


class GoldschmidtTwoQuad(_TwoQuad):
    __doc__ = f"{_TwoQuad.__doc__} The division is Goldschmidt's, with a public start."
    name = "secformer.softmax"
    source = "SecFormer (Luo et al., ACL Findings 2024), section 3: 2Quad, Goldschmidt division"

    class Params(_TwoQuad.Params):
        """Besides: ``iterations`` of Goldschmidt's division."""

        iterations: int = Field(default=13, ge=1)

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        rows = n // inputs[0][-1]
        steps = self.params.iterations * price.mul(2 * rows)
        return price.square(n) + steps + price.mul(n, rows)

    def _inverse(self, total: Any) -> Any:
        crypten = import_crypten()
        scale = 1 / self.params.largest_sum
        below_one = total * scale
        # Numerator and denominator stay together; both are multiplied by 2 - denominator.
        pair = crypten.stack([below_one * 0 + 1.0, below_one])
        for _ in range(self.params.iterations):
            factor = 2 - pair[1]
            pair = pair * crypten.stack([factor, factor])
        return pair[0] * scale

    def _least(self) -> float:
        # What is left of 1 - x after n steps is its 2^n-th power.
        return 2.0 ** max(5 - self.bits, 2 - self.params.iterations)


def by_series(x: Any, series: Series) -> Any:
    """f(x), of magnitude one at most, by its series; in one round, and with as many fraction bits as x."""
    bits = bits_of(x)
    made = evaluate(x.share.reshape(-1), bits, series, TRIG_BITS, PUBLIC_BITS)
    return wrap(truncated_locally(made, TRIG_BITS + PUBLIC_BITS, bits, size=1.0).reshape(x.size()), bits)


class FourierSwiGLU(StockGLU):
    """silu(g) · u with sigmoid(g) = 1/2 + a sine series where |g| < cut, and 0 or 1 beyond, by comparison."""

    name, op = "fourier.swiglu", "swiglu"
    source = "SecFormer (Luo et al., ACL Findings 2024), section 3: Fourier activations"
    domain = "all g; the error is that of the series inside and sigmoid(-cut) beyond"
    error = 6e-2

    class Params(Params):
        """``terms`` of the series, which has period 2^``log_period``; ``cut``: where it ends."""

        terms: int = Field(default=7, ge=1)
        cut: float = Field(default=8.0, gt=0)
        log_period: int = 5

    @classmethod
    def sample(cls) -> Sample:
        return StockSwiGLU.sample()

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        return price.ltz(2 * n) + trig_cost(n, self._series()) + 3 * price.mul(n)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        crypten = import_crypten()
        gate, up = inputs
        beyond = crypten.stack([gate + self.params.cut, self.params.cut - gate])._ltz()
        below, above = beyond[0], beyond[1]
        inside = by_series(gate, self._series()) + 0.5
        sigmoid = inside * (1 - below - above) + above
        return gate * sigmoid * up

    def _series(self) -> Series:
        p = self.params
        return fit_exactly("sigmoid_odd", -p.cut, p.cut, Period(p.log_period), TRIG_BITS, p.terms)


OPERATORS = (Quad, TwoQuad, GoldschmidtTwoQuad, FourierSwiGLU)

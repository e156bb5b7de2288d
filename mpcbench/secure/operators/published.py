"""Activations and softmax of MPCFormer, SecFormer and SHAFT, from those papers' descriptions.

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
from mpcbench.secure.operators.crypten_glu import SwiGLU as StockSwiGLU
from mpcbench.secure.operators.crypten_softmax import Softmax as StockSoftmax
from mpcbench.secure.operators.ranges import span
from mpcbench.secure.ring import bits_of, truncated_locally, wrap
from mpcbench.secure.series import Period, Series, fit_exactly

TRIG_BITS, PUBLIC_BITS = 16, 16


class Quad(Operator):
    """(0.125 g² + 0.25 g + 0.5) · u: MPCFormer's Quad in place of SiLU."""

    name, op = "mpcformer.swiglu", "swiglu"
    source = "MPCFormer (Li et al., ICLR 2023), section 3.1: Quad"
    domain = "g² < 2^15, product < 2^15"
    error = 5e-3

    @classmethod
    def sample(cls) -> Sample:
        return StockSwiGLU.sample()

    @classmethod
    def reference(cls, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> torch.Tensor:
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
    domain = "scores above -c, as a distilled model has them; sums of squares as `largest_sum` says"
    error = 3e-2

    class Params(Params):
        """``centre``: c; ``largest_sum``: sums are divided by it, so that they lie below one."""

        centre: float = 5.0
        largest_sum: float = Field(default=4096.0, gt=0)

    @classmethod
    def sample(cls) -> Sample:
        return StockSoftmax.sample()

    @classmethod
    def reference(cls, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> torch.Tensor:
        mask = causal_mask(*inputs[0].shape[-2:], node.attrs["groups"])
        squares = (inputs[0] + cls.Params().centre).square() * mask
        return squares / squares.sum(-1, keepdim=True)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        squares = (inputs[0] + self.params.centre).square()
        squares.share = squares.share * causal_mask(*squares.size()[-2:], node.attrs["groups"]).long()
        return squares * self._inverse(squares.sum(-1, keepdim=True))

    @abstractmethod
    def _inverse(self, total: Any) -> Any:
        """Of sums [..., 1]."""


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


class FourierSwiGLU(Operator):
    """silu(g) · u with sigmoid(g) = 1/2 + a sine series where |g| < cut, and 0 or 1 beyond, by comparison."""

    name, op = "fourier.swiglu", "swiglu"
    source = "SecFormer (ACL Findings 2024), section 3, and SHAFT (NDSS 2025), section 4: Fourier activations"
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
        bits, series = bits_of(gate), self._series()
        beyond = crypten.stack([gate + self.params.cut, self.params.cut - gate])._ltz()
        below, above = beyond[0], beyond[1]
        made = evaluate(gate.share.reshape(-1), bits, series, TRIG_BITS, PUBLIC_BITS)
        share = truncated_locally(made, TRIG_BITS + PUBLIC_BITS, bits, size=1.0).reshape(gate.size())
        inside = wrap(share, bits) + 0.5
        sigmoid = inside * (1 - below - above) + above
        return gate * sigmoid * up

    def _series(self) -> Series:
        p = self.params
        return fit_exactly("sigmoid_odd", -p.cut, p.cut, Period(p.log_period), TRIG_BITS, p.terms)


class OdeSoftmax(Operator):
    """Euler's steps of the differential equation whose value at time one is the softmax:
    y += (s - <s, y>) y / n, from y uniform over the keys that the mask lets through.
    """

    name, op = "shaft.softmax", "softmax"
    priced_by = ("spread",)
    source = "SHAFT (Kei & Chow, NDSS 2025), section 4; Zheng et al., softmax as an ODE"
    domain = "spread of a row's scores below the number of steps"
    error = 2.5e-3

    class Params(Params):
        """``steps``: None takes the calibrated spread times ``margin``, but at least 16 as in the paper."""

        steps: int | None = Field(default=None, ge=1)
        margin: float = 1.25

    @classmethod
    def sample(cls) -> Sample:
        sample = StockSoftmax.sample()
        sample.node.attrs["range"]["spread"] = [0.0, 16.0]
        return sample

    @classmethod
    def reference(cls, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> torch.Tensor:
        steps = cls(cls.Params())._steps(node)
        mask = causal_mask(*inputs[0].shape[-2:], node.attrs["groups"])
        y, s = mask / mask.sum(-1, keepdim=True), inputs[0]
        for _ in range(steps):
            y = y + (s - (s * y).sum(-1, keepdim=True)) * y / steps
        return y

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        return self._steps(node) * (price.mul(n) + price.mul(n))

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        steps, s = self._steps(node), inputs[0]
        mask = causal_mask(*s.size()[-2:], node.attrs["groups"])
        y = s * 0 + mask / mask.sum(-1, keepdim=True)
        for _ in range(steps):
            y = y + (s - (s * y).sum(-1, keepdim=True)) * y * (1 / steps)
        return y

    def _steps(self, node: Node) -> int:
        return self.params.steps or max(16, math.ceil(span(node, "spread")[1] * self.params.margin))


OPERATORS = (Quad, TwoQuad, GoldschmidtTwoQuad, FourierSwiGLU, OdeSoftmax)

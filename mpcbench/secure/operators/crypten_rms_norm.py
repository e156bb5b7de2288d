"""RMSNorm with stock CrypTen's inverse square root, brought into the range where that is right.

``inv_sqrt`` starts from an exponential and takes three Newton steps; it is right on about [0.1, 150] and
silently wrong elsewhere. Mean squares in a real Llama lie between 0.007 and more than a million. Because
x / rms(x) does not change when x is scaled, every norm gets a public scale (one for the first position,
whose attention sink is thousands of times larger than the rest, one for all others) and a number of
Newton steps, both derived from the mean squares seen in calibration.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from mpcbench.cost import crypten as price
from mpcbench.cost.declared import Cost
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape
from mpcbench.secure.operators.limits import Seen, Violation, outside_margin
from mpcbench.secure.operators.ranges import span

TOLERANCE = 1e-3
"""Relative error of the inverse square root that a plan aims at."""


class Plan(NamedTuple):
    """Scale for mean squares, Newton steps, and the relative error that they leave on the range."""

    scale: float
    iterations: int
    error: float


@lru_cache(maxsize=1024)
def plan(low: float, high: float, exp_iterations: int, bits: int, iterations: int | None = None) -> Plan:
    """The fewest Newton steps, and the scale, that are right on mean squares from ``low`` to ``high``.

    Tried by emulating CrypTen's iteration with ``bits`` fraction bits on 33 points of the range.
    """
    points = torch.logspace(0, 1, 33, base=max(high / low, 1.0001), dtype=torch.float64)
    candidates = [iterations] if iterations else range(3, 15)
    best = Plan(1.0, 3, math.inf)
    tops = torch.logspace(-2, 2.2, 43, dtype=torch.float64)
    x = points * (tops / points[-1])[:, None]
    for steps in candidates:
        errors = (_emulate(x, exp_iterations, steps, bits) * x.sqrt() - 1).abs().amax(1).tolist()
        error = min(errors)
        if error < best.error:
            best = Plan(float(tops[errors.index(error)]) / high, steps, error)
        if best.error < TOLERANCE:
            break
    return best


def _emulate(x: torch.Tensor, exp_iterations: int, steps: int, bits: int) -> torch.Tensor:
    """CrypTen's inv_sqrt in float64, cut to ``bits`` fraction bits after every operation."""

    def cut(value: torch.Tensor) -> torch.Tensor:
        return (value * 2.0**bits).floor() / 2.0**bits

    y = 1 - cut((x / 2 + 0.2) / 2**exp_iterations)
    for _ in range(exp_iterations):
        y = cut(y * y)
    y = cut(y * 2.2) + 0.2 - cut(x / 1024)
    for _ in range(steps):
        y = cut(cut(y * (3 - cut(x * cut(y * y)))) / 2)
    return torch.nan_to_num(y, nan=math.inf)


class RMSNorm(Operator):
    """x̂ = scale · x, then x̂ · inv_sqrt(mean(x̂²) + eps), then the gain if it did not fold."""

    name, op = "crypten.rms_norm", "rms_norm"
    priced_by = ("first", "rest")
    source = "RMSNorm (Zhang & Sennrich, NeurIPS 2019); approximations.py: inv_sqrt"
    domain = "mean squares within calibration, widened by margin on both sides"
    error = 2.5e-3

    class Params(Params):
        """``margin``: factor by which calibrated mean squares are widened; ``sqrt_nr_iters``: Newton
        steps, None to derive them."""

        exp_iterations: int = 8
        sqrt_nr_iters: int | None = None
        margin: float = 2.0

    @classmethod
    def sample(cls) -> Sample:
        x = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(6))
        x = x * torch.tensor([900.0, 0.3, 1, 2, 4, 0.5])[:, None]
        squares = x.pow(2).mean(-1).flatten()
        ranges = {
            "first": [float(squares[0])] * 2,
            "rest": [float(squares[1:].min()), float(squares[1:].max())],
        }
        return Sample(Node("y", cls.op, attrs={"eps": 1e-6, "range": ranges}), [x])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        rows = n // inputs[0][-1]
        root = price.inv_sqrt(rows, self.params.exp_iterations, self._plans(node)[1].iterations)
        gain = price.mul(n, weights[0][0]) if weights else Cost()
        return price.square(n) + root + price.mul(n, rows) + gain

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        x = inputs[0]
        first, rest = self._plans(node)
        shape = [1, x.size(1), *[1] * (x.dim() - 2)]
        scales = torch.full(shape, rest.scale)
        scales[:, 0] = first.scale
        x = x * scales.sqrt()
        squares = x.square().mean(-1, keepdim=True) + node.attrs["eps"] * scales
        y = x * squares.inv_sqrt()
        return y * weights[0] if weights else y

    def settings(self, node: Node) -> Mapping[str, Any]:
        return {
            "functions.exp_iterations": self.params.exp_iterations,
            "functions.sqrt_nr_iters": self._plans(node)[1].iterations,
        }

    def violation(self, node: Node, seen: Seen) -> Violation | None:
        return outside_margin(node, seen, self.params.margin)

    def _plans(self, node: Node) -> tuple[Plan, Plan]:
        """Plans for the first position and for the rest, with the same number of steps."""
        p, widen = self.params, self.params.margin
        seen = (span(node, name) for name in ("first", "rest"))
        first, rest = ((low / widen, high * widen) for low, high in seen)
        how = (p.exp_iterations, self.bits)
        steps = p.sqrt_nr_iters or max(plan(*ends, *how).iterations for ends in (first, rest))
        return plan(*first, *how, steps), plan(*rest, *how, steps)


OPERATORS = (RMSNorm,)

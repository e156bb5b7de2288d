"""Gated linear units on stock CrypTen: SwiGLU, and what replaces it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mpcbench.compat import import_crypten
from mpcbench.cost import crypten as price
from mpcbench.cost.declared import Cost
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape
from mpcbench.secure.operators.limits import Measured, Plain, Seen, Violation, at_positions, beyond, exp_reach

RANGES = {"gate": [0.0, 8.0], "up": [0.0, 4.0], "product": [0.0, 32.0]}
"""What calibration would say of the samples, for operators that need it."""


def _gate_and_up() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    gate = torch.linspace(-8, 8, 4 * 48).reshape(1, 4, 48)
    return [gate, torch.randn(1, 4, 48, generator=generator)]


class StockGLU(Operator):
    """What is measured of a unit on stock CrypTen: its products before they are cut."""

    products = ("output", "power")

    def room(self, node: Node) -> float:
        return 2.0 ** (63 - 2 * self.bits)

    def measured(self, node: Node, inputs: Plain, weights: Plain, result: torch.Tensor) -> Measured:
        return {"output": result, "power": self.power(node, inputs[0], weights)}

    def power(self, node: Node, gate: torch.Tensor, weights: Plain) -> torch.Tensor:
        """The largest product on the way."""
        return gate.square()


class SwiGLU(StockGLU):
    """silu(g) · u, where silu(g) = g · sigmoid(g) and the sigmoid is CrypTen's reciprocal method.

    CrypTen runs that method with settings of its own, whatever its configuration says: 9 squarings for
    the reciprocal (unused, the start is public) and 3 Newton steps.
    """

    name, op = "crypten.swiglu", "swiglu"
    source = "SwiGLU (Shazeer, 2020); CrypTen, section 4.2; approximations.py: sigmoid"
    domain = "|g| < 2^i (1 + 2^(-(f+1) / 2^i)) for i = exp_iterations: 500 for i = 8, f = 16"
    error = 2e-2

    class Params(Params):
        """``exp_iterations``: squarings in exp (CrypTen's default 8)."""

        exp_iterations: int = 8

    @classmethod
    def sample(cls) -> Sample:
        return Sample(Node("y", cls.op, attrs={"range": RANGES}), _gate_and_up())

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        return price.sigmoid(n, self.params.exp_iterations) + 2 * price.mul(n)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        gate, up = inputs
        return gate * gate.sigmoid() * up

    def violation(self, node: Node, seen: Seen) -> Violation | None:
        _, most = exp_reach(self.params.exp_iterations, self.bits)
        return beyond(seen, at_positions(["gate"]), most) or super().violation(node, seen)

    def power(self, node: Node, gate: torch.Tensor, weights: Plain) -> torch.Tensor:
        return gate

    def settings(self, node: Node) -> Mapping[str, Any]:
        return {"functions.exp_iterations": self.params.exp_iterations}


class QuadraticGLU(StockGLU):
    """(g² + d) · u with the coefficients folded into the weights: one square, one product."""

    name, op = "crypten.quadratic_glu", "quadratic_glu"
    source = "folding: mpcbench/graph/fold.py; beaver.py: square, mul"
    domain = "g² + d < 2^15, product < 2^15"
    error = 5e-3

    @classmethod
    def sample(cls) -> Sample:
        offsets = torch.linspace(-2, 2, 48)
        return Sample(Node("y", cls.op, weights=("d",), attrs={"range": RANGES}), _gate_and_up(), [offsets])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        return price.square(n) + price.mul(n)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        gate, up = inputs
        return (gate.square() + weights[0]) * up

    def power(self, node: Node, gate: torch.Tensor, weights: Plain) -> torch.Tensor:
        return gate.square() + weights[0]


class PolynomialGLU(StockGLU):
    """p_j(g) · u with secret coefficients, for degrees 2 to 4 that do not fold.

    Powers by squarings and one product, all multiplied with their coefficients in one round.
    """

    name, op = "crypten.polynomial_glu", "polynomial_glu"
    source = "beaver.py: square, mul"
    domain = "g^degree < 2^15, product < 2^15"
    error = 5e-2

    @classmethod
    def sample(cls) -> Sample:
        gate, up = _gate_and_up()
        generator = torch.Generator().manual_seed(4)
        coefficients = torch.randn(5, 48, generator=generator) * torch.tensor([1, 1, 0.3, 0.1, 0.02])[:, None]
        node = Node("y", cls.op, weights=("c",), attrs={"degree": 4})
        return Sample(node, [gate / 2, up], [coefficients])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n, degree = math.prod(inputs[0]), weights[0][0] - 1
        powers = price.square(n)
        if degree == 3:
            powers += price.mul(n)
        if degree == 4:
            # One batch holds g² · g and g² · g²: both operands are opened in full.
            powers += price.mul(2 * n)
        terms = price.mul(degree * n, degree * weights[0][1], degree * n)
        return powers + terms + price.mul(n)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        crypten = import_crypten()
        gate, up = inputs
        coefficients = weights[0]
        powers = [gate, gate.square()]
        if coefficients.size(0) == 4:
            powers.append(powers[1] * gate)
        if coefficients.size(0) == 5:
            higher = crypten.stack([powers[1], powers[1]]) * crypten.stack([gate, powers[1]])
            powers += [higher[0], higher[1]]
        terms = crypten.stack(powers) * coefficients[1:].reshape(-1, *[1] * (gate.dim() - 1), gate.size(-1))
        return (terms.sum(0) + coefficients[0]) * up

    def power(self, node: Node, gate: torch.Tensor, weights: Plain) -> torch.Tensor:
        return gate ** (weights[0].size(0) - 1)


class NestedGLU(StockGLU):
    """Cubics and quartics whose coefficients fold (graph/nested.py): squarings and products one by one."""

    name, op = "crypten.nested_glu", "nested_glu"
    source = "folding: mpcbench/graph/nested.py; beaver.py: square, mul"
    domain = "(g² + e)² < 2^15, product < 2^15"
    error = 5e-2

    @classmethod
    def sample(cls) -> Sample:
        gate, up = _gate_and_up()
        weights = [torch.linspace(low, high, 48) for low, high in ((-3, 1), (-1, 1), (-2, 2))]
        node = Node("y", cls.op, weights=("e", "m", "n"), attrs={"degree": 4, "range": RANGES})
        return Sample(node, [gate / 3, up], weights)

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        if node.attrs["degree"] == 3:
            return price.square(n) + price.mul(n) + price.mul(n)
        return price.square(n) + price.square(n) + price.mul(n, weights[1][0]) + price.mul(n)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        gate, up = inputs
        square = gate.square() + weights[0]
        if node.attrs["degree"] == 3:
            return (square * gate + weights[1]) * up
        return (square.square() + gate * weights[1] + weights[2]) * up

    def power(self, node: Node, gate: torch.Tensor, weights: Plain) -> torch.Tensor:
        square = gate.square() + weights[0]
        return square * (gate if node.attrs["degree"] == 3 else square)


OPERATORS = (SwiGLU, QuadraticGLU, PolynomialGLU, NestedGLU)

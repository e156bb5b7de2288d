"""Folded cubics and quartics in two rounds, and polynomials that do not fold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from mpcbench.cost.declared import FREE, Cost, dealt, narrow_opening
from mpcbench.graph.nested import MAX_CENTRE
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.opening import CUT_BITS, CUT_BYTES, Cut, open_under, repeated
from mpcbench.secure.operators.base import Sample, Shape
from mpcbench.secure.operators.crypten_glu import NestedGLU as StockNestedGLU
from mpcbench.secure.operators.crypten_glu import PolynomialGLU as StockPolynomialGLU
from mpcbench.secure.operators.frontier_glu import OneRound
from mpcbench.secure.operators.masked_linear import MaskedWeight, mask_cost, mask_weight
from mpcbench.secure.operators.ranges import largest, seen
from mpcbench.secure.randomness.activations import NestedGLU as Recipe
from mpcbench.secure.randomness.activations import nested_values
from mpcbench.secure.ring import bits_of, plus, rescaled, truncated_locally, wrap
from mpcbench.secure.substrate import provider


class NestedGLU(OneRound):
    """((g² + e)² + m g + n) u, or ((g² + e) g + n) u: g and u are opened, then w = g² + e.

    All three opened values and m, n, whose masks are opened once, multiply out to what the dealer shares.
    """

    name, op = "frontier.nested_glu", "nested_glu"
    source = "folding: mpcbench/graph/nested.py; openings of x - r for powers: HoneyBadgerMPC (CCS 2019)"
    domain = "|g|, |u| within calibration times margin; the value below 2^(62 - 3 input_bits)"
    error = 8e-2

    @classmethod
    def sample(cls) -> Sample:
        return StockNestedGLU.sample()

    def unusable(self) -> str | None:
        return self._needs()

    def load(self, node: Node, name: str, share: torch.Tensor, bits: int) -> Any:
        """e is added and needs no mask; m loses the bits that the products have no room for."""
        place = node.weights.index(name)
        if place == 0:
            return wrap(share, bits)
        if place == 1 and len(node.weights) == 3:
            return mask_weight(node, share, bits, min(bits, self.params.input_bits))
        return mask_weight(node, share, bits)

    def setup_cost(self, node: Node, name: str, shape: Shape) -> Cost:
        return mask_cost(math.prod(shape)) if node.weights.index(name) else FREE

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        values = n * nested_values(node.attrs["degree"] == 4)
        return narrow_opening(2 * n, CUT_BYTES) + narrow_opening(n, CUT_BYTES) + dealt("nested_glu", values)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        operands, bits = self._operands(node, inputs), self.params.input_bits
        cuts = [each.cut for each in operands]
        shares = [each.share.reshape(-1, each.share.shape[-1]) for each in operands]
        reach = (largest(node, "gate") * self.params.margin) ** 2 + MAX_CENTRE
        lift = max(0, CUT_BITS - bits)
        inner = Cut(bits + lift, reach * 2.0 ** (2 * bits + lift), cuts[0].checked, width=CUT_BYTES)
        recipe = Recipe(
            size=tuple(shares[0].shape), shifts=(cuts[0].shift, cuts[1].shift, inner.shift),
            constants=tuple(weight.number for weight in weights[1:]),
        )  # fmt: skip
        centre = rescaled(weights[0].share, bits_of(weights[0]), 2 * bits)

        def step(again: bool) -> torch.Tensor:
            tuples = provider().request(recipe, again)
            x, y = open_under(shares, tuples, cuts)
            a, square = tuples[3], tuples[6]
            w = plus(2 * x * a + square + centre, x * x)
            (z,) = open_under([w << lift], tuples[2:], [inner])
            return _combined(x, y, z, tuples[3:], weights[1:], bits)

        return wrap(repeated(step).reshape(inputs[0].size()), 3 * bits)


def _combined(
    x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, values: list[torch.Tensor],
    constants: Sequence[MaskedWeight], bits: int,
) -> torch.Tensor:  # fmt: skip
    """What multiplies out, with 3 ``bits`` fraction bits: z is the opened part of w = z + W."""
    a, b, w, _, ab, bw, bn, *rest = values
    n = constants[-1]
    n_mask = _mask_share(n)
    constant = plus(y * n_mask + n.difference * b + bn, n.difference * y) << (2 * bits - n.bits)
    if len(constants) == 1:  # w g u
        aw, abw = rest
        product = z * x * b + z * y * a + x * y * w + z * ab + x * bw + y * aw + abw
        return plus(product, z * x * y) + constant
    ww, bww, am, bm, abm = rest
    m, e = constants[0], constants[0].difference
    m_mask = _mask_share(m)
    square = plus(y * (2 * z * w + ww) + z * z * b + 2 * z * bw + bww, z * z * y)
    linear = plus(
        x * y * m_mask + e * (x * b + y * a + ab) + x * bm + y * am + abm, e * x * y
    )  # fmt: skip
    return square + (linear << (bits - m.bits)) + constant


def _mask_share(weight: MaskedWeight) -> torch.Tensor:
    """This party's share of the mask of an opened weight."""
    return weight.share - plus(torch.zeros_like(weight.difference), weight.difference)


class PolynomialGLU(StockPolynomialGLU):
    """p_j(g) · u with explicit coefficients, for layers that do not fold: CrypTen's way, on values that are
    cut locally to CrypTen's fraction bits first."""

    name = "frontier.polynomial_glu"
    domain = "g^degree < 2^15, product < 2^15; fails with probability |v| 2^(2f-64) an element"

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        wanted = bits_of(weights[0])
        cut = [
            wrap(truncated_locally(value.share, bits_of(value), wanted, seen(node, name)), wanted)
            for name, value in zip(("gate", "up"), inputs, strict=True)
        ]
        return super().run(node, cut, weights)


OPERATORS = (NestedGLU, PolynomialGLU)

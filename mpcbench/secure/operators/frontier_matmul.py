"""Products of two activations, and RoPE, where values keep their bits and openings cut them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from mpcbench.cost.declared import FREE, Cost, dealt, narrow_opening
from mpcbench.graph.interpreter import rope_tables, rotated
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.opening import CUT_BYTES, Cut, opened
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape
from mpcbench.secure.operators.frontier_cache import product as cached_product
from mpcbench.secure.operators.ranges import operand
from mpcbench.secure.randomness.linear import Matmul as MatmulRecipe
from mpcbench.secure.randomness.linear import scattered, seen_entries, seen_positions
from mpcbench.secure.ring import bits_of, plus, wrap

SCALE_BITS = 12
"""Bits that a public factor takes that is no power of two."""


def _values(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Matmul(Operator):
    """Batched x y: both are opened in one round, cut to ``input_bits``; the product keeps its bits.

    Behind a causal softmax (``attrs["groups"]``) only the entries of x that the mask lets through are
    opened: the others are zero, and both parties know it. Where y is cached (``attrs["slot"]``), of y only
    the rows or columns are opened that are new (:mod:`mpcbench.secure.operators.frontier_cache`). With
    ``attrs["normed"]`` y was normalised beside the scores (:mod:`mpcbench.secure.operators.frontier_normed`).
    """

    name, op = "frontier.matmul", "matmul"
    source = "Beaver (CRYPTO 1991); truncation with the opening: secure/opening.py"
    domain = "|x|, |y| within calibration times margin; |x y| < 2^(63 - 2 input_bits)"
    error = 2e-3
    ranges = ("left", "right")

    class Params(Params):
        """``input_bits``: fraction bits to which both operands are cut (rows behind a prefix's to as many as
        those have); ``margin``: factor by which their calibrated magnitudes may be left; ``truncation``:
        ``checked`` cannot fail, ``local`` can."""

        input_bits: int = Field(default=15, ge=6, le=24)
        margin: float = 2.0
        truncation: str = Field(default="checked", pattern="^(checked|local)$")

    @classmethod
    def sample(cls) -> Sample:
        ranges = {"left": [0.0, 5.0], "right": [0.0, 5.0]}
        node = Node("y", cls.op, attrs={"groups": 3, "range": ranges})
        left = _values(1, 2, 24, 10)
        left.reshape(2, -1)[
            :, [i for i in range(240) if i not in set(seen_positions(24, 10, 3).tolist())]
        ] = 0
        return Sample(node, [left, _values(1, 2, 10, 8, seed=3)])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        left, right = inputs
        batch, groups = math.prod(left[:-2]), node.attrs.get("groups", 0)
        entries = seen_entries(left[-2], left[-1], groups) if groups else left[-2] * left[-1]
        tokens = right[-2] if groups else right[-1]
        fresh = right[-2] * right[-1] // tokens * (tokens - node.attrs.get("past", 0))
        sent = batch * (entries + fresh)
        products = batch * left[-2] * right[-1]
        kind = "cached_matmul" if "slot" in node.attrs else "matmul"
        return narrow_opening(sent, CUT_BYTES) + dealt(kind, products, sent + products)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        if node.attrs.get("normed"):
            inputs = [inputs[0], inputs[1].normed]
        p, cache = self.params, getattr(inputs[1], "cache", None)
        bits = [p.input_bits, cache.past.bits if cache and cache.past else p.input_bits]
        operands = [
            operand(node, name, x, wanted, p.margin, p.truncation == "checked")
            for name, x, wanted in zip(("left", "right"), inputs, bits, strict=True)
        ]
        left, right = (each.share.reshape(-1, *each.share.shape[-2:]) for each in operands)
        cuts = [each.cut for each in operands]
        if cache is not None:
            result = cached_product(node, left, right, cache, cuts, bits[1])
        else:
            result = self._product(node, left, right, cuts)
        return _scaled(result.reshape(*inputs[0].size()[:-1], -1), sum(bits), node.attrs.get("scale"))

    def room(self, node: Node) -> float:
        scale = node.attrs.get("scale") or 1.0
        return scale * 2.0 ** (63 - 2 * self.params.input_bits - (SCALE_BITS if _is_no_power(scale) else 0))

    def _product(self, node: Node, left: torch.Tensor, right: torch.Tensor, cuts: list[Cut]) -> torch.Tensor:
        groups = node.attrs.get("groups", 0)
        recipe = MatmulRecipe(
            left=tuple(left.shape), right=tuple(right.shape), shifts=tuple(how.shift for how in cuts),
            causal=groups,
        )  # fmt: skip
        packed = (
            left.reshape(left.shape[0], -1)[:, seen_positions(*left.shape[1:], groups)] if groups else left
        )
        (x, y), (_, _, a, b, product) = opened(recipe, [packed, right], cuts)
        if groups:
            x, a = scattered(x, tuple(left.shape), groups), scattered(a, tuple(left.shape), groups)
        # (x + a)(y + b): the party that adds the public product computes x (y + b) in one go.
        return torch.matmul(x, plus(b, y)) + torch.matmul(a, y) + product


def _scaled(share: torch.Tensor, bits: int, scale: float | None) -> Any:
    """A public factor that did not fold into the weights: powers of two are free, others cost bits."""
    if scale is None or scale == 1:
        return wrap(share, bits)
    mantissa, exponent = math.frexp(scale)
    if not _is_no_power(scale):
        return wrap(share, bits + 1 - exponent)
    return wrap(share * round(mantissa * 2.0**SCALE_BITS), bits + SCALE_BITS - exponent)


def _is_no_power(scale: float) -> bool:
    return math.frexp(scale)[0] != 0.5


class Rope(Operator):
    """Rotary embedding with public tables of ``table_bits``; nothing is cut, so nothing is sent or fails."""

    name, op = "frontier.rope", "rope"
    source = "RoFormer (Su et al., 2021), section 3.2.2; linearity of additive sharing"
    domain = "|x| < 2^(62 - bits of x - table_bits)"
    error = 5e-3

    class Params(Params):
        """``table_bits``: fraction bits of cos and sin."""

        table_bits: int = Field(default=11, ge=6, le=20)

    @classmethod
    def sample(cls) -> Sample:
        frequencies = 10000.0 ** (-torch.arange(0, 8, 2) / 8)
        return Sample(Node("y", cls.op, attrs={"scale": 1.0}), [_values(1, 3, 7, 8) * 5], [frequencies])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        return FREE

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        x = inputs[0].share
        tables = rope_tables(weights[0], x.shape[-2], node.attrs["scale"], node.attrs.get("start", 0))
        bits = self.params.table_bits
        cos, sin = ((table.double() * 2.0**bits).round().long() for table in tables)
        return wrap(rotated(x, cos, sin), bits_of(inputs[0]) + bits)


OPERATORS = (Matmul, Rope)

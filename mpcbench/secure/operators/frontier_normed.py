"""Attention's scores with the RMSNorm in front put off (:mod:`mpcbench.graph.deferral`).

Round 1 opens x, from which both parties have shares of its projections and of its sum of squares. Round 2
opens queries, keys, values and the sums. Round 3 opens the products q kᵀ and the inverse roots r, and the
dealer's products of masks make r_i r_j q_i k_jᵀ and r_j v_j of them. Norm, projections and scores apart
take five rounds and open x twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field

from mpcbench.cost.declared import RING_BYTES, Cost, dealt, narrow_opening
from mpcbench.errors import UserError
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.evaluate import combined
from mpcbench.secure.opening import CUT_BITS, CUT_BYTES, EXACT, Cut, open_under, repeated
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape
from mpcbench.secure.operators.inverse_root import (
    NORM_BITS,
    NORM_BYTES,
    PUBLIC_BITS,
    TRIG_BITS,
    Layout,
    layout,
)
from mpcbench.secure.operators.limits import Seen, Violation, beyond_margin, outside_margin
from mpcbench.secure.operators.masked_linear import FrontierLinear, read
from mpcbench.secure.operators.ranges import magnitude
from mpcbench.secure.randomness.attention import ROOM, pairs, products, rotation, turned
from mpcbench.secure.randomness.attention import NormedScores as Recipe
from mpcbench.secure.randomness.linear import scattered
from mpcbench.secure.ring import bits_of, plus, rescaled, wrap
from mpcbench.secure.series import COARSE
from mpcbench.secure.substrate import provider

SCORE_BITS, SPARE_BITS = 9, 4
"""Fraction bits of a score between the smallest rows (others have more), and how many it can do without."""


@dataclass(frozen=True)
class Formats:
    """By how many bits projections are lifted, the fraction bits of opened values, and how they are cut."""

    lift: int
    operand_bits: int
    score_bits: int
    root_bits: int
    operands: list[Cut]
    later: list[Cut]

    @property
    def shifts(self) -> tuple[int, int, int]:
        """Of projections, scores and roots."""
        return (self.operands[0].shift, *(cut.shift for cut in self.later))


class SumSquares(FrontierLinear):
    """The sum of x² over each row, with the one opening of x that the projections behind it share.

    The first row stands for x / 2^scale (:class:`~mpcbench.secure.operators.inverse_root.Layout`); so do the
    projections of it.
    """

    name, op = "frontier.sum_squares", "sum_squares"
    priced_by = ("first", "rest")
    source = "Beaver (CRYPTO 1991) with a fixed operand; secure/operators/masked_linear.py"
    domain = "mean squares within calibration, widened by margin on both sides"
    error = 5e-3

    class Params(Params):
        """``truncation``: ``checked`` cannot fail, ``local`` can."""

        truncation: str = Field(default="checked", pattern="^(checked|local)$")

    @classmethod
    def sample(cls) -> Sample:
        x = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(4))
        return Sample(Node("y", cls.op, attrs={"own": 0, **_norm(x)}), [x])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        rows, width = inputs[0][-2:]
        products = rows * sum(shape[0] for shape in weights)
        tuples = dealt("linear", products + rows, products + rows + rows * width)
        return narrow_opening(rows * width, NORM_BYTES) + tuples

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        x, plan = inputs[0], layout(node)
        share, bits, wanted = x.share.reshape(-1, x.size(-1)), bits_of(x), plan.plan.x_bits
        lift = max(0, wanted + NORM_BITS - bits)
        bits += lift
        shift, width = bits - wanted, share.shape[1]
        share = share << lift
        # Where the first row is cut by more bits, its rounding is made zero on average as well.
        added = (1 << shift + plan.scale) - (1 << shift)
        share[0] = plus(share[0], added)
        bound = math.sqrt(plan.high * width) * 2.0**bits
        first = (width, bound * 2.0**plan.scale + added)
        how = Cut(shift, bound, self.params.truncation == "checked", first, NORM_BYTES)
        x.reading, (mask, sums) = read(share, wanted, how, weights, plan.scale)
        public = x.reading.public
        total = 2 * (public * mask).sum(1) + sums
        return wrap(plus(total, (public * public).sum(1)).reshape(1, -1, 1), 2 * wanted)

    def violation(self, node: Node, seen: Seen) -> Violation | None:
        return outside_margin(node, seen, node.attrs["norm"]["margin"])


class NormedScores(Operator):
    """r_i r_j q_i k_jᵀ of projections of x that are not normalised yet, and on the way r_j v_j.

    The normalised values hang on the tensor of the values, as ``normed``: the product behind the softmax
    takes them from there. All openings are made under masks of one tuple.
    """

    name, op = "frontier.normed_scores", "normed_scores"
    priced_by = ("first", "rest")
    ranges = ("query", "key", "value", "scores")
    source = "Beaver (CRYPTO 1991), generalised to three factors; RoFormer (Su et al., 2021), section 3.2.2"
    domain = "mean squares, q, k, v and scores within calibration, each widened by its margin"
    error = 5e-3

    class Params(Params):
        """``margin``: factor by which calibrated mean squares are widened; ``tolerance``: relative error of
        the inverse root; ``operand_margin``: factor by which calibrated queries, keys, values and scores may
        be left; ``input_bits``: fraction bits to which the first three are cut, as normalised they would
        be; ``truncation``: ``checked`` cannot fail, ``local`` can."""

        margin: float = Field(default=1.5, ge=1.0)
        tolerance: float = Field(default=1e-4, gt=0)
        operand_margin: float = Field(default=2.0, ge=1.0)
        input_bits: int = Field(default=15, ge=6, le=20)
        truncation: str = Field(default="checked", pattern="^(checked|local)$")

    @classmethod
    def sample(cls) -> Sample:
        generator = torch.Generator().manual_seed(6)
        x = torch.randn(1, 7, 24, generator=generator)
        squares = x.square().sum(-1, keepdim=True)
        q, k, v = (torch.randn(1, heads, 7, 8, generator=generator) for heads in (4, 2, 2))
        frequencies = 10000.0 ** (-torch.arange(0, 8, 2) / 8)
        attrs = _norm(x)
        attrs["range"] |= {name: [0.0, 5.0] for name in ("query", "key", "value")} | {"scores": [-16.0, 16.0]}
        return Sample(Node("y", cls.op, attrs={"groups": 2, **attrs}), [squares, q, k, v], [frequencies])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        *_, heads, tokens, dim = inputs[2]
        recipe = self._recipe(node, inputs[1][1] // heads, (heads, tokens, dim), (0.0,) * (dim // 2))
        per_row = 2 * tokens
        first = narrow_opening(recipe.mask_words() - per_row - heads * recipe.entries, CUT_BYTES)
        second = narrow_opening(heads * recipe.entries, CUT_BYTES)
        return first + second + Cost(RING_BYTES * per_row) + dealt("normed_scores", recipe.count())

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        squares, *projected = inputs
        heads, tokens, dim = projected[1].size()[1:]
        groups = projected[0].size(1) // heads
        plan = layout(node)
        have = max(bits_of(x) for x in projected)
        formats = self._formats(node, plan, have, tokens)
        recipe = self._recipe(
            node, groups, (heads, tokens, dim), tuple(weights[0].double().tolist()), formats
        )
        shares = [
            rescaled(x.share, bits_of(x), have + formats.lift).reshape(heads, -1, dim) for x in projected
        ]
        sums = rescaled(squares.share.reshape(-1), bits_of(squares), 2 * plan.plan.x_bits)
        sums = plus(sums, _eps(node, plan, tokens))
        scores, values = repeated(
            lambda again: _steps([*shares, sums], formats, plan, recipe, provider().request(recipe, again))
        )
        projected[2].normed = wrap(values.unsqueeze(0), formats.operand_bits + formats.root_bits)
        full = scattered(scores, (heads, groups * tokens, tokens), groups)
        return wrap(full.unsqueeze(0), formats.score_bits + 2 * formats.root_bits)

    def violation(self, node: Node, seen: Seen) -> Violation | None:
        p = self.params
        return outside_margin(node, seen, p.margin) or beyond_margin(
            node, seen, self.ranges, p.operand_margin
        )

    def _recipe(
        self, node: Node, groups: int, size: tuple[int, int, int], frequencies: tuple[float, ...],
        formats: Formats | None = None,
    ) -> Recipe:  # fmt: skip
        heads, tokens, dim = size
        plan = layout(node).plan
        return Recipe(
            heads=heads, groups=groups, tokens=tokens, dim=dim, frequencies=frequencies,
            shifts=formats.shifts if formats else (ROOM, 1, 1), harmonics=plan.series.harmonics,
            log_period=plan.series.log_period + plan.square_bits, trig_bits=TRIG_BITS,
        )  # fmt: skip

    def _formats(self, node: Node, plan: Layout, have: int, tokens: int) -> Formats:
        """Fraction bits so that a normalised query and a score have what they would have elsewhere."""
        p = self.params
        checked, margin = p.truncation == "checked", p.operand_margin
        operand_bits = p.input_bits - math.floor(math.log2(plan.low) / 2)
        lift = max(0, operand_bits + ROOM - have)
        have += lift
        # A rotation can make one element of a pair larger, by the root of two.
        operands = [
            Cut(
                have - operand_bits,
                math.sqrt(2 * plan.high) * margin * magnitude(node, name) * 2.0**have,
                checked,
                width=CUT_BYTES,
            )
            for name in ("query", "key", "value")
        ]
        root_bits = plan.plan.root_bits - 1
        largest_root = 2.0**plan.plan.made_bits / math.sqrt(plan.low)
        largest_score = margin * magnitude(node, "scores")
        score_bits = _score_bits(node, plan, operand_bits, root_bits, largest_score, tokens)
        later = [
            Cut(
                2 * operand_bits - score_bits, largest_score * plan.high * 4.0**operand_bits, checked,
                width=CUT_BYTES,
            ),
            Cut(plan.plan.made_bits - root_bits, 2 * largest_root, checked),
        ]  # fmt: skip
        return Formats(lift, operand_bits, score_bits, root_bits, operands, later)


def _score_bits(
    node: Node, plan: Layout, operand_bits: int, root_bits: int, largest: float, tokens: int
) -> int:
    """Fraction bits of an unnormalised score; the softmax's tree adds one a level, and periods must fit."""
    levels = (tokens - 1).bit_length()
    room = 61 - COARSE - levels - 2 * root_bits - math.ceil(math.log2(2 * largest + 2 * math.log(tokens)))
    wanted = SCORE_BITS - math.floor(math.log2(plan.low))
    if room < wanted - SPARE_BITS:
        raise UserError(
            f"{node.module} has mean squares from {plan.low:.3g} to {plan.high:.3g}, too far apart for "
            f"{NormedScores.name} with {tokens} tokens: leave it out of the protocol file."
        )
    return min(wanted, room, 2 * operand_bits - CUT_BITS)


def _eps(node: Node, plan: Layout, tokens: int) -> torch.Tensor:
    """What is added to each row's sum of squares."""
    norm = node.attrs["norm"]
    eps = torch.full((tokens,), round(norm["eps"] * norm["width"] * 4.0**plan.plan.x_bits))
    eps[0] >>= 2 * plan.scale
    return eps


def _steps(
    values: list[torch.Tensor], formats: Formats, plan: Layout, recipe: Recipe, shares: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both rounds: shares of queries, keys, values and sums -> scores (heads, entries) and values."""
    masks, parts = shares[:6], shares[6:]
    q, k, both, v, cosines, sines, c, t, first, second, third, squared, mixed = parts
    x, y, z, sums = open_under(values, masks[:4], [*formats.operands, EXACT])
    table = rotation(recipe.frequencies, recipe.tokens)
    x, y = turned(x, table), turned(y, table)
    # (x + q)(y + k): the party that adds the public product computes x (y + k) in one go.
    scores = products(x, plus(k, y), recipe.groups) + products(q, y, recipe.groups) + both
    series = plan.plan.series
    roots = combined(sums, cosines, sines, recipe.log_period, series, TRIG_BITS, PUBLIC_BITS)
    score, root = open_under([scores, roots], masks[4:], formats.later)
    query, key = pairs(recipe.tokens, recipe.groups)
    left, right = root[query], root[key]
    shared = score * (left * t[key] + right * t[query] + squared[query, key])
    shared += left * (c * right + second) + right * first + third
    root, t = root[:, None], t[:, None]
    return plus(shared, score * left * right), plus(z * t + v * root + mixed, z * root)


def _norm(x: torch.Tensor) -> dict[str, Any]:
    """Attributes of a norm over the last dimension, as calibrated on ``x`` alone."""
    mean = x.square().mean(-1).flatten()
    seen = [float(mean.min()), float(mean.max())]
    norm = {"eps": 1e-5, "width": x.shape[-1], "margin": 1.5, "tolerance": 1e-4}
    return {"norm": norm, "range": {"first": seen, "rest": seen}}


OPERATORS = (SumSquares, NormedScores)

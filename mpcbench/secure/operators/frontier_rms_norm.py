"""RMSNorm in three rounds with one opening of x, its inverse root a trigonometric series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from mpcbench.cost.declared import RING_BYTES, Cost, dealt, narrow_opening
from mpcbench.errors import UserError
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.evaluate import combined
from mpcbench.secure.opening import Cut, open_under, repeated
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape
from mpcbench.secure.operators.crypten_rms_norm import RMSNorm as StockRMSNorm
from mpcbench.secure.operators.inverse_root import NORM_BITS, NORM_BYTES, PUBLIC_BITS, TRIG_BITS, Plan, plan
from mpcbench.secure.operators.limits import Seen, Violation, outside_margin
from mpcbench.secure.operators.ranges import span
from mpcbench.secure.randomness.activations import Norm
from mpcbench.secure.ring import bits_of, plus, rescaled, wrap
from mpcbench.secure.substrate import provider

ALIKE = 64.0
"""Mean squares of the first position and of the rest are handled together up to this ratio."""


class RMSNorm(Operator):
    """x / sqrt(mean(x²) + eps): open x; open its sum of squares; open the inverse root.

    All three are opened under masks of one tuple: the squares and the final product need no opening of
    their own, because what multiplies the opened x is known to the dealer. The product keeps its bits.
    """

    name, op = "frontier.rms_norm", "rms_norm"
    priced_by = ("first", "rest")
    source = "RMSNorm (Zhang & Sennrich, NeurIPS 2019); series: secure/evaluate.py; cut: secure/opening.py"
    domain = "mean squares within calibration, widened by margin on both sides"
    error = 2e-3

    class Params(Params):
        """``margin``: factor by which calibrated mean squares are widened; ``tolerance``: relative error
        of the inverse root; ``truncation``: ``checked`` cannot fail, ``local`` can."""

        margin: float = Field(default=1.5, ge=1.0)
        tolerance: float = Field(default=1e-4, gt=0)
        truncation: str = Field(default="checked", pattern="^(checked|local)$")

    @classmethod
    def sample(cls) -> Sample:
        return StockRMSNorm.sample()

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        *_, rows, width = inputs[0]
        tuples = 0
        for part, kind in self._kinds(node, rows, width):
            n, k = part.stop - part.start, kind.series.harmonics
            tuples += 2 * n * (width + k + 1)
        per_row = Cost(2 * RING_BYTES * rows, 2)
        return narrow_opening(rows * width, NORM_BYTES) + per_row + dealt("norm", tuples)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        if weights:
            raise UserError(f"{node.module} keeps its gain, which {self.name} does not multiply.")
        x = inputs[0]
        share, bits = x.share.reshape(-1, x.size(-1)), bits_of(x)
        kinds = self._kinds(node, *share.shape)
        parts = repeated(lambda again: self._normalised(node, share, bits, kinds, again))
        wanted = max(kind.x_bits + kind.root_bits for _, kind in kinds)
        whole = torch.cat([
            rescaled(part, kind.x_bits + kind.root_bits, wanted)
            for part, (_, kind) in zip(parts, kinds, strict=True)
        ])  # fmt: skip
        return wrap(whole.reshape(x.size()), wanted)

    def violation(self, node: Node, seen: Seen) -> Violation | None:
        return outside_margin(node, seen, self.params.margin)

    def _normalised(
        self, node: Node, share: torch.Tensor, bits: int, kinds: list[tuple[slice, Plan]], again: bool
    ) -> list[torch.Tensor]:
        """Rows of every kind at once, so that they share their rounds."""
        checked = self.params.truncation == "checked"
        tuples, values, cuts, root_cuts = [], [], [], []
        for part, kind in kinds:
            lift = max(0, kind.x_bits + NORM_BITS - bits)
            cut = Cut(
                bits + lift - kind.x_bits, self._bound(node, part, share.shape[1], bits + lift), checked,
                width=NORM_BYTES,
            )  # fmt: skip
            highest = 2.0**kind.made_bits / math.sqrt(self._lowest(node, part))
            root_cut = Cut(kind.made_bits - kind.root_bits, 2 * highest, checked)
            values.append(share[part] << lift)
            cuts.append(cut)
            root_cuts.append(root_cut)
            recipe = Norm(
                size=(part.stop - part.start, share.shape[1]), shifts=(cut.shift, root_cut.shift),
                harmonics=kind.series.harmonics, log_period=kind.series.log_period + kind.square_bits,
                trig_bits=TRIG_BITS,
            )  # fmt: skip
            tuples.append((recipe, provider().request(recipe, again)))
        return _steps(values, cuts, root_cuts, tuples, [kind for _, kind in kinds], node.attrs["eps"])

    def _kinds(self, node: Node, rows: int, width: int) -> list[tuple[slice, Plan]]:
        """The first position apart, where an attention sink makes it far larger than the rest."""
        first, rest = self._range(node, slice(0, 1)), self._range(node, slice(1, rows))
        tolerance = self.params.tolerance
        low, high = min(first[0], rest[0]), max(first[1], rest[1])
        if rows == 1 or high / low <= max(ALIKE, rest[1] / rest[0]):
            return [(slice(0, rows), plan(low, high, width, tolerance))]
        return [
            (slice(0, 1), plan(*first, width, tolerance)),
            (slice(1, rows), plan(*rest, width, tolerance)),
        ]

    def _range(self, node: Node, part: slice) -> tuple[float, float]:
        low, high = span(node, "first" if part.start == 0 else "rest")
        return low / self.params.margin + node.attrs["eps"], high * self.params.margin + node.attrs["eps"]

    def _lowest(self, node: Node, part: slice) -> float:
        return min(self._range(node, slice(start, part.stop))[0] for start in _both(part))

    def _bound(self, node: Node, part: slice, width: int, bits: int) -> float:
        """No element of a row is larger than the root of the row's sum of squares."""
        high = max(self._range(node, slice(start, part.stop))[1] for start in _both(part))
        return math.sqrt(high * width) * 2.0**bits


def _both(part: slice) -> set[int]:
    """A row of every kind that is in ``part``."""
    return {part.start, min(part.start + 1, part.stop - 1)}


def _steps(
    values: list[torch.Tensor], cuts: list[Cut], root_cuts: list[Cut],
    tuples: list[tuple[Norm, list[torch.Tensor]]], kinds: list[Plan], eps: float,
) -> list[torch.Tensor]:  # fmt: skip
    """The three openings."""
    public = open_under(values, [shares[0] for _, shares in tuples], cuts)
    squares = []
    for x, kind, (recipe, shares) in zip(public, kinds, tuples, strict=True):
        a, sums = shares[3], shares[4]
        total = 2 * (x * a).sum(1) + sums
        squares.append(plus(total, (x * x).sum(1) + round(eps * recipe.size[1] * 4.0**kind.x_bits)))
    opened = open_under(squares, [shares[1] for _, shares in tuples])
    roots = [
        combined(d, shares[5], shares[6], recipe.log_period, kind.series, TRIG_BITS, PUBLIC_BITS)
        for d, kind, (recipe, shares) in zip(opened, kinds, tuples, strict=True)
    ]
    opened = open_under(roots, [shares[2] for _, shares in tuples], root_cuts)
    results = []
    for x, root, (_, shares) in zip(public, opened, tuples, strict=True):
        a, t, product = shares[3], shares[7][:, None], shares[8]
        root = root[:, None]
        results.append(plus(x * t + root * a + product, x * root))
    return results


OPERATORS = (RMSNorm,)

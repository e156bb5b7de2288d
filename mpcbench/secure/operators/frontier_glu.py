"""Gated linear units in one round: the quadratic, and SwiGLU at the same online cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from mpcbench.cost.declared import Cost, dealt, narrow_opening
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.evaluate import amplitudes, shared_out
from mpcbench.secure.opening import (
    CUT_BYTES,
    Cut,
    Wrapped,
    enter_risk,
    may_have_wrapped,
    open_under,
    opened,
    repeated,
)
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape
from mpcbench.secure.operators.crypten_glu import QuadraticGLU as StockQuadraticGLU
from mpcbench.secure.operators.crypten_glu import SwiGLU as StockSwiGLU
from mpcbench.secure.operators.masked_linear import MaskedWeight, mask_cost, mask_weight
from mpcbench.secure.operators.ranges import Operand, largest, operand
from mpcbench.secure.randomness.activations import QuadraticGLU as QuadraticRecipe
from mpcbench.secure.randomness.activations import SwiGLU as SwiGLURecipe
from mpcbench.secure.ring import plus, rescaled, wrap
from mpcbench.secure.series import Series, fit, periods
from mpcbench.secure.substrate import provider
from mpcbench.secure.trig import combination


class OneRound(Operator):
    """Gate and up are opened together, cut to ``input_bits``; the result keeps all its bits."""

    ranges = ("gate", "up")

    class Params(Params):
        """``input_bits``: fraction bits to which gate and up are cut; ``margin``: factor by which their
        calibrated magnitudes may be left; ``truncation``: ``checked`` cannot fail, ``local`` can."""

        input_bits: int = Field(default=12, ge=6, le=16)
        margin: float = Field(default=1.25, ge=1.0)
        truncation: str = Field(default="checked", pattern="^(checked|local)$")

    def room(self, node: Node) -> float:
        return 2.0 ** (62 - 3 * self.params.input_bits)

    def _needs(self) -> str | None:
        """Why a weight cannot be added to a square, which has twice as many bits as what is opened."""
        squares = 2 * self.params.input_bits
        if self.bits <= squares:
            return None
        return (
            f"{self.name} adds weights of {self.bits} fraction bits to squares of {squares}: "
            f"set its input_bits to {(self.bits + 1) // 2} or more, or fraction_bits to fewer."
        )

    def _operands(self, node: Node, inputs: Sequence[Any]) -> list[Operand]:
        p = self.params
        return [
            operand(node, name, value, p.input_bits, p.margin, p.truncation == "checked")
            for name, value in zip(("gate", "up"), inputs, strict=True)
        ]


class QuadraticGLU(OneRound):
    """(g² + d) u with the coefficients folded into the weights; d is opened once, at setup, under a mask.

    With g = x + A, u = y + B and d = e + D, where x, y, e are open, the value is
    x² y + x² B + 2xy A + 2x AB + y A² + A² B + e y + e B + y D + D B, linear in what the dealer shares.
    """

    name, op = "frontier.quadratic_glu", "quadratic_glu"
    source = "folding: mpcbench/graph/fold.py; openings of x - r for powers: HoneyBadgerMPC (CCS 2019)"
    domain = "|g|, |u| within calibration times margin; the value below 2^(62 - 3 input_bits)"
    error = 4e-2

    @classmethod
    def sample(cls) -> Sample:
        return StockQuadraticGLU.sample()

    def unusable(self) -> str | None:
        return self._needs()

    def load(self, node: Node, name: str, share: torch.Tensor, bits: int) -> MaskedWeight:
        return mask_weight(node, share, bits)

    def setup_cost(self, node: Node, name: str, shape: Shape) -> Cost:
        return mask_cost(math.prod(shape))

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        return narrow_opening(2 * n, CUT_BYTES) + dealt("quadratic_glu", 5 * n)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        offset: MaskedWeight = weights[0]
        operands, bits = self._operands(node, inputs), self.params.input_bits
        cuts = [each.cut for each in operands]
        lift = 2 * bits - offset.bits
        shares = [each.share.reshape(-1, each.share.shape[-1]) for each in operands]
        recipe = QuadraticRecipe(
            size=tuple(shares[0].shape),
            shifts=tuple(how.shift for how in cuts),
            offset=offset.number,
            lift=lift,
        )
        (x, y), (_, _, a, b, square, both, last) = opened(recipe, shares, cuts)
        e = offset.difference << lift
        d_mask = (offset.share << lift) - plus(torch.zeros_like(e), e)  # this party's share of D
        value = y * (2 * x * a + square + d_mask) + (x * x + e) * b + 2 * x * both + last
        value = plus(value, (x * x + e) * y)
        return wrap(value.reshape(inputs[0].size()), 3 * bits)


class SwiGLU(OneRound):
    """silu(g) u with silu(g) = g/2 + E(g), E even and a cosine series on the calibrated range.

    g is opened whole, which serves the series, and cut, which serves g/2. With u = y + B, where y is open,
    E(g) u = y E(g) + B E(g), and the dealer shares B cos kr and B sin kr beside cos kr and sin kr.
    """

    name, op = "frontier.swiglu", "swiglu"
    priced_by = ("gate",)
    source = "SwiGLU (Shazeer, 2020); series: secure/evaluate.py"
    domain = "|g| within calibration times margin; the value below 2^(62 - input_bits - series_bits)"
    error = 5e-3

    class Params(OneRound.Params):
        """Besides: ``tolerance``: error of silu; ``series_bits``: fraction bits of the dealer's cosines times
        what multiplies them."""

        tolerance: float = Field(default=2.5e-4, gt=0)
        series_bits: int = Field(default=26, ge=20, le=36)

    @classmethod
    def sample(cls) -> Sample:
        return StockSwiGLU.sample()

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        n = math.prod(inputs[0])
        tuples = n * (3 + 4 * self._series(node).harmonics)
        return narrow_opening(2 * n, CUT_BYTES) + dealt("swiglu", tuples)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        p, series, operands = self.params, self._series(node), self._operands(node, inputs)
        bits = p.series_bits
        trig, factors = shared_out(series, bits)
        shares = [each.share.reshape(-1) for each in operands]
        gate, up = (each.cut for each in operands)
        recipe = SwiGLURecipe(
            size=tuple(shares[0].shape), shifts=(gate.shift, up.shift),
            log_period=series.log_period + p.input_bits + gate.shift, trig_bits=trig, turns=series.turns,
        )  # fmt: skip
        (z, y), (_, _, a, b, both, *waves) = _opened_whole(recipe, shares, gate, up)
        x = z >> gate.shift
        linear = plus(x * b + y * a + both, x * y)
        # For the series what rounding added is taken off, and what was not sent is added on average.
        phase = (z - gate.rounding + (1 << gate.unsent) - 1) * series.turns
        even = _even_part(phase, y, b, waves, recipe.log_period, series, factors, bits)
        value = even + rescaled(linear, p.input_bits + 1, bits)
        return wrap(value.reshape(inputs[0].size()), bits + p.input_bits)

    def room(self, node: Node) -> float:
        return 2.0 ** (62 - self.params.input_bits - self.params.series_bits)

    def _series(self, node: Node) -> Series:
        reach = max(4.0, largest(node, "gate") * self.params.margin)
        # The cosines' rounding grows with the function: an error relative to its largest values will do.
        tolerance = self.params.tolerance * max(1.0, reach / 8)
        trig_bits = self.params.series_bits // 2
        return fit("silu_even", -reach, reach, periods(-reach, reach), trig_bits, tolerance)


def _opened_whole(recipe: SwiGLURecipe, shares: list, gate: Cut, up: Cut) -> tuple:
    """As :func:`~mpcbench.secure.opening.opened`, where gate is sent and checked as for its cut but not cut:
    the series needs more of it."""

    def step(again: bool) -> tuple:
        tuples = provider().request(recipe, again)
        rounded = plus(shares[0], gate.rounding)
        enter_risk(shares[:1], [gate])
        public = open_under([rounded, shares[1]], tuples, [Cut(width=gate.width), up])
        if may_have_wrapped(public[0], gate):
            raise Wrapped
        return public, tuples

    return repeated(step)


def _even_part(
    phase: torch.Tensor, y: torch.Tensor, b: torch.Tensor, waves: list[torch.Tensor], log_period: int,
    series: Series, factors: tuple[int, ...], bits: int,
) -> torch.Tensor:  # fmt: skip
    """Shares of E(g) u, with ``bits`` more fraction bits than y; ``phase`` of the first harmonic."""
    alone, times_b = combination(phase, log_period, amplitudes(series, factors), *waves)
    constant = round(series.constant * 2.0**bits)
    return plus(b * constant, y * constant) + times_b.addcmul_(y, alone)


OPERATORS = (QuadraticGLU, SwiGLU)

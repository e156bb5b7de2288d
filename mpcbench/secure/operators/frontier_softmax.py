"""Causal softmax without comparison or reciprocal: a tree of log-cosh, then one exponential."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from pydantic import Field

from mpcbench.cost.declared import Cost
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.evaluate import evaluate, trig_cost
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape
from mpcbench.secure.operators.ranges import span
from mpcbench.secure.randomness.linear import scattered, seen_entries, seen_positions
from mpcbench.secure.ring import bits_of, rescaled, wrap
from mpcbench.secure.series import COARSE, Series, fit, periods

TREE_TRIG_BITS, TREE_PUBLIC_BITS = 20, 17
EXP_TRIG_BITS, EXP_PUBLIC_BITS = 21, 16
"""Of the dealer's cosines and of what multiplies them; rounding either adds to the error of the series."""
EXP_ROOMS = (1.25, 1.5, 1.75)
"""The ends that a series of exp has to join lie far apart, so that it wants more room than others."""
SLACK = 0.25
"""How far above zero an exponent may lie, because the log of the sum is not exact."""


class Level(NamedTuple):
    """One level of the tree over all rows: which entries merge, and which pass, and in which order."""

    left: torch.Tensor
    right: torch.Tensor
    passing: torch.Tensor
    order: torch.Tensor


class Tree(NamedTuple):
    """The levels of a causal mask, and the row to which every entry belongs."""

    levels: tuple[Level, ...]
    rows: torch.Tensor


@lru_cache(maxsize=64)
def tree(rows: int, keys: int, groups: int) -> Tree:
    """Pairs of neighbours merge in every row that has more than one entry, until each row has one."""
    queries = rows // groups
    counts = [keys - queries + 1 + row % queries for row in range(rows)]
    owner = torch.repeat_interleave(torch.arange(rows), torch.tensor(counts))
    levels = []
    while max(counts) > 1:
        levels.append(_level(counts))
        counts = [(count + 1) // 2 for count in counts]
    return Tree(tuple(levels), owner)


def _level(counts: list[int]) -> Level:
    left, passing, order = [], [], []
    start = 0
    for count in counts:
        pairs = count // 2
        order += [(0, len(left) + i) for i in range(pairs)] + [(1, len(passing))] * (count % 2)
        left += range(start, start + 2 * pairs, 2)
        passing += [start + count - 1] * (count % 2)
        start += count
    # Merged entries come first, those that pass after them; `order` puts both back into their rows.
    places = [index if kind == 0 else len(left) + index for kind, index in order]
    lefts = torch.tensor(left, dtype=torch.long)
    return Level(lefts, lefts + 1, torch.tensor(passing, dtype=torch.long), torch.tensor(places))


class Softmax(Operator):
    """exp(s - log sum exp(s)), where log(e^a + e^b) = (a + b)/2 + log 2cosh((a - b)/2).

    Rounds: one a level of the tree, ceil(log2 keys), and one for the exponential. Each opens differences
    alone, and only entries that the mask lets through. Nothing needs to be cut between rounds.
    """

    name, op = "frontier.softmax", "softmax"
    priced_by = ("spread",)
    source = "log-sum-exp; series: secure/evaluate.py"
    domain = "scores of one row within the calibrated spread times margin"
    error = 1e-3
    ranges = ("spread",)

    class Params(Params):
        """``margin``: factor on the calibrated spread; ``tolerance``: error of a level's log-cosh, and of
        the exponential."""

        margin: float = Field(default=1.25, ge=1.0)
        tolerance: float = Field(default=1e-4, gt=0)
        exp_tolerance: float = Field(default=2e-5, gt=0)

    @classmethod
    def sample(cls) -> Sample:
        scores = torch.randn(1, 2, 16, 8, generator=torch.Generator().manual_seed(5)) * 3
        ranges = {"scores": [float(scores.min()), float(scores.max())], "spread": [0.0, 16.0]}
        return Sample(Node("y", cls.op, attrs={"groups": 2, "range": ranges}), [scores])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        *batch, rows, keys = inputs[0]
        times = math.prod(batch)
        log_cosh, exp = self._series(node, keys)
        entries = times * seen_entries(rows, keys, node.attrs["groups"])
        merges = entries - times * rows  # a row of n entries takes n - 1
        tree, last = trig_cost(merges, log_cosh), trig_cost(entries, exp)
        return replace(tree, rounds=(keys - 1).bit_length()) + last  # a round each level

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        scores, groups = inputs[0], node.attrs["groups"]
        rows, keys = scores.size()[-2:]
        plan = tree(rows, keys, groups)
        log_cosh, exp = self._series(node, keys)
        flat = scores.share.reshape(-1, rows * keys)[:, seen_positions(rows, keys, groups)]
        bits = bits_of(scores)
        total, total_bits = flat, bits
        for level in plan.levels:
            total, total_bits = _merged(total, total_bits, level, log_cosh)
        flat = rescaled(flat, bits, max(bits, total_bits))
        total = rescaled(total, total_bits, max(bits, total_bits))
        exponent = (flat - total[:, plan.rows]).reshape(-1)
        value = evaluate(exponent, max(bits, total_bits), exp, EXP_TRIG_BITS, EXP_PUBLIC_BITS)
        full = scattered(value.reshape(flat.shape), (flat.shape[0], rows, keys), groups)
        return wrap(full.reshape(scores.size()), EXP_TRIG_BITS + EXP_PUBLIC_BITS)

    def _series(self, node: Node, keys: int) -> tuple[Series, Series]:
        spread = _step(max(1.0, span(node, "spread")[1] * self.params.margin + math.log(keys)))
        p = self.params
        choice = periods(-spread, spread, fine=COARSE)
        log_cosh = fit("log_cosh", -spread, spread, choice, TREE_TRIG_BITS, p.tolerance)
        low, high = -spread, SLACK
        exp = fit("exp", low, high, periods(low, high, EXP_ROOMS, COARSE), EXP_TRIG_BITS, p.exp_tolerance)
        return log_cosh, exp


def _step(value: float) -> float:
    """The next of four steps to the octave, so that many layers share a series."""
    return 2.0 ** (math.ceil(4 * math.log2(value)) / 4)


def _merged(total: torch.Tensor, bits: int, level: Level, series: Series) -> tuple[torch.Tensor, int]:
    """One level: (batch, entries) -> (batch, fewer entries), with the fraction bits of the result."""
    left, right = total[:, level.left], total[:, level.right]
    difference = (left - right).reshape(-1)
    made = TREE_TRIG_BITS + TREE_PUBLIC_BITS
    log_cosh = evaluate(difference, bits, series, TREE_TRIG_BITS, TREE_PUBLIC_BITS).reshape(left.shape)
    wanted = max(bits + 1, made)
    # (a + b)/2 has one more fraction bit than a + b.
    merged = rescaled(left + right, bits + 1, wanted) + rescaled(log_cosh, made, wanted)
    passing = rescaled(total[:, level.passing], bits, wanted)
    return torch.cat([merged, passing], dim=1)[:, level.order], wanted


OPERATORS = (Softmax,)

"""Randomness of attention's scores where the norm in front is multiplied in last."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from mpcbench.secure.randomness.linear import Shift, seen_entries, seen_positions
from mpcbench.secure.randomness.recipe import Kept, Recipe, Size
from mpcbench.secure.randomness.series import Harmonics, LogPeriod, TrigBits
from mpcbench.secure.trig import circle, waves

TABLE_BITS = 14
"""Fraction bits of the rotations' cosines and sines."""
ROOM = TABLE_BITS + 2
"""By so many bits at least a value is cut before it is turned."""
TURN_BITS = 48
"""Angles are multiples of 2^-48 of a turn."""


class NormedScores(Recipe):
    """For scores r_i r_j q_i k_jᵀ and values r_j v_j, where the root r comes from a row's sum of squares.

    Masks: of queries (heads, groups * tokens, dim), keys and values (heads, tokens, dim), squares (tokens);
    and, for the second round, of the unnormalised scores that a causal mask lets through (heads, entries)
    and of the roots (tokens). With Q, K, V, C, T cut by ``shifts`` (projections, scores, roots), and Q, K
    rotated, the values are Q, K, Q Kᵀ, V; cos and sin of all harmonics of the squares' mask; C, T, and for
    entry (i, j) C T_i, C T_j and C T_i T_j; T_i T_j (tokens, tokens); and V T_j.

    ``frequencies``: the rotations' angle a position, in radians, one for every two dimensions.
    """

    kind: ClassVar[str] = "normed_scores"
    heads: Annotated[int, Field(ge=1, le=1 << 16)]
    groups: Annotated[int, Field(ge=1, le=1 << 16)]
    tokens: Annotated[int, Field(ge=1, le=1 << 20)]
    dim: Annotated[int, Field(ge=2, le=1 << 16)]
    frequencies: tuple[Annotated[float, Field(ge=0, le=4)], ...]
    shifts: tuple[Shift, Shift, Shift]
    harmonics: Harmonics
    log_period: LogPeriod
    trig_bits: TrigBits

    @property
    def rows(self) -> int:
        """Rows of one head's scores."""
        return self.groups * self.tokens

    @property
    def entries(self) -> int:
        """How many of one head's scores the mask lets through."""
        return seen_entries(self.rows, self.tokens, self.groups)

    def masks(self) -> list[Size]:
        keys, scores = (self.heads, self.tokens, self.dim), (self.heads, self.entries)
        return [(self.heads, self.rows, self.dim), keys, keys, (self.tokens,), scores, (self.tokens,)]

    def values(self) -> list[Size]:
        queries, keys, _, row, scores, _ = self.masks()
        waves = (self.harmonics, self.tokens)
        pairs = (self.tokens, self.tokens)
        return [queries, keys, scores, keys, waves, waves, scores, row, scores, scores, scores, pairs, keys]

    def count(self) -> int:
        return sum(math.prod(size) for size in self.values())

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        if 2 * len(self.frequencies) != self.dim or self.shifts[0] < ROOM:
            raise ValueError("a rotation turns pairs of dimensions, and needs room")
        *projected, squares, scores, roots = masks
        q, k, v = (mask >> self.shifts[0] for mask in projected)
        table = rotation(self.frequencies, self.tokens)
        q, k = turned(q, table), turned(k, table)
        c, t = scores >> self.shifts[1], roots >> self.shifts[2]
        of_sums = waves(squares, self.log_period, [self.trig_bits] * self.harmonics)
        query, key = pairs(self.tokens, self.groups)
        first, second = c * t[query], c * t[key]
        return [
            q, k, products(q, k, self.groups), v, *of_sums, c, t, first, second,
            first * t[key], t[:, None] * t, v * t[:, None],
        ]  # fmt: skip


@lru_cache(maxsize=16)
def pairs(tokens: int, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of the query and of the key of every entry that a causal mask lets through."""
    seen = seen_positions(groups * tokens, tokens, groups)
    return seen // tokens % tokens, seen % tokens


def products(queries: torch.Tensor, keys: torch.Tensor, groups: int) -> torch.Tensor:
    """q kᵀ of (heads, groups * tokens, dim) and (heads, tokens, dim): the entries that are let through."""
    rows, tokens = queries.shape[1], keys.shape[1]
    whole = torch.matmul(queries, keys.transpose(1, 2))
    return whole.reshape(len(whole), -1)[:, seen_positions(rows, tokens, groups)]


@lru_cache(maxsize=16)
def rotation(frequencies: tuple[float, ...], tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of every position's angles, (tokens, dim / 2), as integers with ``TABLE_BITS`` bits.

    Parties and dealer must have the same to the last bit: phases are integers, cosines those of
    :mod:`mpcbench.secure.trig`.
    """
    steps = torch.tensor([round(f * (2.0**TURN_BITS / (2 * math.pi))) for f in frequencies])
    phases = torch.arange(tokens)[:, None] * steps
    cos, sin = circle(phases & ((1 << TURN_BITS) - 1), TURN_BITS)
    return tuple(wave.mul(2.0**TABLE_BITS).round().long() for wave in (cos, sin))


def turned(values: torch.Tensor, table: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Llama's rotation (RoFormer, section 3.2.2) of integers (heads, groups * tokens, dim), rounded.

    An opened difference and its mask may be turned and rounded apart, because they add up to the value over
    the integers, with no wrap (:mod:`mpcbench.secure.opening`). |value| < 2^(64 - ROOM).
    """
    cos, sin = table
    first, second = values.reshape(len(values), -1, *cos.shape[:1], values.shape[-1]).chunk(2, dim=-1)
    both = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return ((both + (1 << (TABLE_BITS - 1))) >> TABLE_BITS).reshape(values.shape)

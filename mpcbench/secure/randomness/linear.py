"""Randomness of products with weights whose mask has been opened once, and of products of activations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from mpcbench.secure.randomness.recipe import Kept, Recipe, Size

Shift = Annotated[int, Field(ge=0, le=62)]


class WeightMask(Recipe):
    """B, the mask of a weight, which the dealer keeps: later products name it by this request's number."""

    kind: ClassVar[str] = "weight"
    kept: ClassVar[bool] = True
    size: Size

    def masks(self) -> list[Size]:
        return [self.size]

    def values(self) -> list[Size]:
        return []

    def count(self) -> int:
        return math.prod(self.size)

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        return []


class Linear(Recipe):
    """r, A = r >> shift and A B for the masks B of all weights that multiply the same activation.

    ``size`` is (m, k), ``columns`` the n of every B, which is (k, n). With ``squares`` the sums of A² over
    each row come last. The first row is cut by ``first`` bits more.
    """

    kind: ClassVar[str] = "linear"
    size: tuple[int, int]
    weights: tuple[int, ...]
    columns: tuple[int, ...]
    shift: Shift = 0
    squares: bool = False
    first: Shift = 0

    def masks(self) -> list[Size]:
        return [self.size]

    def values(self) -> list[Size]:
        products = [(self.size[0], n) for n in self.columns]
        return [self.size] * bool(self.shift) + products + [self.size[:1]] * self.squares

    def count(self) -> int:
        return self.size[0] * (sum(self.columns) + self.squares)

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        cut = masks[0] >> self.shift
        cut[:1] >>= self.first
        products = [_matmul(cut, kept.get(number)) for number in self.weights]
        if [product.shape[1] for product in products] != list(self.columns):
            raise ValueError("the masks of the weights have other shapes")
        return [cut] * bool(self.shift) + products + [(cut * cut).sum(1)] * self.squares

    def finish(self, shares: list[torch.Tensor], differences: Mapping[int, torch.Tensor]) -> None:
        """At a party: add A E to its shares of every A B, in place, where E = W - B is open and so are all
        ``differences``, by the numbers of the weights."""
        mask, *products = shares[1:] if self.shift else shares
        for number, product in zip(self.weights, products, strict=False):
            product += _matmul(mask, differences[number])


class Matmul(Recipe):
    """r, s, A = r >> shifts[0], B = s >> shifts[1] and A B, where the opened entries of A may be a part.

    ``left`` (batch, m, k), ``right`` (batch, k, n). With ``causal`` g, A has rows of g groups of queries,
    of which row i sees the first k - m/g + i keys alone: only those entries are masked and opened, as one
    flat vector, and A is zero elsewhere.
    """

    kind: ClassVar[str] = "matmul"
    left: tuple[int, int, int]
    right: tuple[int, int, int]
    shifts: tuple[Shift, Shift] = (0, 0)
    causal: Annotated[int, Field(ge=0, le=1 << 16)] = 0

    def masks(self) -> list[Size]:
        batch, rows, keys = self.left
        if not self.causal:
            return [self.left, self.right]
        return [(batch, seen_entries(rows, keys, self.causal)), self.right]

    def values(self) -> list[Size]:
        return [*self.masks(), (*self.left[:2], self.right[2])]

    def count(self) -> int:
        return math.prod(self.values()[2])

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        cut = [mask >> shift for mask, shift in zip(masks, self.shifts, strict=True)]
        left = scattered(cut[0], self.left, self.causal) if self.causal else cut[0]
        return [*cut, torch.matmul(left, cut[1])]


class CachedRows(Recipe):
    """r and B = r >> shift for the rows of a prefix: they begin the cache of :class:`CachedMatmul`."""

    kind: ClassVar[str] = "cached_rows"
    size: tuple[int, int, int]
    shift: Shift
    slot: Annotated[int, Field(ge=0)]
    dim: Literal[1, 2]

    def masks(self) -> list[Size]:
        return [self.size]

    def values(self) -> list[Size]:
        return [self.size]

    def count(self) -> int:
        return math.prod(self.size)

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        return [kept.joined(self.slot, 0, masks[0] >> self.shift, self.dim)]


class CachedMatmul(Recipe):
    """As :class:`Matmul`, where only the last rows or columns of B are new and masked afresh.

    ``fresh`` is their shape; ``past`` others, along ``dim`` (1 or 2), were cut and masked by earlier requests
    of the same ``slot``, and the dealer has kept their masks. Each opened value is so masked once: what was
    opened stays as it is and multiplies another A, under a fresh mask, in every step.
    """

    kind: ClassVar[str] = "cached_matmul"
    left: tuple[int, int, int]
    fresh: tuple[int, int, int]
    shifts: tuple[Shift, Shift] = (0, 0)
    causal: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    slot: Annotated[int, Field(ge=0)]
    past: Annotated[int, Field(ge=0)]
    dim: Literal[1, 2]

    def whole(self) -> Matmul:
        """The same product without a cache."""
        right = list(self.fresh)
        right[self.dim] += self.past
        return Matmul(left=self.left, right=tuple(right), shifts=self.shifts, causal=self.causal)

    def masks(self) -> list[Size]:
        return [self.whole().masks()[0], self.fresh]

    def values(self) -> list[Size]:
        return [*self.masks(), self.whole().values()[2]]

    def count(self) -> int:
        return self.whole().count()

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        a, fresh = (mask >> shift for mask, shift in zip(masks, self.shifts, strict=True))
        left = scattered(a, self.left, self.causal) if self.causal else a
        return [a, fresh, torch.matmul(left, kept.joined(self.slot, self.past, fresh, self.dim))]


def seen_positions(rows: int, keys: int, groups: int) -> torch.Tensor:
    """Flat indices, ascending, of what a causal mask lets through in (rows, keys); the last query sees all.

    ``rows`` are ``groups`` times the queries. With more keys than queries the first keys are a prefix
    that every query sees.
    """
    queries = rows // groups
    mask = torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries).repeat(groups, 1)
    return mask.reshape(-1).nonzero().reshape(-1)


def seen_entries(rows: int, keys: int, groups: int) -> int:
    """How many entries :func:`seen_positions` names."""
    queries = rows // groups
    return groups * (queries * (keys - queries) + queries * (queries + 1) // 2)


def scattered(flat: torch.Tensor, size: tuple[int, int, int], groups: int) -> torch.Tensor:
    """(batch, entries) -> ``size``, zero where the causal mask hides."""
    batch, rows, keys = size
    full = torch.zeros(batch, rows * keys, dtype=torch.int64)
    full[:, seen_positions(rows, keys, groups)] = flat
    return full.reshape(size)


def _matmul(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    return torch.mv(right.t(), left[0]).unsqueeze(0) if left.shape[0] == 1 else left @ right

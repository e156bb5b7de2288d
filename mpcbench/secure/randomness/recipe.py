"""A recipe: one kind of correlated randomness, as data that a dealer can check and follow.

A tuple has *masks*, which are uniform, and *values*, which follow from the masks. Each party expands its
share of the masks from its own seed; party 0 expands its share of the values as well; party 1's share of
the values is what the dealer sends, the correction. A party so learns its own shares and nothing else.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field

from mpcbench.cost.declared import RING_BYTES

Size = tuple[Annotated[int, Field(ge=0)], ...]
MAX_WORDS = 1 << 31
"""No request may ask for more masks or values than this (16 GiB)."""


class Recipe(BaseModel, ABC):
    """What one request asks for. Subclasses add fields, which are public shapes and formats."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: ClassVar[str]
    mask_bits: ClassVar[int] = 64
    xor_masks: ClassVar[bool] = False
    xor_values: ClassVar[bool] = False
    kept: ClassVar[bool] = False
    """Whether the dealer remembers the masks, which later requests name by this request's number."""

    @abstractmethod
    def masks(self) -> list[Size]:
        """Shapes of the uniform masks, in the order in which they are opened under."""

    @abstractmethod
    def values(self) -> list[Size]:
        """Shapes of what follows from the masks."""

    @abstractmethod
    def count(self) -> int:
        """How many tuples a ledger counts for this request."""

    @property
    def name(self) -> str:
        """What a ledger calls these tuples."""
        return self.kind

    @abstractmethod
    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        """The values from the masks, in the clear: the dealer's work. Raises ValueError for nonsense."""

    def mask_words(self) -> int:
        """Ring elements of all masks together."""
        return _total(self.masks())

    def mask_bytes(self) -> int:
        """What the masks of one party would take without a seed."""
        return RING_BYTES * self.mask_words()

    def value_words(self) -> int:
        """Ring elements of all values together."""
        return _total(self.values())


class Kept:
    """Masks that a dealer remembers between requests, by the number of the request that made them."""

    def __init__(self) -> None:
        self._masks: dict[int, torch.Tensor] = {}
        self._rows: dict[int, torch.Tensor] = {}

    def put(self, number: int, mask: torch.Tensor) -> None:
        """Remember a mask."""
        self._masks[number] = mask

    def get(self, number: int) -> torch.Tensor:
        """The mask of request ``number``; raises ValueError when there is none."""
        if number not in self._masks:
            raise ValueError(f"no mask was kept for request {number}")
        return self._masks[number]

    def joined(self, slot: int, past: int, fresh: torch.Tensor, dim: int) -> torch.Tensor:
        """``fresh`` behind the first ``past`` of what ``slot`` holds along ``dim``; the slot then holds all.

        A step that is made again so takes the place of its first attempt. Raises ValueError when the slot
        holds fewer, or others.
        """
        rows = fresh
        if past:
            held = self._rows.get(slot)
            if held is None or held.dim() != fresh.dim() or held.shape[dim] < past:
                raise ValueError(f"cache {slot} does not hold {past} rows")
            rows = torch.cat([held.narrow(dim, 0, past), fresh], dim)
        self._rows[slot] = rows
        return rows


def split(flat: torch.Tensor, sizes: Sequence[Size]) -> list[torch.Tensor]:
    """Consecutive parts of ``flat`` in the given shapes."""
    parts, start = [], 0
    for size in sizes:
        end = start + math.prod(size)
        parts.append(flat[start:end].reshape(size))
        start = end
    return parts


def narrowed(recipe: Recipe, flat: torch.Tensor) -> torch.Tensor:
    """Random words cut to the width of the recipe's masks."""
    return flat if recipe.mask_bits == 64 else flat & ((1 << recipe.mask_bits) - 1)


def joined(first: torch.Tensor, second: torch.Tensor, xor: bool) -> torch.Tensor:
    """What two shares hide."""
    return first ^ second if xor else first + second


def _total(sizes: Sequence[Size]) -> int:
    return sum(math.prod(size) for size in sizes)

"""The tuples that CrypTen's own protocols use (``crypten/mpc/primitives/beaver.py``)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch

from mpcbench.secure.randomness.recipe import Kept, Recipe, Size


class _OfTwo(Recipe):
    """Two masks and what an operation makes of them."""

    op: str
    left: Size
    right: Size

    def masks(self) -> list[Size]:
        return [self.left, self.right]

    def values(self) -> list[Size]:
        return [product_size(self.left, self.right, self.op)]

    def count(self) -> int:
        return math.prod(self.values()[0])


class Product(_OfTwo):
    """a, b and op(a, b): a Beaver triple (CRYPTO 1991) of elementwise or matrix products."""

    kind: ClassVar[str] = "product"
    op: Literal["mul", "matmul"]

    @property
    def name(self) -> str:
        return f"{self.op}_triple"

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        return [getattr(torch, self.op)(*masks)]


class Square(Recipe):
    """r and r²."""

    kind: ClassVar[str] = "square"
    size: Size

    def masks(self) -> list[Size]:
        return [self.size]

    def values(self) -> list[Size]:
        return [self.size]

    def count(self) -> int:
        return math.prod(self.size)

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        return [masks[0] * masks[0]]


class And(_OfTwo):
    """Exclusive-or shares of a, b and a & b for 64-bit words."""

    kind: ClassVar[str] = "and"
    xor_masks: ClassVar[bool] = True
    xor_values: ClassVar[bool] = True
    op: Literal["mul"] = "mul"

    @property
    def name(self) -> str:
        return "binary_triple"

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        return [masks[0] & masks[1]]


class Bit(Recipe):
    """One bit, shared by exclusive or and by addition."""

    kind: ClassVar[str] = "bit"
    mask_bits: ClassVar[int] = 1
    xor_masks: ClassVar[bool] = True
    size: Size

    def masks(self) -> list[Size]:
        return [self.size]

    def values(self) -> list[Size]:
        return [self.size]

    def count(self) -> int:
        return math.prod(self.size)

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        return [masks[0]]


def product_size(left: Size, right: Size, op: str) -> Size:
    """Shape of ``torch.mul`` or ``torch.matmul`` for operands of at least two dimensions.

    Raises ValueError for another operation, or when the shapes do not fit.
    """
    try:
        if op == "mul":
            return tuple(torch.broadcast_shapes(left, right))
        if op == "matmul" and len(left) > 1 and len(right) > 1 and left[-1] == right[-2]:
            return (*torch.broadcast_shapes(left[:-2], right[:-2]), left[-2], right[-1])
    except RuntimeError:
        pass
    raise ValueError(f"no triple for {op} of {tuple(left)} and {tuple(right)}")

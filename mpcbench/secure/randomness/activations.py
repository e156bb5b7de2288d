"""Randomness of whole layers that open their inputs once: RMSNorm and gated linear units."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from mpcbench.secure.randomness.linear import Shift
from mpcbench.secure.randomness.recipe import Kept, Recipe, Size
from mpcbench.secure.randomness.series import MOST_HARMONICS, Harmonics, LogPeriod, TrigBits, Turns
from mpcbench.secure.trig import waves


class Norm(Recipe):
    """Of masks r (rows, width) for x, q (rows) for its sum of squares and t (rows) for the inverse root:
    A = r >> shifts[0], the sums of A², cos and sin of all harmonics of q, T = t >> shifts[1], and A T.
    """

    kind: ClassVar[str] = "norm"
    size: tuple[int, int]
    shifts: tuple[Shift, Shift]
    harmonics: Harmonics
    log_period: LogPeriod
    trig_bits: TrigBits

    def masks(self) -> list[Size]:
        return [self.size, self.size[:1], self.size[:1]]

    def values(self) -> list[Size]:
        rows = self.size[:1]
        return [self.size, rows, (self.harmonics, *rows), (self.harmonics, *rows), rows, self.size]

    def count(self) -> int:
        return 2 * self.size[0] * (self.size[1] + self.harmonics + 1)

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        a, t = masks[0] >> self.shifts[0], masks[2] >> self.shifts[1]
        of_sums = waves(masks[1], self.log_period, [self.trig_bits] * self.harmonics)
        return [a, (a * a).sum(1), *of_sums, t, a * t[:, None]]


class QuadraticGLU(Recipe):
    """A = r >> shifts[0], B = s >> shifts[1], A², A B and A² B + (D B << lift), D being a kept mask (width).

    ``size`` is (rows, width). The last value serves (g² + d) u where d is opened once under D.
    """

    kind: ClassVar[str] = "quadratic_glu"
    size: tuple[int, int]
    shifts: tuple[Shift, Shift]
    offset: Annotated[int, Field(ge=0)]
    lift: Shift

    def masks(self) -> list[Size]:
        return [self.size, self.size]

    def values(self) -> list[Size]:
        return [self.size] * 5

    def count(self) -> int:
        return 5 * self.size[0] * self.size[1]

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        a, b = (mask >> shift for mask, shift in zip(masks, self.shifts, strict=True))
        square, both = a * a, a * b
        return [a, b, square, both, a * both + (kept.get(self.offset) * b << self.lift)]


class SwiGLU(Recipe):
    """A = r >> shifts[0], B = s >> shifts[1], A B; cos and sin of all harmonics of r, and B times each.

    ``trig_bits``: fraction bits of the cosines and sines, harmonic by harmonic.
    """

    kind: ClassVar[str] = "swiglu"
    size: tuple[int]
    shifts: tuple[Shift, Shift]
    log_period: LogPeriod
    trig_bits: Annotated[tuple[TrigBits, ...], Field(min_length=1, max_length=MOST_HARMONICS)]
    turns: Turns = 1

    def masks(self) -> list[Size]:
        return [self.size, self.size]

    def values(self) -> list[Size]:
        return [self.size] * 3 + [(len(self.trig_bits), *self.size)] * 4

    def count(self) -> int:
        return (3 + 4 * len(self.trig_bits)) * self.size[0]

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        a, b = (mask >> shift for mask, shift in zip(masks, self.shifts, strict=True))
        of_gate = waves(masks[0] * self.turns, self.log_period, self.trig_bits)
        return [a, b, a * b, *of_gate, *(wave * b for wave in of_gate)]


class NestedGLU(Recipe):
    """For ((g² + e)² + m g + n) u, or ((g² + e) g + n) u: masks of g, u and, for the second round, g² + e.

    A, B, W are those masks cut by ``shifts``; M and N the kept masks (width) of m and n, in ``constants``.
    Values: A, B, W, A², A B, B W, B N, and for a quartic W², B W², A M, B M, A B M, for a cubic A W, A B W.
    """

    kind: ClassVar[str] = "nested_glu"
    size: tuple[int, int]
    shifts: tuple[Shift, Shift, Shift]
    constants: tuple[Annotated[int, Field(ge=0)], ...]

    def masks(self) -> list[Size]:
        return [self.size] * 3

    def values(self) -> list[Size]:
        return [self.size] * nested_values(len(self.constants) == 2)

    def count(self) -> int:
        return len(self.values()) * self.size[0] * self.size[1]

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        a, b, w = (mask >> shift for mask, shift in zip(masks, self.shifts, strict=True))
        *middle, n = (kept.get(number) for number in self.constants)
        common = [a, b, w, a * a, a * b, b * w, b * n]
        if not middle:
            return [*common, a * w, a * b * w]
        m = middle[0]
        return [*common, w * w, b * w * w, a * m, b * m, a * b * m]


def nested_values(quartic: bool) -> int:
    """How many values a :class:`NestedGLU` has for every element."""
    return 12 if quartic else 9


class Products(Recipe):
    """A = r >> shifts[0], B = s >> shifts[1] and A B, elementwise."""

    kind: ClassVar[str] = "products"
    op: Literal["mul"] = "mul"
    size: tuple[int, ...]
    shifts: tuple[Shift, Shift]

    def masks(self) -> list[Size]:
        return [self.size, self.size]

    def values(self) -> list[Size]:
        return [self.size] * 3

    def count(self) -> int:
        return 3 * torch.Size(self.size).numel()

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        a, b = (mask >> shift for mask, shift in zip(masks, self.shifts, strict=True))
        return [a, b, a * b]

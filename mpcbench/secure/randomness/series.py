"""Randomness of trigonometric series: shares of cos and sin of all harmonics of a mask."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from mpcbench.secure.randomness.recipe import Kept, Recipe, Size
from mpcbench.secure.trig import PHASE_BITS, PHASE_BYTES, waves

MOST_HARMONICS = 1024
Harmonics = Annotated[int, Field(ge=1, le=MOST_HARMONICS)]
LogPeriod = Annotated[int, Field(ge=3, le=64)]
TrigBits = Annotated[int, Field(ge=4, le=30)]
Turns = Annotated[int, Field(ge=1, le=1 << 16)]


class Trig(Recipe):
    """r, a phase, and for k = 1 to K the cosine and sine of k r with ``trig_bits`` fraction bits.

    r is uniform modulo 2^24, which is a whole turn, so that the phase of x less r says nothing of x.
    """

    kind: ClassVar[str] = "trig"
    mask_bits: ClassVar[int] = PHASE_BITS
    size: tuple[int]
    harmonics: Harmonics
    trig_bits: TrigBits

    def masks(self) -> list[Size]:
        return [self.size]

    def values(self) -> list[Size]:
        return [(self.harmonics, *self.size)] * 2

    def count(self) -> int:
        return 2 * self.harmonics * self.size[0]

    def mask_bytes(self) -> int:
        return PHASE_BYTES * self.mask_words()

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        return waves(masks[0], PHASE_BITS, [self.trig_bits] * self.harmonics)

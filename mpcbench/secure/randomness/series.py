"""Randomness of trigonometric series: shares of cos and sin of all harmonics of a mask."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field

from mpcbench.secure.randomness.recipe import Kept, Recipe, Size
from mpcbench.secure.trig import chunks, harmonics

Harmonics = Annotated[int, Field(ge=1, le=1024)]
LogPeriod = Annotated[int, Field(ge=3, le=64)]
TrigBits = Annotated[int, Field(ge=4, le=30)]
Turns = Annotated[int, Field(ge=1, le=1 << 16)]


class Trig(Recipe):
    """r and, for k = 1 to K, cos and sin of 2 pi k turns r / 2^log_period with ``trig_bits`` fraction bits.

    r is uniform in the whole ring, which whole periods fill, so that x - r says nothing of x.
    """

    kind: ClassVar[str] = "trig"
    size: tuple[int]
    harmonics: Harmonics
    log_period: LogPeriod
    trig_bits: TrigBits
    turns: Turns = 1

    def masks(self) -> list[Size]:
        return [self.size]

    def values(self) -> list[Size]:
        return [(self.harmonics, *self.size)] * 2

    def count(self) -> int:
        return 2 * self.harmonics * self.size[0]

    def derive(self, masks: list[torch.Tensor], kept: Kept) -> list[torch.Tensor]:
        cosines, sines = (torch.empty(size, dtype=torch.int64) for size in self.values())
        for part in chunks(self.size[0], self.harmonics):
            waves = harmonics(masks[0][part], self.log_period, self.harmonics, self.turns)
            for out, wave in zip((cosines, sines), waves, strict=True):
                out[:, part] = wave.mul_(2.0**self.trig_bits).round_()
        return [cosines, sines]

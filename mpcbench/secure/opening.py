"""Masked openings, and truncation that comes with them at no cost.

A value y with too many fraction bits is opened under a uniform mask r of the whole ring: z = y - r. Both
z >> s and r >> s are then known where they are needed, one to both parties and one to the dealer, and
(z >> s) + (r >> s) is y >> s to within one unit, unless z + r has left the range of signed 64-bit numbers.
When can it have? Only if |z| >= 2^63 - |y|, where y includes what is added to it and not sent of it (below).
Both parties see z and know a bound on |y|, so both see when it may have happened, which says nothing about y
because z is uniform. They then open again under a fresh mask. So truncation costs nothing beyond an opening
that is needed anyway, and never fails unnoticed: while the bound B holds it cannot fail, and an element asks
for a repetition with probability B 2^-63. (Where the bound does not hold it still fails with probability
|y| 2^-64 only, as local truncation always does.)

The low bits of z are not looked at, so they need not be sent either. Of a value with 16 bits to lose each
party sends the six highest bytes of its share: the sum is less by up to two units of the last bit sent.

Adding 2^s - 1, and half of such a unit, before makes the error of all roundings zero on average; its standard
deviation is 0.41 units where nothing else is lost, 0.5 at most where as many bits are dropped as are cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from mpcbench.cost.declared import RING_BYTES
from mpcbench.secure.randomness.recipe import Recipe
from mpcbench.secure.ring import plus
from mpcbench.secure.substrate import communicator, provider

T = TypeVar("T")
CUT_BYTES = 6
"""Bytes that are sent of an element that is cut by :data:`CUT_BITS` or more."""
CUT_BITS = 8 * (RING_BYTES - CUT_BYTES)
MAX_ATTEMPTS = 40
"""An opening that asks for more repetitions has a bound that is far too large."""


class Wrapped(Exception):
    """An opened difference lies so close to the ring's edge that truncating it could fail."""


@dataclass(frozen=True)
class Cut:
    """How an opened value is truncated: by ``shift`` bits, knowing that its integer is below ``bound``.

    ``first`` are a number of leading elements and a bound of their own. ``width`` bytes of it are sent, which
    may leave out bits that are cut away, and no others.

    ``checked=False`` leaves out the check, as local truncation does: it then fails, unnoticed, with about
    half the probability with which the check would have asked for a repetition.
    """

    shift: int = 0
    bound: float = 2.0**55
    checked: bool = True
    first: tuple[int, float] | None = None
    width: int = RING_BYTES

    @property
    def unsent(self) -> int:
        """How many low bits are not sent."""
        return 8 * (RING_BYTES - self.width)

    @property
    def rounding(self) -> int:
        """What is added before, so that the opened value and its mask, both cut, are right on average."""
        return (1 << self.shift) - 1 + (1 << self.unsent >> 1) if self.shift else 0

    @property
    def margin(self) -> int:
        """By how much what is opened may be off the value: what is added before, and what is not sent."""
        return self.rounding + 2 * (1 << self.unsent)

    def reach(self) -> tuple[int, int, int]:
        """A number of leading elements, how large what is opened of them may be, and of all others."""
        elements, bound = self.first or (0, 0.0)
        return elements, math.ceil(bound) + self.margin, math.ceil(self.bound) + self.margin


EXACT = Cut()


def opened(
    recipe: Recipe, values: Sequence[torch.Tensor], cuts: Sequence[Cut] | None = None
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Open ``values`` (shares) under all masks of the recipe, in one round, repeated where it must be.

    Returns the public differences, truncated as ``cuts`` say, and this party's shares of the tuple,
    masks first. Whatever the recipe derives from a mask, it must derive from the mask cut alike.
    """

    def step(again: bool) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        shares = provider().request(recipe, again)
        return open_under(values, shares, cuts), shares

    return repeated(step)


def repeated(step: Callable[[bool], T]) -> T:
    """The result of ``step(again)``, which is called again with True for as long as it raises Wrapped."""
    for attempt in range(MAX_ATTEMPTS):
        try:
            with communicator().ledger.attempt():
                return step(attempt > 0)
        except Wrapped:
            communicator().guard.discard()
    where = communicator().ledger.here
    raise RuntimeError(
        f"{where} opens again and again: its calibrated range is too wide for its fraction bits"
    )


def open_under(
    values: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], cuts: Sequence[Cut] | None = None
) -> list[torch.Tensor]:
    """Open values under the first masks, in one round; raises Wrapped if a truncation might fail."""
    cuts = cuts or [EXACT] * len(values)
    rounded = [
        plus(value, cut.rounding) if cut.shift else value for value, cut in zip(values, cuts, strict=True)
    ]
    enter_risk(values, cuts)
    public = communicator().open_high(rounded, masks[: len(values)], [cut.width for cut in cuts])
    if any(may_have_wrapped(z, cut) for z, cut in zip(public, cuts, strict=True)):
        raise Wrapped
    return [z >> cut.shift if cut.shift else z for z, cut in zip(public, cuts, strict=True)]


def enter_risk(values: Sequence[torch.Tensor], cuts: Sequence[Cut]) -> None:
    """Enter how likely opening these values is to be repeated, and to fail where it is not checked."""
    ledger = communicator().ledger
    ledger.at_risk(repetition_chance(values, cuts))
    for value, cut in zip(values, cuts, strict=True):
        if cut.shift and not cut.checked and value.numel():
            ledger.cut_locally(value.numel(), 0, _reached(value, cut) / value.numel())


def repetition_chance(values: Sequence[torch.Tensor], cuts: Sequence[Cut]) -> float:
    """An upper bound on the probability that these values, opened under ``cuts``, are opened again."""
    checked = [(value, cut) for value, cut in zip(values, cuts, strict=True) if cut.shift and cut.checked]
    return min(1.0, sum(_reached(value, cut) * 2.0**-63 for value, cut in checked))


def _reached(value: torch.Tensor, cut: Cut) -> float:
    """The sum of how large each element may be, as an integer."""
    elements, first, rest = cut.reach()
    return elements * float(first) + max(0, value.numel() - elements) * float(rest)


def may_have_wrapped(z: torch.Tensor, cut: Cut) -> bool:
    """Whether an opened difference is so close to the ring's edge that truncation could fail."""
    if not cut.shift or not cut.checked or not z.numel():
        return False
    flat = z.reshape(-1)
    elements, first, rest = cut.reach()
    return _near_edge(flat[:elements], first) or _near_edge(flat[elements:], rest)


def _near_edge(z: torch.Tensor, reach: int) -> bool:
    if not z.numel():
        return False
    edge = (1 << 63) - 1 - min(reach, 1 << 62)
    low, high = torch.aminmax(z)
    return int(high) > edge or int(low) < -edge

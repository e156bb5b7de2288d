"""cos and sin of many harmonics of a phase, the same to the last bit on every machine.

Two parties multiply shares by rounded cosines of a public phase. If their roundings differed once, the
result would be a random number, so nothing here is left to a library's cosine: only additions,
subtractions, products and roundings of IEEE 754 doubles, in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

PHASE_BITS = 24
"""Where nothing but the phase of a value is opened, it is opened to so small a part of a turn."""
PHASE_BYTES = PHASE_BITS // 8

BLOCK = 1 << 17
"""Cosines worked on at a time: a few arrays of this size fit into a core's cache, and are worth a call."""

_SINE = [(-1.0) ** i / math.factorial(2 * i + 1) for i in range(9)]
_COSINE = [(-1.0) ** i / math.factorial(2 * i) for i in range(9)]


def circle(values: torch.Tensor, log_period: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of 2 pi v / 2^log_period for int64 ``values``, as float64."""
    quarter = log_period - 2
    # The nearest quarter turn and the rest of at most an eighth, exactly.
    nearest = ((values >> (quarter - 1)) + 1) >> 1 if quarter > 0 else values
    rest = values - (nearest << quarter)
    angle = rest.double() * (math.pi / 2 / 2.0**quarter)
    square = angle * angle
    sine, cosine = _polynomial(_SINE, square) * angle, _polynomial(_COSINE, square)
    turn = nearest & 3
    swapped, negative = (turn & 1).bool(), turn >= 2
    across = torch.where(swapped, -sine, cosine)
    up = torch.where(swapped, cosine, sine)
    return torch.where(negative, -across, across), torch.where(negative, -up, up)


def _polynomial(coefficients: list[float], x: torch.Tensor) -> torch.Tensor:
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value.mul_(x).add_(coefficient)
    return value


def harmonics(values: torch.Tensor, log_period: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of the 1st to the ``count``-th harmonic of ``values`` (n,), both (count, n) in float64.

    The first turns once in 2^log_period. Where it is to turn c times, c times the values are given: with a
    whole number of turns any period, to a fraction of it, divides 2^64, and c v modulo 2^64 is a phase.
    The first m give the next m by the sum of angles: few calls, and an error that grows with log count.
    """
    cosines = torch.empty(count, values.numel(), dtype=torch.float64)
    sines = torch.empty_like(cosines)
    cosines[0], sines[0] = circle(values, log_period)
    have = 1
    while have < count:
        more = min(have, count - have)
        old, new = slice(0, more), slice(have, have + more)
        cosine, sine = cosines[have - 1], sines[have - 1]
        torch.mul(cosines[old], cosine, out=cosines[new]).sub_(sines[old] * sine)
        torch.mul(sines[old], cosine, out=sines[new]).add_(cosines[old] * sine)
        have += more
    return cosines, sines


def chunks(elements: int, count: int) -> Iterator[slice]:
    """Slices of so many elements that ``count`` harmonics of them are a block."""
    size = max(1, BLOCK // count)
    for start in range(0, elements, size):
        yield slice(start, min(start + size, elements))

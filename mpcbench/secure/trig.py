"""cos and sin of many harmonics of a phase, the same to the last bit on every machine.

Two parties multiply shares by rounded cosines of a public phase. If their roundings differed once, the
result would be a random number, so nothing here is left to a library's cosine: only additions,
subtractions, products and roundings of IEEE 754 doubles, in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

CHUNK = 1 << 13
"""Elements worked on at a time: a dozen arrays of this size fit into a core's cache."""

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


def harmonics(
    values: torch.Tensor, log_period: int, count: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """cos and sin of the 1st to the ``count``-th harmonic, by Chebyshev's recurrence.

    The tensors that are yielded are overwritten two steps later.
    """
    cosine, sine = circle(values, log_period)
    twice = 2 * cosine
    before = (torch.ones_like(cosine), torch.zeros_like(sine))
    now = (cosine, sine)
    spare = (torch.empty_like(cosine), torch.empty_like(sine))
    for _ in range(count):
        yield now
        for old, new, out in zip(before, now, spare, strict=True):
            torch.mul(twice, new, out=out)
            out.sub_(old)
        before, now, spare = now, spare, before


def rounded(values: torch.Tensor, factor: float) -> torch.Tensor:
    """The nearest integers to ``factor * values``."""
    return (values * factor).round_().long()


def chunks(count: int) -> Iterator[slice]:
    """Slices of ``CHUNK`` elements."""
    for start in range(0, count, CHUNK):
        yield slice(start, min(start + CHUNK, count))

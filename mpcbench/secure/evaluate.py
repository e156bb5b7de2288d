"""A function of a shared value in one round: its trigonometric series, from one opening under a mask.

With d = x - r public, cos k(d + r) = cos kd cos kr - sin kd sin kr, and the same for sin: the series is a
public linear combination of what the dealer shares of r. Nothing is truncated: the value has
``trig_bits + public_bits`` fraction bits.

A series asks for no more of x than its phase, x modulo the period. Shares are scaled so that the ring is one
turn, which drops the bits that count whole turns; of what is left the three highest bytes are opened.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from mpcbench.cost.declared import RING_BITS, Cost, dealt
from mpcbench.secure.randomness.series import Trig
from mpcbench.secure.ring import plus
from mpcbench.secure.series import Series
from mpcbench.secure.substrate import communicator, provider
from mpcbench.secure.trig import PHASE_BITS, PHASE_BYTES, combination

LEAST_BITS = 6
"""Fraction bits that the cosines of every harmonic have."""


def phase_of(share: torch.Tensor, bits: int, series: Series) -> torch.Tensor:
    """Shares (n,) of x with ``bits`` fraction bits -> shares of its phase, of which 2^64 is a turn.

    Raises ValueError where whole periods would not fill the ring.
    """
    if series.log_period + bits > RING_BITS:
        raise ValueError(f"a period of 2^{series.log_period + bits} does not fit into the ring")
    return share * series.turns << RING_BITS - series.log_period - bits


def trig_cost(elements: int, series: Series) -> Cost:
    """Cost of :func:`evaluate` at one party."""
    return Cost(PHASE_BYTES * elements, 1) + dealt("trig", 2 * series.harmonics * elements)


def evaluate(
    share: torch.Tensor, bits: int, series: Series, trig_bits: int, public_bits: int
) -> torch.Tensor:
    """Shares (n,) of x -> shares of f(x) with ``trig_bits + public_bits`` fraction bits; one round."""
    recipe = Trig(size=(share.numel(),), harmonics=series.harmonics, trig_bits=trig_bits)
    mask, cosines, sines = provider().request(recipe)
    rounded = plus(phase_of(share, bits, series), (1 << RING_BITS - PHASE_BITS) - 1)
    (public,) = communicator().open_high([rounded], [mask], [PHASE_BYTES])
    return combined(public, cosines, sines, RING_BITS, series, trig_bits, public_bits)


def combined(
    phase: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, log_period: int, series: Series,
    trig_bits: int, public_bits: int,
) -> torch.Tensor:  # fmt: skip
    """The linear combination, once the phase is open: that of x - r, in 2^-log_period turns."""
    constant = round(series.constant * 2.0 ** (trig_bits + public_bits))
    (result,) = combination(phase, log_period, amplitudes(series, public_bits), cosines, sines)
    return plus(result, constant)


@lru_cache(maxsize=256)
def amplitudes(series: Series, bits: int | tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Of cosines and sines, scaled by 2^``bits``, which may be given harmonic by harmonic."""
    a, b = (np.ldexp(each, bits) for each in (series.cosines, series.sines))
    return a, b


@lru_cache(maxsize=256)
def shared_out(series: Series, bits: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Fraction bits of the dealer's cosines and of what multiplies them, whose sums are ``bits``.

    With t and ``bits`` - t of them rounding errs by |a| 2^-t and 2^-(bits - t) where a is the amplitude: by
    least where both are alike. Exponents are all that is asked of a, so that both parties come to the same.
    """
    sizes = (max(abs(a), abs(b), 2.0**-bits) for a, b in zip(series.cosines, series.sines, strict=True))
    trig = tuple(max(LEAST_BITS, (bits + math.frexp(size)[1]) // 2) for size in sizes)
    return trig, tuple(bits - each for each in trig)

"""A function of a shared value in one round: its trigonometric series, from one opening under a mask.

With d = x - r public, cos k(d + r) = cos kd cos kr - sin kd sin kr, and the same for sin: the series is a
public linear combination of what the dealer shares of r. Nothing is truncated: the value has
``trig_bits + public_bits`` fraction bits.

A series asks for no more of x than its phase, x modulo the period. So each party drops the bits of its share
that count whole turns, which loses nothing, and those finer than 2^-24 of a turn, which loses a carry, and
opens the three bytes between. (Local truncation fails where shares wrap around; here that is a whole turn.)
"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import torch

from mpcbench.cost.declared import RING_BITS, RING_BYTES, Cost
from mpcbench.secure.randomness.series import Trig
from mpcbench.secure.ring import plus
from mpcbench.secure.series import Series
from mpcbench.secure.substrate import communicator, provider
from mpcbench.secure.trig import PHASE_BITS, PHASE_BYTES, chunks, harmonics


def multipliers(
    phase: torch.Tensor, log_period: int, series: Series, bits: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What multiplies cos kr and sin kr: integers (harmonics, n) with ``bits`` fraction bits.

    phase: (n,), that of the opened x - r, in 2^-log_period turns of the first harmonic. Products and sums
    are apart, so that no machine fuses them.
    """
    cosine, sine = harmonics(phase, log_period, series.harmonics)
    a, b = _amplitudes(series, bits)
    if not b.any():
        to_cos, to_sin = cosine.mul_(a), sine.mul_(-a)
    else:
        to_cos, to_sin = (cosine * a).add_(sine * b), (cosine * b).sub_(sine * a)
    return to_cos.round_().long(), to_sin.round_().long()


@lru_cache(maxsize=256)
def _amplitudes(series: Series, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of cosines and sines, (harmonics, 1), scaled by 2^``bits``."""
    a, b = (torch.tensor(c, dtype=torch.float64)[:, None] * 2.0**bits for c in (series.cosines, series.sines))
    return a, b


def combination(
    to: tuple[torch.Tensor, torch.Tensor], cosines: torch.Tensor, sines: torch.Tensor
) -> torch.Tensor:
    """The sum over harmonics, (n,), of :func:`multipliers` times shares, all (harmonics, n)."""
    return (to[0] * cosines).addcmul_(to[1], sines).sum(0)


def phase_of(share: torch.Tensor, bits: int, series: Series) -> torch.Tensor:
    """Shares (n,) of x with ``bits`` fraction bits -> shares modulo 2^24 of its phase, to one unit.

    Raises ValueError where whole periods would not fill the ring.
    """
    if series.log_period + bits > RING_BITS:
        raise ValueError(f"a period of 2^{series.log_period + bits} does not fit into the ring")
    surplus = series.log_period + bits - PHASE_BITS
    turned = share * series.turns
    return plus(turned, (1 << surplus) - 1) >> surplus if surplus > 0 else turned << -surplus


def trig_cost(elements: int, series: Series) -> Cost:
    """Cost of :func:`evaluate` at one party."""
    tuples = 2 * series.harmonics * elements
    return Cost(PHASE_BYTES * elements, 1, Counter(trig=tuples), RING_BYTES * tuples)


def evaluate(
    share: torch.Tensor, bits: int, series: Series, trig_bits: int, public_bits: int
) -> torch.Tensor:
    """Shares (n,) of x -> shares of f(x) with ``trig_bits + public_bits`` fraction bits; one round."""
    recipe = Trig(size=(share.numel(),), harmonics=series.harmonics, trig_bits=trig_bits)
    mask, cosines, sines = provider().request(recipe)
    public = communicator().open_low(phase_of(share, bits, series) - mask, PHASE_BYTES)
    return combined(public, cosines, sines, PHASE_BITS, series, trig_bits, public_bits)


def combined(
    phase: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, log_period: int, series: Series,
    trig_bits: int, public_bits: int,
) -> torch.Tensor:  # fmt: skip
    """The linear combination, once the phase is open."""
    constant = round(series.constant * 2.0 ** (trig_bits + public_bits))
    result = torch.empty_like(phase)
    for part in chunks(phase.numel(), series.harmonics):
        to = multipliers(phase[part], log_period, series, public_bits)
        result[part] = combination(to, cosines[:, part], sines[:, part])
    return plus(result, constant)

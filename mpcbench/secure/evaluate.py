"""A function of a shared value in one round: its trigonometric series, from one opening under a mask.

With d = x - r public, cos k(d + r) = cos kd cos kr - sin kd sin kr, and the same for sin: the series is a
public linear combination of what the dealer shares of r. Nothing is truncated: the value has
``trig_bits + public_bits`` fraction bits.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from mpcbench.secure.opening import opened
from mpcbench.secure.randomness.series import Trig
from mpcbench.secure.ring import plus
from mpcbench.secure.series import Series
from mpcbench.secure.trig import chunks, harmonics


def multipliers(
    public: torch.Tensor, log_period: int, series: Series, bits: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What multiplies cos kr and sin kr: integers (harmonics, n) with ``bits`` fraction bits.

    public: (n,), the opened x - r. Products and sums are apart, so that no machine fuses them.
    """
    cosine, sine = harmonics(public, log_period, series.harmonics, series.turns)
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


def request(elements: int, series: Series, bits: int, trig_bits: int) -> Trig:
    """The randomness for ``elements`` values that have ``bits`` fraction bits."""
    return Trig(
        size=(elements,), harmonics=series.harmonics, log_period=series.log_period + bits,
        trig_bits=trig_bits, turns=series.turns,
    )  # fmt: skip


def evaluate(
    share: torch.Tensor, bits: int, series: Series, trig_bits: int, public_bits: int
) -> torch.Tensor:
    """Shares (n,) of x -> shares of f(x) with ``trig_bits + public_bits`` fraction bits; one round."""
    recipe = request(share.numel(), series, bits, trig_bits)
    (public,), (_, cosines, sines) = opened(recipe, [share])
    return combined(public, cosines, sines, recipe.log_period, series, trig_bits, public_bits)


def combined(
    public: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, log_period: int, series: Series,
    trig_bits: int, public_bits: int,
) -> torch.Tensor:  # fmt: skip
    """The linear combination, once the argument is open."""
    constant = round(series.constant * 2.0 ** (trig_bits + public_bits))
    result = torch.empty_like(public)
    for part in chunks(public.numel(), series.harmonics):
        to = multipliers(public[part], log_period, series, public_bits)
        result[part] = combination(to, cosines[:, part], sines[:, part])
    return plus(result, constant)

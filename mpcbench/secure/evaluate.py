"""A function of a shared value in one round: its trigonometric series, from one opening under a mask.

With d = x - r public, cos k(d + r) = cos kd cos kr - sin kd sin kr, and the same for sin: the series is a
public linear combination of what the dealer shares of r. Nothing is truncated: the value has
``trig_bits + public_bits`` fraction bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mpcbench.secure.opening import opened
from mpcbench.secure.randomness.series import Trig
from mpcbench.secure.series import Series
from mpcbench.secure.substrate import communicator
from mpcbench.secure.trig import chunks, harmonics, rounded


def multipliers(
    public: torch.Tensor, log_period: int, series: Series, bits: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """For every harmonic, what multiplies cos kr and sin kr, as integers with ``bits`` fraction bits."""
    waves = harmonics(public, log_period, series.harmonics)
    for (cosine, sine), a, b in zip(waves, series.cosines, series.sines, strict=True):
        if b == 0.0:
            yield rounded(cosine, a * 2.0**bits), rounded(sine, -a * 2.0**bits)
        elif a == 0.0:
            yield rounded(sine, b * 2.0**bits), rounded(cosine, b * 2.0**bits)
        else:
            yield (
                (cosine * (a * 2.0**bits) + sine * (b * 2.0**bits)).round_().long(),
                (cosine * (b * 2.0**bits) - sine * (a * 2.0**bits)).round_().long(),
            )


def request(elements: int, series: Series, bits: int, trig_bits: int) -> Trig:
    """The randomness for ``elements`` values that have ``bits`` fraction bits."""
    return Trig(
        size=(elements,), harmonics=series.harmonics, log_period=series.log_period + bits, trig_bits=trig_bits
    )


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
    start = constant if communicator().get_rank() == 0 else 0
    result = torch.full_like(public, start)
    for part in chunks(public.numel()):
        total = result[part]
        for k, (to_cos, to_sin) in enumerate(multipliers(public[part], log_period, series, public_bits)):
            total.addcmul_(to_cos, cosines[k, part]).addcmul_(to_sin, sines[k, part])
    return result

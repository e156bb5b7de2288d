"""Smooth functions as trigonometric series on a known interval.

f(x) ~ c + sum over k of a_k cos(2 pi k x / P) + b_k sin(2 pi k x / P) on [low, high], which is shorter than
the period P: between the interval's ends the series may do what it likes, so that it converges quickly
although f is not periodic (a Fourier extension). Coefficients come from least squares with a small ridge,
because large coefficients would amplify the rounding of the shares that they multiply.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from mpcbench.errors import UserError

HARMONICS = (*range(4, 33), *range(34, 65, 2), *range(72, 129, 8), *range(160, 385, 32), 448, 512, 640, 768)
STRIDE = 4
"""Every so many lengths one is tried, until one is enough; then those before it."""
SIZES = (32, 64, 128, 256, 384, 512, HARMONICS[-1])
"""Numbers of harmonics up to which waves are computed once for all shorter series."""
RIDGE = 1e-7
ROOMS = (1.08, 1.15, 1.25)
"""Periods over the interval (twice its far end, if even) that are tried: a short one turns fewer harmonics
into the same detail, a long one leaves them more room to join the ends."""
FINE, COARSE = 6, 2
"""log2 of the least number of turns: periods come in steps of this fraction. Fine ones take bits of the
ring; coarse ones are for values that have many themselves."""

FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    # log(e^a + e^b) = (a + b)/2 + log 2cosh((a - b)/2)
    "log_cosh": lambda x: np.logaddexp(x / 2, -x / 2),
    # silu(g) = g/2 + g/2 tanh(g/2)
    "silu_even": lambda x: x / 2 * np.tanh(x / 2),
    # sign(g) (silu(g) - relu(g)) = -g / (1 + e^|g|)
    "silu_less_relu": lambda x: -x / (1 + np.exp(np.abs(x))),
    "sigmoid_odd": lambda x: np.tanh(x / 2) / 2,
    "gelu_odd": lambda x: np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)) / 2,
}
"""The functions, by the names that :func:`fit` takes."""
_EVEN = {"log_cosh", "silu_even"}
_ODD = {"sigmoid_odd", "gelu_odd", "silu_less_relu"}
_RELATIVE = {"rsqrt", "reciprocal"}


class Period(NamedTuple):
    """2^log / turns, with whole numbers for both: multiples of it fill the ring."""

    log: int
    turns: int = 1

    @property
    def length(self) -> float:
        """As a real number."""
        return 2.0**self.log / self.turns


@dataclass(frozen=True)
class Series:
    """Coefficients of one function on one interval, and the largest error on it.

    The period is 2^log_period / turns. ``error`` is relative for rsqrt and reciprocal, else absolute. It
    holds the series' own error and three standard deviations of what the rounding of the cosines adds.
    """

    log_period: int
    turns: int
    constant: float
    cosines: tuple[float, ...]
    sines: tuple[float, ...]
    error: float

    @property
    def harmonics(self) -> int:
        """How many harmonics there are."""
        return len(self.cosines)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The series in floating point."""
        period = Period(self.log_period, self.turns).length
        angles = 2 * np.pi * np.outer(x, np.arange(1, self.harmonics + 1)) / period
        return self.constant + np.cos(angles) @ self.cosines + np.sin(angles) @ self.sines


def periods(
    low: float, high: float, rooms: tuple[float, ...] = ROOMS, fine: int = FINE
) -> tuple[Period, ...]:  # fmt: skip
    """For each room the shortest period that is so many times the interval; ``fine`` as ``FINE``."""
    found = []
    for room in rooms:
        length = room * (high - low)
        log = math.ceil(math.log2(length)) + fine
        found.append(Period(log, int(2.0**log / length)))
    return tuple(dict.fromkeys(found))


Agreement = Callable[[Callable[[], Series]], Series]


def _alone(own: Callable[[], Series]) -> Series:
    return own()


_agreement: Agreement = _alone


def agree_by(agreement: Agreement) -> None:
    """From now on take every new series from ``agreement``, which may call its argument for an own one.

    Both parties multiply shares by a series' coefficients, so that they must have the same to the last bit.
    Least squares do not give that on two machines, nor on one with two numbers of threads.
    """
    global _agreement
    _agreement = agreement


@lru_cache(maxsize=4096)
def fit(
    function: str, low: float, high: float, choice: tuple[Period, ...], trig_bits: int, tolerance: float
) -> Series:
    """The shortest series with error at most ``tolerance`` on [low, high], with any period of a choice.

    ``trig_bits`` are the fraction bits to which cosines and sines will be rounded.

    Raises UserError when the longest one is not good enough.
    """
    return _agreement(lambda: _shortest(function, low, high, choice, trig_bits, tolerance))


def _shortest(
    function: str, low: float, high: float, choice: tuple[Period, ...], trig_bits: int, tolerance: float
) -> Series:  # fmt: skip
    def with_length(period: Period, place: int) -> Series:
        return _with(function, low, high, period, trig_bits, HARMONICS[place])

    def enough(period: Period, place: int) -> bool:
        return with_length(period, place).error <= tolerance

    best = None
    for period in choice:
        end = len(HARMONICS) if best is None else HARMONICS.index(best.harmonics)
        place = _first(partial(enough, period), end)
        best = with_length(period, place) if place < end else best
    if best is None:
        least = min(with_length(period, -1).error for period in choice)
        raise UserError(
            f"No series of {HARMONICS[-1]} harmonics gives {function} on [{low:g}, {high:g}] to "
            f"{tolerance:g}: the best has an error of {least:.2g}; narrow the range or allow a larger error."
        )
    return best


def _first(enough: Callable[[int], bool], end: int) -> int:
    """The first place before ``end`` that is enough, where all after it are; else ``end``."""
    below, above = -1, min(STRIDE, end - 1)
    while above > below and not enough(above):
        below, above = above, min(above + STRIDE, end - 1)
    if above <= below:
        return end
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (below, middle) if enough(middle) else (middle, above)
    return above


@lru_cache(maxsize=4096)
def fit_exactly(
    function: str, low: float, high: float, period: Period, trig_bits: int, harmonics: int
) -> Series:
    """The series with this many harmonics, whatever its error."""
    return _agreement(lambda: _with(function, low, high, period, trig_bits, harmonics))


def _with(
    function: str, low: float, high: float, period: Period, trig_bits: int, harmonics: int
) -> Series:  # fmt: skip
    """argmin |design c - values|^2 / n + ridge^2 |c|^2 on the points of :class:`_Waves`."""
    size = next(size for size in SIZES if size >= harmonics)
    waves = _waves(function, low, high, period, size)
    kinds = len(waves.design[0]) // size  # cosines, sines or both
    chosen = [0, *(kind * size + k for kind in range(kinds) for k in range(1, harmonics + 1))]
    gram = waves.gram[np.ix_(chosen, chosen)]
    scale = np.trace(gram) / len(chosen)
    gram[np.diag_indices(len(chosen))] += RIDGE**2 * scale + 1e-15 * scale
    solution = np.linalg.solve(gram, waves.moments[chosen])
    error = float(np.abs(waves.design[:, chosen] @ solution - waves.values).max())
    zeros = (0.0,) * harmonics
    rest = solution[1:]
    cosines = zeros if function in _ODD else tuple(rest[:harmonics].tolist())
    sines = zeros if function in _EVEN else tuple(rest[-harmonics:].tolist())
    return Series(*period, float(solution[0]), cosines, sines, error + _rounding(rest, trig_bits))


def _rounding(amplitudes: np.ndarray, trig_bits: int) -> float:
    """Three standard deviations of what rounding cosines and sines to so many bits adds."""
    return 3 * float(np.linalg.norm(amplitudes)) * 2.0**-trig_bits / math.sqrt(12)


@lru_cache(maxsize=256)
def sine_series(function: str, period: Period, trig_bits: int, harmonics: int) -> Series:
    """The first terms of the Fourier series that an odd function has when it is cut to one period.

    ``error`` is that on the period, which is as long as asked and leaves no room to join its ends.
    """
    return _agreement(lambda: _sines(function, period, trig_bits, harmonics))


def _sines(function: str, period: Period, trig_bits: int, harmonics: int) -> Series:
    """b_k = 4/P times the integral of f sin(2 pi k x / P) over half a period, by the midpoint rule."""
    count = max(4096, 64 * harmonics)
    x = period.length / 2 * (np.arange(count) + 0.5) / count
    values = FUNCTIONS[function](x)
    waves = np.sin(2 * np.pi * np.outer(x, np.arange(1, harmonics + 1)) / period.length)
    sines = values @ waves * (2 / count)
    error = float(np.abs(waves @ sines - values).max()) + _rounding(sines, trig_bits)
    return Series(*period, 0.0, (0.0,) * harmonics, tuple(sines.tolist()), error)


class _Waves(NamedTuple):
    """A function on many points, and the constant, cosines (unless it is odd) and sines (unless it is even)
    of one period on them: (points, 1 + size) or (points, 1 + 2 size).

    All are weighted, so that errors count as they should. Series of any length up to ``size`` are fitted from
    ``gram`` and ``moments``, the means of products of waves, and of waves and the function.
    """

    design: np.ndarray
    values: np.ndarray
    gram: np.ndarray
    moments: np.ndarray


@lru_cache(maxsize=4)
def _waves(function: str, low: float, high: float, period: Period, size: int) -> _Waves:
    """On points that are dense at the ends and where f is steep."""
    count = max(400, 5 * size)
    x = low + (high - low) * (1 - np.cos(np.pi * (np.arange(count) + 0.5) / count)) / 2
    if function in _RELATIVE:
        x = np.concatenate([x, np.geomspace(low, high, count)])
    values = FUNCTIONS[function](x)
    weights = 1 / np.abs(values) if function in _RELATIVE else np.ones_like(values)
    angles = 2 * np.pi * np.outer(x, np.arange(1, size + 1)) / period.length
    parts = [np.ones((len(x), 1))]
    parts += [] if function in _ODD else [np.cos(angles)]
    parts += [] if function in _EVEN else [np.sin(angles)]
    design = np.concatenate(parts, axis=1)
    design, values = design * weights[:, None], values * weights
    return _Waves(design, values, design.T @ design / len(x), design.T @ values / len(x))

"""Smooth functions as trigonometric series on a known interval.

f(x) ~ c + sum over k of a_k cos(2 pi k x / P) + b_k sin(2 pi k x / P) on [low, high], which is shorter than
the period P: between the interval's ends the series may do what it likes, so that it converges quickly
although f is not periodic (a Fourier extension). Coefficients come from least squares with a small ridge,
because large coefficients would amplify the rounding of the shares that they multiply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mpcbench.errors import UserError

HARMONICS = (
    4,
    6,
    8,
    10,
    12,
    14,
    16,
    20,
    24,
    28,
    32,
    40,
    48,
    64,
    80,
    96,
    128,
    160,
    192,
    256,
    320,
    384,
    512,
    768,
)
RIDGE = 1e-7

FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "reciprocal": lambda x: 1 / x,
    # log(e^a + e^b) = (a + b)/2 + log 2cosh((a - b)/2)
    "log_cosh": lambda x: np.logaddexp(x / 2, -x / 2),
    # silu(g) = g/2 + g/2 tanh(g/2)
    "silu_even": lambda x: x / 2 * np.tanh(x / 2),
    "sigmoid_odd": lambda x: np.tanh(x / 2) / 2,
    "gelu_odd": lambda x: np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)) / 2,
}
"""The functions, by the names that :func:`fit` takes."""
_EVEN = {"log_cosh", "silu_even"}
_ODD = {"sigmoid_odd", "gelu_odd"}
_RELATIVE = {"rsqrt", "reciprocal"}


@dataclass(frozen=True)
class Series:
    """Coefficients of one function on one interval, and the largest error on it.

    ``error`` is relative for rsqrt and reciprocal, else absolute. It holds the series' own error and three
    standard deviations of what the rounding of the cosines adds.
    """

    log_period: int
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
        angles = 2 * np.pi * np.outer(x, np.arange(1, self.harmonics + 1)) / 2.0**self.log_period
        return self.constant + np.cos(angles) @ self.cosines + np.sin(angles) @ self.sines


def period_bits(low: float, high: float, room: float = 1.25) -> int:
    """log2 of the shortest power of two that is ``room`` times the interval (twice its far end, if even)."""
    return int(np.ceil(np.log2(room * (high - low))))


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
def fit(function: str, low: float, high: float, log_period: int, trig_bits: int, tolerance: float) -> Series:
    """The shortest series with error at most ``tolerance`` on [low, high], with period 2^log_period.

    ``trig_bits`` are the fraction bits to which cosines and sines will be rounded.

    Raises UserError when the longest one is not good enough.
    """
    return _agreement(lambda: _shortest(function, low, high, log_period, trig_bits, tolerance))


def _shortest(
    function: str, low: float, high: float, log_period: int, trig_bits: int, tolerance: float
) -> Series:  # fmt: skip
    best = None
    for harmonics in HARMONICS:
        best = _with(function, low, high, log_period, trig_bits, harmonics)
        if best.error <= tolerance:
            return best
    raise UserError(
        f"No series of {HARMONICS[-1]} harmonics gives {function} on [{low:g}, {high:g}] to {tolerance:g}: "
        f"the best has an error of {best.error:.2g}; narrow the range or allow a larger error."
    )


@lru_cache(maxsize=4096)
def fit_exactly(
    function: str, low: float, high: float, log_period: int, trig_bits: int, harmonics: int
) -> Series:
    """The series with this many harmonics, whatever its error."""
    return _agreement(lambda: _with(function, low, high, log_period, trig_bits, harmonics))


def _with(
    function: str, low: float, high: float, log_period: int, trig_bits: int, harmonics: int
) -> Series:  # fmt: skip
    """Least squares on points that are dense at the ends and where f is steep."""
    period = 2.0**log_period
    count = max(1200, 5 * harmonics)
    x = low + (high - low) * (1 - np.cos(np.pi * (np.arange(count) + 0.5) / count)) / 2
    if function in _RELATIVE:
        x = np.concatenate([x, np.geomspace(low, high, count)])
    values = FUNCTIONS[function](x)
    weights = 1 / np.abs(values) if function in _RELATIVE else np.ones_like(values)
    angles = 2 * np.pi * np.outer(x, np.arange(1, harmonics + 1)) / period
    parts = [np.ones((len(x), 1))]
    parts += [] if function in _ODD else [np.cos(angles)]
    parts += [] if function in _EVEN else [np.sin(angles)]
    design = np.concatenate(parts, axis=1) * weights[:, None]
    solution = _ridge(design, values * weights)
    error = float(np.abs(design @ solution - values * weights).max())
    zeros = (0.0,) * harmonics
    rest = solution[1:]
    cosines = zeros if function in _ODD else tuple(rest[:harmonics].tolist())
    sines = zeros if function in _EVEN else tuple(rest[-harmonics:].tolist())
    error += 3 * float(np.linalg.norm(rest)) * 2.0**-trig_bits / np.sqrt(12)
    return Series(log_period, float(solution[0]), cosines, sines, error)


def _ridge(design: np.ndarray, values: np.ndarray) -> np.ndarray:
    """argmin |design c - values|^2 / n + ridge^2 |c|^2, the constant included."""
    n, width = design.shape
    gram = design.T @ design / n
    scale = np.trace(gram) / width
    gram[np.diag_indices(width)] += RIDGE**2 * scale + 1e-15 * scale
    return np.linalg.solve(gram, design.T @ values / n)

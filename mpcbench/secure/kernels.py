"""Loops over shares, masks and cosines that stay in a core's cache, compiled by Numba.

PyTorch would make a dozen passes over memory for each of them, and take six times as long; series are most of
what parties compute online. Numba keeps IEEE arithmetic as it is written unless it is asked for less: nothing
is reordered or fused, so that two parties round alike. Integers wrap modulo 2^64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Many = tuple[Integers, ...]

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """``function``, compiled at its first call and kept beside Python's own byte code, or in the user's cache
    folder; where neither can be written, it is compiled once a process."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)


BLOCK = 1024
"""Elements of which all harmonics are taken at once: what is kept of them fits into the first cache."""

_SINE = tuple((-1.0) ** i / math.factorial(2 * i + 1) for i in range(9))
_COSINE = tuple((-1.0) ** i / math.factorial(2 * i) for i in range(9))


@compiled
def _turned(value: int, log_period: int) -> tuple[float, float]:
    """cos and sin of 2 pi value / 2^log_period: of the rest beside the nearest quarter turn, by Taylor."""
    quarter = log_period - 2
    nearest = ((value >> (quarter - 1)) + 1) >> 1
    angle = np.float64(value - (nearest << quarter)) * (math.pi / 2 * 0.5**quarter)
    square = angle * angle
    sine, cosine = _SINE[8], _COSINE[8]
    for i in range(7, -1, -1):
        sine = sine * square + _SINE[i]
        cosine = cosine * square + _COSINE[i]
    sine *= angle
    across = -sine if nearest & 1 else cosine
    up = cosine if nearest & 1 else sine
    return (-across, -up) if nearest & 2 else (across, up)


@compiled
def circle(phases: Integers, log_period: int, cosines: Reals, sines: Reals) -> None:
    """cos and sin of 2 pi p / 2^log_period, all (n,)."""
    for j in range(len(phases)):
        cosines[j], sines[j] = _turned(phases[j], log_period)


@compiled
def waves(phases: Integers, log_period: int, scales: Reals, cosines: Integers, sines: Integers) -> None:
    """``scales`` (harmonics,) times cos and sin, rounded: phases (n,), the rest (harmonics, n)."""
    c1, s1, c, s = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    for start in range(0, len(phases), BLOCK):
        count = min(BLOCK, len(phases) - start)
        for i in range(count):
            c1[i], s1[i] = _turned(phases[start + i], log_period)
            c[i], s[i] = c1[i], s1[i]
        for k in range(len(cosines)):
            for i in range(count):
                cosines[k, start + i] = np.int64(np.rint(c[i] * scales[k]))
                sines[k, start + i] = np.int64(np.rint(s[i] * scales[k]))
                c[i], s[i] = c[i] * c1[i] - s[i] * s1[i], s[i] * c1[i] + c[i] * s1[i]


@compiled
def combine(
    phases: Integers, log_period: int, a: Reals, b: Reals, cosines: Many, sines: Many, sums: Many
) -> None:
    """The sums over k of round(a_k cos kp + b_k sin kp) C_k + round(b_k cos kp - a_k sin kp) S_k, (n,).

    a, b: (harmonics,); C, S: (harmonics, n), integers. ``cosines``, ``sines`` and ``sums`` are tuples: all
    C and S are multiplied by the same numbers.
    """
    c1, s1, c, s = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    to_cosine, to_sine = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    for start in range(0, len(phases), BLOCK):
        end = min(start + BLOCK, len(phases))
        for i in range(end - start):
            c1[i], s1[i] = _turned(phases[start + i], log_period)
            c[i], s[i] = c1[i], s1[i]
        for which in range(len(sums)):
            sums[which][start:end] = 0
        for k in range(len(a)):
            for i in range(end - start):
                to_cosine[i] = np.int64(np.rint(c[i] * a[k] + s[i] * b[k]))
                to_sine[i] = np.int64(np.rint(c[i] * b[k] - s[i] * a[k]))
                c[i], s[i] = c[i] * c1[i] - s[i] * s1[i], s[i] * c1[i] + c[i] * s1[i]
            for which in range(len(sums)):
                total, x, y = sums[which][start:end], cosines[which][k, start:end], sines[which][k, start:end]
                for i in range(end - start):
                    total[i] += to_cosine[i] * x[i] + to_sine[i] * y[i]


@compiled
def pack(values: Integers, out: Bytes) -> None:
    """The highest bytes of ``values`` (n,), as many as ``out`` (n, width) has room for."""
    width = out.shape[1]
    for j in range(len(values)):
        word = values[j] >> (64 - 8 * width)
        for i in range(width):
            out[j, i] = word & 255
            word >>= 8


@compiled
def join(values: Integers, packed: Bytes, sums: Integers) -> None:
    """The highest bytes of ``values`` (n,) and those that were packed (n, width), added modulo 2^64."""
    width = packed.shape[1]
    rest = 64 - 8 * width
    for j in range(len(values)):
        word = 0
        for i in range(width - 1, -1, -1):
            word = (word << 8) | np.int64(packed[j, i])
        sums[j] = ((values[j] >> rest) + word) << rest

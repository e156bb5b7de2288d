"""Compiled loops: the same numbers as NumPy's, whatever the length, to the last bit in every process."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from mpcbench.secure import kernels
from tests.secure.pair import run_pair

LENGTHS = [0, 1, kernels.BLOCK - 1, kernels.BLOCK, 3 * kernels.BLOCK + 5]


def _integers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(2**63), 2**63 - 1, shape)


def _angles(phases: np.ndarray, log_period: int) -> np.ndarray:
    return (phases & ((1 << log_period) - 1)).astype(float) * (2 * np.pi / 2.0**log_period)


@pytest.mark.parametrize("count", LENGTHS)
def test_waves_are_rounded_cosines_and_sines(count: int) -> None:
    phases = _integers(count)
    cosines, sines = np.empty((2, 5, count), np.int64)
    scales = np.ldexp(1.0, [15, 13, 14, 9, 13])
    kernels.waves(phases, 30, scales, cosines, sines)
    angles = np.arange(1, 6)[:, None] * _angles(phases, 30)
    assert (np.abs(cosines - np.cos(angles) * scales[:, None]) <= 0.5 + 1e-6).all()
    assert (np.abs(sines - np.sin(angles) * scales[:, None]) <= 0.5 + 1e-6).all()


@pytest.mark.parametrize("pairs", [1, 2])
@pytest.mark.parametrize("count", LENGTHS)
def test_combination_is_that_of_rounded_multipliers_modulo_the_ring(count: int, pairs: int) -> None:
    phases, (cosines, sines) = _integers(count), _integers(2, pairs, 4, count, seed=1)
    a, b = np.random.default_rng(2).normal(size=(2, 4)) * 2.0**13
    sums = np.empty((pairs, count), np.int64)
    kernels.combine(phases, 24, a, b, tuple(cosines), tuple(sines), tuple(sums))
    angles = np.arange(1, 5)[:, None] * _angles(phases, 24)
    to_cosines = np.rint(a[:, None] * np.cos(angles) + b[:, None] * np.sin(angles)).astype(np.int64)
    to_sines = np.rint(b[:, None] * np.cos(angles) - a[:, None] * np.sin(angles)).astype(np.int64)
    assert (sums == (to_cosines * cosines + to_sines * sines).sum(1)).all()


def _digest(communicator) -> str:
    phases, (cosines, sines) = _integers(5000), _integers(2, 300, 5000, seed=1)
    sums = np.empty(5000, np.int64)
    amplitudes = np.random.default_rng(2).normal(size=(2, 300)) * 2.0**18
    kernels.combine(phases, 24, *amplitudes, (cosines,), (sines,), (sums,))
    return hashlib.sha256(sums.tobytes()).hexdigest()


def test_two_processes_have_the_same_bits() -> None:
    first, second = run_pair(_digest)
    assert first == second


def test_nothing_is_fused_or_reordered() -> None:
    """The same products and sums as NumPy makes one by one: two harmonics of angles, as kept in registers."""
    phases = _integers(4096)
    cosines, sines = np.empty((2, 4096))
    kernels.circle(phases, 50, cosines, sines)
    made = np.empty((2, 3, 4096), np.int64)
    kernels.waves(phases, 50, np.full(3, 2.0**52), *made)
    c2, s2 = cosines * cosines - sines * sines, sines * cosines + cosines * sines
    c3, s3 = c2 * cosines - s2 * sines, s2 * cosines + c2 * sines
    for wave, (c, s) in enumerate([(cosines, sines), (c2, s2), (c3, s3)]):
        assert (made[0, wave] == np.rint(c * 2.0**52)).all()
        assert (made[1, wave] == np.rint(s * 2.0**52)).all()


def test_without_a_place_for_a_cache_it_is_compiled_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: (function, options)

    monkeypatch.setattr(kernels, "njit", nowhere)
    assert kernels.compiled(len) == (len, {"nogil": True})

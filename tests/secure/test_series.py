"""Trigonometric series: right on their range, as short as they may be, the same harmonics everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mpcbench.errors import UserError
from mpcbench.secure.operators.frontier_softmax import EXP_ROOMS, EXP_TRIG_BITS, SLACK
from mpcbench.secure.operators.inverse_root import TOP, TRIG_BITS
from mpcbench.secure.randomness.prg import fresh_seed, words
from mpcbench.secure.series import (
    COARSE,
    FUNCTIONS,
    HARMONICS,
    Period,
    fit,
    fit_exactly,
    periods,
    sine_series,
)
from mpcbench.secure.trig import circle, fingerprint, waves

RANGES = {
    "exp": (-40.0, 0.25, 2e-5),
    "log_cosh": (-50.0, 50.0, 1e-4),
    "silu_even": (-12.0, 12.0, 1e-4),
    "sigmoid_odd": (-12.0, 12.0, 1e-4),
    "rsqrt": (0.01, 0.8, 1e-4),
}


@pytest.mark.parametrize("function", RANGES)
def test_series_is_the_function_on_its_range(function: str) -> None:
    low, high, tolerance = RANGES[function]
    series = fit(function, low, high, periods(low, high), 22, tolerance)
    x = np.linspace(low, high, 5003)  # not the points that it was fitted on
    expected = FUNCTIONS[function](x)
    scale = np.abs(expected) if function == "rsqrt" else 1.0
    assert (np.abs(series(x) - expected) / scale).max() <= 1.05 * tolerance
    assert series.error <= tolerance


@pytest.mark.parametrize(("function", "kind"), [("log_cosh", "sines"), ("sigmoid_odd", "cosines")])
def test_even_and_odd_functions_have_half_a_series(function: str, kind: str) -> None:
    low, high, tolerance = RANGES[function]
    series = fit(function, low, high, periods(low, high), 22, tolerance)
    assert set(getattr(series, kind)) == {0.0}


def test_sine_series_has_fouriers_coefficients() -> None:
    """SHAFT's series for SiLU: its published coefficients are these, to four digits."""
    series = sine_series("silu_less_relu", Period(4), 16, 12)
    assert series.sines[:3] == pytest.approx((-0.1299, -0.1220, -0.0743), abs=5e-5)
    assert series.sines[11] == pytest.approx(-0.0011, abs=5e-5)
    x = np.linspace(-8, 8, 5003)
    worst = np.abs(series(x) - FUNCTIONS["silu_less_relu"](x)).max()
    assert 0.99 * worst <= series.error <= worst + 1e-4


def test_impossible_tolerance_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpcbench.secure.series.HARMONICS", (8, 16))
    with pytest.raises(UserError, match="narrow the range or allow a larger error"):
        fit("log_cosh", -50.0, 50.0, periods(-50.0, 50.0), 6, 1e-4)  # cosines of 6 bits


def test_more_harmonics_do_not_make_it_worse() -> None:
    errors = [fit_exactly("exp", -40.0, 0.25, Period(6), 22, count).error for count in (8, 16, 24, 32)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("function", ["exp", "log_cosh", "silu_even"])
def test_no_shorter_series_would_do(function: str) -> None:
    low, high, tolerance = RANGES[function]
    choice = periods(low, high)
    series = fit(function, low, high, choice, 22, tolerance)
    shorter = HARMONICS[HARMONICS.index(series.harmonics) - 1]
    assert all(fit_exactly(function, low, high, one, 22, shorter).error > tolerance for one in choice)


def test_documented_numbers_of_harmonics() -> None:
    """docs/protocols.md: with the operators' own periods and cosines."""
    low, high = -40.0, SLACK
    choice = periods(low, high, EXP_ROOMS, COARSE)
    assert fit("exp", low, high, choice, EXP_TRIG_BITS, 2e-5).harmonics == 19
    assert fit("silu_even", -13.0, 13.0, periods(-13.0, 13.0), 13, 1e-3).harmonics == 12
    assert fit("rsqrt", TOP / 80, TOP, (Period(0),), TRIG_BITS, 1e-4).harmonics == 44


@pytest.mark.parametrize("low_high", [(-13.0, 13.0), (-40.0, 0.25), (0.0, 1.0), (-3000.0, 17.0)])
def test_periods_are_a_little_longer_than_asked(low_high: tuple[float, float]) -> None:
    low, high = low_high
    for period, room in zip(periods(low, high, (1.0, 1.3)), (1.0, 1.3), strict=True):
        assert 1.0 <= period.length / (room * (high - low)) < 1 + 1 / 64
        assert 64 <= period.turns <= 128


@pytest.mark.parametrize("log_period", [3, 20, 33, 50, 61, 63, 64])
def test_circle_is_cos_and_sin(log_period: int) -> None:
    values = words(fresh_seed(), 0, 4096)
    mask = (1 << log_period) - 1 if log_period < 64 else -1
    phase = (values & mask).double() * (2 * math.pi / 2.0**log_period)
    cosine, sine = circle(values, log_period)
    assert (cosine - phase.cos()).abs().max() < 2e-15
    assert (sine - phase.sin()).abs().max() < 2e-15


@pytest.mark.parametrize("count", [1, 2, 7, 256])
def test_harmonics_are_cos_and_sin_of_multiples(count: int) -> None:
    values = words(fresh_seed(), 1, 1000)
    phase = (values & ((1 << 30) - 1)).double() * (2 * math.pi / 2.0**30)
    multiples = torch.arange(1, count + 1)[:, None] * phase
    cosines, sines = (wave.double() * 2.0**-40 for wave in waves(values, 30, [40] * count))
    assert (cosines - multiples.cos()).abs().max() < 1e-12
    assert (sines - multiples.sin()).abs().max() < 1e-12


def test_a_period_that_is_no_power_of_two_wraps_with_the_ring() -> None:
    """Phases of x - r modulo 2^64 are those of the difference of phases, for any whole number of turns."""
    values = torch.tensor([0, 1, 12345, -(1 << 40), (1 << 63) - 1])
    mask = words(fresh_seed(), 3, 5)
    one, two, both = (
        [wave.double() * 2.0**-50 for wave in waves(77 * v, 20, [50] * 3)]
        for v in (values - mask, mask, values)
    )
    assert (one[0] * two[0] - one[1] * two[1] - both[0]).abs().max() < 1e-12
    phase = 2 * math.pi * 77 * 12345 / 2.0**20
    expected = torch.tensor([phase, 2 * phase, 3 * phase], dtype=torch.float64).cos()
    assert (both[0][:, 2] - expected).abs().max() < 1e-11


def test_opened_phase_does_not_depend_on_the_value() -> None:
    """d = x - r with r uniform in the whole ring: modulo the period, and above it, uniform for any x."""
    mask = words(fresh_seed(), 2, 1 << 14)
    for x in (0, 5 << 28, -(7 << 40)):
        d = torch.tensor(x) - mask
        for bit in (0, 20, 32, 40, 62):
            share = float((d >> bit & 1).double().mean())
            assert abs(share - 0.5) < 6 * 0.5 / math.sqrt(1 << 14)


def test_fingerprint_is_that_of_exact_arithmetic() -> None:
    """The same on every machine: the digest of what additions and products of doubles give, one by one."""
    assert fingerprint() == "27885614c986cad1"

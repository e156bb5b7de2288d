"""Trigonometric series: right on their range, as short as they may be, the same harmonics everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mpcbench.errors import UserError
from mpcbench.secure.randomness.prg import fresh_seed, words
from mpcbench.secure.series import FUNCTIONS, fit, fit_exactly, period_bits
from mpcbench.secure.trig import circle, harmonics

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
    series = fit(function, low, high, period_bits(low, high), 22, tolerance)
    x = np.linspace(low, high, 5003)  # not the points that it was fitted on
    expected = FUNCTIONS[function](x)
    scale = np.abs(expected) if function == "rsqrt" else 1.0
    assert (np.abs(series(x) - expected) / scale).max() <= 1.05 * tolerance
    assert series.error <= tolerance


@pytest.mark.parametrize(("function", "kind"), [("log_cosh", "sines"), ("sigmoid_odd", "cosines")])
def test_even_and_odd_functions_have_half_a_series(function: str, kind: str) -> None:
    low, high, tolerance = RANGES[function]
    series = fit(function, low, high, period_bits(low, high), 22, tolerance)
    assert set(getattr(series, kind)) == {0.0}


def test_impossible_tolerance_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpcbench.secure.series.HARMONICS", (8, 16))
    with pytest.raises(UserError, match="narrow the range or allow a larger error"):
        fit("log_cosh", -50.0, 50.0, 7, 6, 1e-4)  # cosines of 6 bits


def test_more_harmonics_do_not_make_it_worse() -> None:
    errors = [fit_exactly("exp", -40.0, 0.25, 6, 22, count).error for count in (8, 16, 24, 32)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("log_period", [3, 20, 33, 50])
def test_circle_is_cos_and_sin(log_period: int) -> None:
    values = words(fresh_seed(), 0, 4096)
    phase = (values & ((1 << log_period) - 1)).double() * (2 * math.pi / 2.0**log_period)
    cosine, sine = circle(values, log_period)
    assert (cosine - phase.cos()).abs().max() < 2e-15
    assert (sine - phase.sin()).abs().max() < 2e-15


@pytest.mark.parametrize("count", [1, 2, 7, 256])
def test_harmonics_are_cos_and_sin_of_multiples(count: int) -> None:
    values = words(fresh_seed(), 1, 1000)
    phase = (values & ((1 << 30) - 1)).double() * (2 * math.pi / 2.0**30)
    multiples = torch.arange(1, count + 1)[:, None] * phase
    cosines, sines = harmonics(values, 30, count)
    assert (cosines - multiples.cos()).abs().max() < 1e-12
    assert (sines - multiples.sin()).abs().max() < 1e-12


def test_opened_phase_does_not_depend_on_the_value() -> None:
    """d = x - r with r uniform in the whole ring: modulo the period, and above it, uniform for any x."""
    mask = words(fresh_seed(), 2, 1 << 14)
    for x in (0, 5 << 28, -(7 << 40)):
        d = torch.tensor(x) - mask
        for bit in (0, 20, 32, 40, 62):
            share = float((d >> bit & 1).double().mean())
            assert abs(share - 0.5) < 6 * 0.5 / math.sqrt(1 << 14)

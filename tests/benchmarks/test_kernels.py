"""A trigonometric series on shares, compiled, against the same in PyTorch: SwiGLU's share of an MLP layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mpcbench.secure.randomness.prg import fresh_seed, words
from mpcbench.secure.trig import combination
from tests.benchmarks.turns import best_of_both

ELEMENTS, HARMONICS, LOG_PERIOD = 32 * 1536, 12, 40
PHASES = words(fresh_seed(), 0, ELEMENTS)
SHARES = words(fresh_seed(), 0, 2 * HARMONICS * ELEMENTS).reshape(2, HARMONICS, ELEMENTS)
AMPLITUDES = np.random.default_rng(0).normal(size=(2, HARMONICS)) * 2.0**13


def _compiled() -> torch.Tensor:
    return combination(PHASES, LOG_PERIOD, tuple(AMPLITUDES), *SHARES)[0]


def _in_passes() -> torch.Tensor:
    """One pass over memory for every product and sum."""
    a, b = (torch.from_numpy(each)[:, None] for each in AMPLITUDES)
    turns = (PHASES & ((1 << LOG_PERIOD) - 1)).double() * (2 * math.pi / 2.0**LOG_PERIOD)
    angles = torch.arange(1, HARMONICS + 1)[:, None] * turns
    cosines, sines = angles.cos(), angles.sin()
    to_cosines = (a * cosines).add_(b * sines).round_().long()
    to_sines = (b * cosines).sub_(a * sines).round_().long()
    return (to_cosines * SHARES[0]).addcmul_(to_sines, SHARES[1]).sum(0)


@pytest.mark.parametrize("how", [_compiled, _in_passes], ids=["compiled", "PyTorch"])
def test_series(how: Callable[[], torch.Tensor], benchmark: Any) -> None:
    benchmark.group = "series"
    assert len(benchmark.pedantic(how, rounds=10, warmup_rounds=2)) == ELEMENTS


def test_a_compiled_series_takes_less_time(benchmark: Any) -> None:
    benchmark.group = "series"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        compiled, passes = best_of_both(benchmark, _compiled, _in_passes, 10)
    finally:
        torch.set_num_threads(threads)
    benchmark.extra_info["compiled / PyTorch"] = compiled / passes
    assert compiled <= passes

"""Masks from AES in counter mode against the generator of torch.randint, which is no cryptographic one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mpcbench.secure.randomness.prg import fresh_seed, words
from tests.benchmarks.turns import best_of_both

WORDS = 1 << 22
SEED = fresh_seed()
GENERATOR = torch.Generator().manual_seed(0)


def _aes() -> torch.Tensor:
    return words(SEED, 1, WORDS)


def _twister() -> torch.Tensor:
    return torch.randint(-(2**63), 2**63 - 1, (WORDS,), dtype=torch.int64, generator=GENERATOR)


@pytest.mark.parametrize("source", [_aes, _twister], ids=["AES-128-CTR", "torch.randint"])
def test_masks(source: Callable[[], torch.Tensor], benchmark: Any) -> None:
    benchmark.group = "masks"
    benchmark.extra_info["MB"] = WORDS * 8 / 1e6
    assert len(benchmark.pedantic(source, rounds=10, warmup_rounds=2)) == WORDS


def test_masks_cost_no_more_than_numbers_that_protect_nothing(benchmark: Any) -> None:
    benchmark.group = "masks"
    aes, twister = best_of_both(benchmark, _aes, _twister, 15)
    benchmark.extra_info["AES / randint"] = aes / twister
    assert aes <= twister

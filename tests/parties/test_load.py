"""Runs back to back leave memory and descriptors as they were; tests/benchmarks/load.py does fifty."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.benchmarks.load import SETTLED, Sample, samples
from tests.parties.conftest import Exported

RUNS = 8


@pytest.fixture(scope="module")
def taken(exported: Exported) -> dict[str, list[Sample]]:
    """The model owner is a fresh process, not this one, in which all tests before have left their traces."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(samples, exported.client, "frontier", RUNS).result()


@pytest.mark.parametrize("name", ["model owner", "client", "dealer"])
def test_nothing_grows_from_run_to_run(taken: dict[str, list[Sample]], name: str) -> None:
    assert len(taken[name]) == RUNS
    halves = taken[name][: RUNS // 2], taken[name][RUNS // 2 :]
    early, late = (max(sample.memory for sample in half) for half in halves)
    assert late < 1.05 * early
    settled, last = taken[name][SETTLED - 1], taken[name][-1]
    assert last.descriptors <= settled.descriptors
    assert last.children == 0

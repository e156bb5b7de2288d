"""Runs back to back leave memory and descriptors as they were; tests/benchmarks/load.py does fifty."""

from __future__ import annotations

import pytest

from tests.benchmarks.load import SETTLED, Sample, samples
from tests.parties.conftest import Exported

RUNS = 8


@pytest.fixture(scope="module")
def taken(exported: Exported) -> dict[str, list[Sample]]:
    return samples(exported.client, "frontier", RUNS)


@pytest.mark.parametrize("name", ["model owner", "client", "dealer"])
def test_nothing_grows_from_run_to_run(taken: dict[str, list[Sample]], name: str) -> None:
    settled, last = taken[name][SETTLED - 1], taken[name][-1]
    assert len(taken[name]) == RUNS
    assert abs(last.memory / settled.memory - 1) < 0.05
    assert last.descriptors <= settled.descriptors
    assert last.children == 0

"""One MLP layer of SmolLM2-135M's shape (32 tokens, 576 wide, 1536 channels) between two processes.

Bytes (both parties together) and rounds go to ``extra_info`` and are asserted; times are for reading as
ratios within one run.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.benchmarks.workers import Pair, mlp_graph

TOKENS, WIDTH, CHANNELS = 32, 576, 1536
STOCK = {"swiglu": (83_951_616, 28), "quadratic_glu": (46_202_880, 5)}


@pytest.fixture(scope="module", params=sorted(STOCK))
def layer(request: pytest.FixtureRequest) -> Iterator[tuple[str, Pair]]:
    pair = Pair(mlp_graph(request.param, WIDTH, CHANNELS), (1, TOKENS, WIDTH), "crypten")
    yield request.param, pair
    pair.close()


@pytest.mark.benchmark(group="mlp, 32 x 576 x 1536")
def test_mlp_layer_under_stock_crypten(layer, benchmark):
    glu, pair = layer
    reports = benchmark.pedantic(pair.run, warmup_rounds=2, rounds=7)
    total, rounds = sum(report["bytes"] for report in reports), reports[0]["rounds"]
    benchmark.extra_info.update(
        protocol="crypten", glu=glu, online_bytes_both_parties=total, rounds=rounds,
        online_seconds=max(report["online_seconds"] for report in reports),
        offline_seconds=max(report["offline_seconds"] for report in reports),
    )  # fmt: skip
    assert (total, rounds) == STOCK[glu]

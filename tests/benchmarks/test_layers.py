"""Layers of SmolLM2-135M's shape between two parties with a dealer, under every protocol.

Bytes (both parties together), rounds and what the dealer sends go to ``extra_info``; bytes and rounds are
asserted, without openings that had to be made again. Times are for reading as ratios within one run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mpcbench.graph.secure_graph import SecureGraph
from tests.benchmarks.workers import Pair, mlp_graph, norm_graph, softmax_graph

TOKENS, WIDTH, CHANNELS, HEADS, GROUPS = 32, 576, 1536, 9, 3

WORK: dict[str, tuple[SecureGraph, tuple[int, ...]]] = {
    "SwiGLU MLP": (mlp_graph("swiglu", WIDTH, CHANNELS), (1, TOKENS, WIDTH)),
    "quadratic MLP": (mlp_graph("quadratic_glu", WIDTH, CHANNELS), (1, TOKENS, WIDTH)),
    "quartic MLP": (mlp_graph("nested_glu", WIDTH, CHANNELS), (1, TOKENS, WIDTH)),
    "SwiGLU MLP, 1 token": (mlp_graph("swiglu", WIDTH, CHANNELS), (1, 1, WIDTH)),
    "quadratic MLP, 1 token": (mlp_graph("quadratic_glu", WIDTH, CHANNELS), (1, 1, WIDTH)),
    "softmax, causal": (
        softmax_graph(TOKENS, HEADS, GROUPS), (1, HEADS // GROUPS, GROUPS * TOKENS, TOKENS),
    ),
    "RMSNorm": (norm_graph(), (1, TOKENS, WIDTH)),
}  # fmt: skip
"""What is measured: a graph and the shape of its input."""

EXPECTED: dict[tuple[str, str], tuple[int, int]] = {
    ("SwiGLU MLP", "crypten"): (83_951_616, 28),
    ("quadratic MLP", "crypten"): (46_202_880, 5),
    ("SwiGLU MLP", "crypten-reuse"): (41_189_376, 27),
    ("quadratic MLP", "crypten-reuse"): (3_440_640, 4),
    ("SwiGLU MLP", "frontier"): (2_654_208, 3),
    ("quadratic MLP", "frontier"): (2_654_208, 3),
    ("quartic MLP", "frontier"): (3_440_640, 4),
    ("SwiGLU MLP, 1 token", "frontier"): (82_944, 3),
    ("quadratic MLP, 1 token", "frontier"): (82_944, 3),
    ("RMSNorm", "frontier"): (295_936, 3),
}
"""Bytes of both parties and rounds, where they follow from a count of opened elements by hand."""
PROTOCOLS = ("crypten", "crypten-reuse", "mpcformer", "secformer", "shaft", "frontier")


@pytest.fixture(scope="module", params=[(work, protocol) for work in WORK for protocol in PROTOCOLS],
                ids=" under ".join)  # fmt: skip
def running(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, Pair]]:
    work, protocol = request.param
    pair = Pair(*WORK[work], protocol)
    yield work, protocol, pair
    pair.close()


def test_layer(running: tuple[str, str, Pair], benchmark: Any) -> None:
    work, protocol, pair = running
    reports: list[list[dict]] = []
    benchmark.group = work
    benchmark.pedantic(lambda: reports.append(pair.run()), warmup_rounds=1, rounds=7)
    last = reports[-1]
    total, rounds = sum(party["bytes"] for party in last), last[0]["rounds"]
    benchmark.extra_info.update(
        work=work, protocol=protocol, online_bytes_both_parties=total, rounds=rounds, error=last[0]["error"],
        dealt_bytes=sum(party["dealt_bytes"] for party in last), tuples=last[0]["tuples"],
        **{name: _median(name, reports) for name in ("online_seconds", "offline_seconds", "dealer_seconds")},
    )  # fmt: skip
    if (work, protocol) in EXPECTED:
        assert (total, rounds) == EXPECTED[work, protocol]


def _median(name: str, reports: list[list[dict]]) -> float:
    """Of the slower party, without the warm-up."""
    values = sorted(max(party[name] for party in report) for report in reports[1:])
    return values[len(values) // 2]

"""Layers and operators of SmolLM2-135M's shape between two parties with a dealer, under every protocol.

Bytes (both parties together), rounds and what the dealer sends go to ``extra_info``; bytes and rounds are
asserted, without openings that had to be made again. Times are for reading as ratios within one run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.benchmarks.workers import (
    Pair,
    Work,
    argmax_graph,
    attention_graph,
    glu_graph,
    linear_graph,
    mlp_graph,
    norm_graph,
    product_graph,
    softmax_graph,
)

TOKENS, WIDTH, CHANNELS, HEADS, GROUPS = 32, 576, 1536, 9, 3

KEY_HEADS, HEAD = HEADS // GROUPS, WIDTH // HEADS
QUERIES, GATES = (1, KEY_HEADS, GROUPS * TOKENS, HEAD), (1, TOKENS, CHANNELS)
SCORES = (*QUERIES[:3], TOKENS)

ATTENDED, KEYS = TOKENS * WIDTH, KEY_HEADS * TOKENS * HEAD
SEEN = HEADS * TOKENS * (TOKENS + 1) // 2
MERGES = SEEN - HEADS * TOKENS

WORK: dict[str, Work] = {
    "SwiGLU MLP": Work(mlp_graph("swiglu", WIDTH, CHANNELS), (1, TOKENS, WIDTH)),
    "quadratic MLP": Work(mlp_graph("quadratic_glu", WIDTH, CHANNELS), (1, TOKENS, WIDTH)),
    "quartic MLP": Work(mlp_graph("nested_glu", WIDTH, CHANNELS), (1, TOKENS, WIDTH)),
    "SwiGLU MLP, 1 token": Work(mlp_graph("swiglu", WIDTH, CHANNELS), (1, 1, WIDTH)),
    "quadratic MLP, 1 token": Work(mlp_graph("quadratic_glu", WIDTH, CHANNELS), (1, 1, WIDTH)),
    "attention layer": Work(attention_graph(WIDTH, HEADS, GROUPS), (1, TOKENS, WIDTH)),
    "linear": Work(linear_graph(WIDTH, CHANNELS), (1, TOKENS, WIDTH)),
    "attention scores": Work(product_graph(), QUERIES, (1, KEY_HEADS, HEAD, TOKENS)),
    "softmax, causal": Work(softmax_graph(TOKENS, HEADS, GROUPS), SCORES),
    "attention, weights by values": Work(product_graph(GROUPS), SCORES, (1, KEY_HEADS, TOKENS, HEAD)),
    "RMSNorm": Work(norm_graph(), (1, TOKENS, WIDTH)),
    "SwiGLU": Work(glu_graph("swiglu", CHANNELS), GATES, GATES),
    "quadratic GLU": Work(glu_graph("quadratic_glu", CHANNELS), GATES, GATES),
    "quartic GLU": Work(glu_graph("nested_glu", CHANNELS), GATES, GATES),
    "argmax of 49,152 logits": Work(argmax_graph(), (1, 1, 49_152)),
}
"""What is measured: whole layers, then every operator that communicates."""

EXPECTED: dict[tuple[str, str], tuple[int, int]] = {
    ("SwiGLU MLP", "crypten"): (83_951_616, 28),
    ("quadratic MLP", "crypten"): (46_202_880, 5),
    ("SwiGLU MLP", "crypten-reuse"): (41_189_376, 27),
    ("quadratic MLP", "crypten-reuse"): (3_440_640, 4),
    ("SwiGLU MLP", "frontier"): (1_990_656, 3),
    ("quadratic MLP", "frontier"): (1_990_656, 3),
    ("quartic MLP", "frontier"): (2_580_480, 4),
    ("SwiGLU MLP, 1 token", "frontier"): (62_208, 3),
    ("quadratic MLP, 1 token", "frontier"): (62_208, 3),
    ("attention layer", "frontier"): (
        2 * (19 * ATTENDED + 18 * KEYS + 15 * SEEN + 3 * MERGES + 16 * TOKENS),
        11,
    ),
    ("RMSNorm", "frontier"): (259_072, 3),
    ("linear", "crypten"): (2 * 8 * (TOKENS * WIDTH + WIDTH * CHANNELS), 1),
    ("linear", "frontier"): (2 * 6 * TOKENS * WIDTH, 1),
    ("attention scores", "frontier"): (2 * 6 * (TOKENS * WIDTH + KEY_HEADS * TOKENS * HEAD), 1),
    ("SwiGLU", "frontier"): (2 * 6 * 2 * TOKENS * CHANNELS, 1),
    ("quadratic GLU", "frontier"): (2 * 6 * 2 * TOKENS * CHANNELS, 1),
    ("quartic GLU", "frontier"): (2 * 6 * 3 * TOKENS * CHANNELS, 2),
}
"""Bytes of both parties and rounds, where they follow from a count of opened elements by hand."""
PROTOCOLS = ("crypten", "crypten-reuse", "mpcformer", "secformer", "shaft", "frontier")


@pytest.fixture(scope="module", params=[(work, protocol) for work in WORK for protocol in PROTOCOLS],
                ids=" under ".join)  # fmt: skip
def running(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, Pair]]:
    work, protocol = request.param
    pair = Pair(WORK[work], protocol)
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

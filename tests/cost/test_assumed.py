"""Ranges that have to be assumed: whose they are, when they are used, and that real ones win."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpcbench.checkpoints.configuration import read_architecture
from mpcbench.cost.assumed import with_ranges
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.graph.skeleton import Skeleton
from mpcbench.secure.protocol import available, load_protocol
from tests.tiny import tiny_llama


@pytest.fixture(scope="module")
def tiny() -> SecureGraph:
    return Skeleton(tiny_llama(layers=3).config).graph()


def _spans(graph: SecureGraph, op: str, name: str) -> list[list[float]]:
    return [node.attrs["range"][name] for node in graph.nodes if node.op == op]


@pytest.mark.parametrize("protocol", available())
def test_every_range_that_a_cost_depends_on_is_filled_in(protocol: str, tiny: SecureGraph) -> None:
    operators = load_protocol(protocol).operators
    found = with_ranges(tiny, operators)
    for node in found.graph.nodes:
        if node.op != "tokens":
            assert set(operators[node.op].priced_by) <= set(node.attrs.get("range", {}))
    assert set(found.operators) == {op for op in ("rms_norm", "softmax", "swiglu") if operators[op].priced_by}
    assert not any("range" in node.attrs for node in tiny.nodes)  # the graph itself is left alone


def test_other_models_get_medians_and_smollm_its_own(tiny: SecureGraph) -> None:
    operators = load_protocol("frontier").operators
    other = with_ranges(tiny, operators)
    own = with_ranges(Skeleton(read_architecture("smollm2-135m").config).graph(), operators)
    assert len(set(map(tuple, _spans(other.graph, "softmax", "spread")))) == 1
    spreads = sorted(span[1] for span in _spans(own.graph, "softmax", "spread"))
    assert len(set(spreads)) == 30
    assert _spans(other.graph, "softmax", "spread")[0][1] == pytest.approx((spreads[14] + spreads[15]) / 2)
    assert "medians" in other.words and "layer by layer" in own.words


def test_calibrated_ranges_are_kept(tiny: SecureGraph) -> None:
    operators = load_protocol("frontier").operators
    nodes = [
        replace(node, attrs={**node.attrs, "range": {"spread": [0.0, 3.0]}}) if node.op == "softmax" else node
        for node in tiny.nodes
    ]
    found = with_ranges(replace(tiny, nodes=nodes), operators)
    assert _spans(found.graph, "softmax", "spread") == [[0.0, 3.0]] * 3
    assert "softmax" not in found.operators


def test_widening_goes_to_both_sides_of_mean_squares(tiny: SecureGraph) -> None:
    operators = load_protocol("frontier").operators
    plain, wide = (with_ranges(tiny, operators, factor) for factor in (1.0, 2.0))
    (low, high), (lower, higher) = (_spans(found.graph, "rms_norm", "rest")[0] for found in (plain, wide))
    assert (lower, higher) == (low / 2, high * 2)
    assert _spans(wide.graph, "swiglu", "gate")[0][1] == 2 * _spans(plain.graph, "swiglu", "gate")[0][1]
    assert "widened 2 times" in wide.words

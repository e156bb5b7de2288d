"""Where norms are put off, and that the scores are those of the graph as it was captured."""

from __future__ import annotations

import pytest
import torch

from mpcbench.graph.decoding import with_cache
from mpcbench.graph.deferral import defer_norms
from mpcbench.graph.grouping import group_linears
from mpcbench.graph.interpreter import PlaintextInterpreter, causal_mask
from mpcbench.graph.lower import Lowered, lower
from mpcbench.graph.secure_graph import Node, SecureGraph
from tests.graph.models import random_model, tokens

SETTINGS = {"margin": 1.5, "tolerance": 1e-4}


class _Kept(PlaintextInterpreter):
    """Remembers every node's value, by operator and layer."""

    def run(self, ids: torch.Tensor) -> torch.Tensor:
        self.values: dict[tuple[str, int | None], torch.Tensor] = {}
        return super().run(ids)

    def call(self, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
        if node.op == "softmax":
            self.values["scores", node.layer] = inputs[0]
        self.values[node.op, node.layer] = super().call(node, inputs)
        return self.values[node.op, node.layer]


@pytest.fixture(scope="module")
def lowered() -> Lowered:
    return lower(random_model("llama"))


def test_scores_are_those_of_the_captured_graph(lowered):
    graph = defer_norms(lowered.graph, SETTINGS, 3)
    before, after = _Kept(lowered.graph, lowered.weights), _Kept(graph, lowered.weights)
    before.run(tokens(3))
    # The values that go into the next layer are another matter: they hang on the scores' operator.
    after.run(tokens(3))
    expected = before.values["scores", 0] * causal_mask(6, 3, 2)
    torch.testing.assert_close(after.values["normed_scores", 0], expected, rtol=1e-4, atol=1e-4)


def test_every_attention_of_a_llama_is_arranged(lowered):
    graph = group_linears(defer_norms(lowered.graph, SETTINGS, 3))
    graph.check()
    ops = [node.op for node in graph.nodes]
    assert ops.count("sum_squares") == ops.count("normed_scores") == 2 and "rope" not in ops
    assert ops.count("rms_norm") == 3  # in front of the MLPs, and the last one
    for squares in (node for node in graph.nodes if node.op == "sum_squares"):
        followers = [node for node in graph.nodes if node.attrs.get("leader") == squares.name]
        assert [node.weights[0] for node in followers] == list(squares.weights)
        assert all(node.inputs == squares.inputs for node in followers)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_biases_and_further_norms_stay_as_they_are(kind):
    """A bias is not multiplied by the norm's root, and a norm of queries is not linear."""
    graph = lower(random_model(kind)).graph
    assert defer_norms(graph, SETTINGS, 3) == graph


def test_what_is_cached_stays_as_it_is(lowered):
    graph = with_cache(lowered.graph)
    assert defer_norms(graph, SETTINGS, 3) == graph


def test_long_texts_stay_as_they_are(lowered):
    """Four heads, 8 channels of values and 16 of x: products and values of three tokens are as much as x."""
    assert defer_norms(lowered.graph, SETTINGS, 3) != lowered.graph
    assert defer_norms(lowered.graph, SETTINGS, 4) == lowered.graph


def test_scores_alone_stay_as_they_are():
    """A softmax that nothing reads, as in a benchmark of it."""
    node = Node("p", "softmax", ("x",), attrs={"groups": 1})
    graph = SecureGraph([Node("x", "tokens"), node], {}, "client", 0, 4096)
    assert defer_norms(graph, SETTINGS, 3) == graph

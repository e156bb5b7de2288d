from __future__ import annotations

import pytest
import torch

from mpcbench.checkpoints.polyllama import MIN_LEADING
from mpcbench.graph.fold import fold
from mpcbench.graph.interpreter import PlaintextInterpreter
from mpcbench.graph.secure_graph import Node, SecureGraph

X = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(1))


def run(nodes, weights):
    """The output for X; ``nodes`` start from a value called x."""
    graph = SecureGraph([Node("x", "tokens"), *nodes], {}, "client", 64, 16)
    return PlaintextInterpreter(graph, weights).run(X)


def folded(nodes, weights):
    graph, changed = fold(SecureGraph([Node("x", "tokens"), *nodes], {}, "client", 64, 16), weights)
    return graph.nodes[1:], changed


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def glu(coefficients, gate_bias=True):
    nodes = [
        Node("g", "linear", ("x",), ("gate", "bias") if gate_bias else ("gate",), module="gate_proj"),
        Node("u", "linear", ("x",), ("up",), module="up_proj"),
        Node("y", "polynomial_glu", ("g", "u"), ("c",), {"degree": len(coefficients) - 1}, module="mlp"),
    ]
    weights = {"gate": random(5, 8), "up": random(5, 8, seed=2), "bias": random(5, seed=3), "c": coefficients}
    return nodes, weights


@pytest.mark.parametrize("gate_bias", [False, True])
def test_a_quadratic_is_completed_to_a_square(gate_bias):
    coefficients = random(3, 5, seed=4)
    coefficients[2] = torch.tensor([0.3, -0.2, MIN_LEADING, -MIN_LEADING, 2.0])
    nodes, weights = glu(coefficients, gate_bias)
    after, changed = folded(nodes, weights)
    assert after[-1].op == "quadratic_glu"
    torch.testing.assert_close(run(after, changed), run(nodes, weights), rtol=1e-4, atol=1e-3)
    assert torch.equal(weights["gate"], random(5, 8))  # the caller's tensors are not touched


@pytest.mark.parametrize("small", [0.0, MIN_LEADING / 2])
def test_a_channel_below_the_floor_keeps_the_layer_explicit(small):
    coefficients = random(3, 5, seed=4)
    coefficients[2, 3] = small
    nodes, weights = glu(coefficients)
    after, changed = folded(nodes, weights)
    assert after[-1].op == "polynomial_glu"
    torch.testing.assert_close(run(after, changed), run(nodes, weights))


def test_gains_go_into_all_readers_and_shared_tensors_stay():
    nodes = [
        Node("n", "rms_norm", ("x",), ("gain",), {"eps": 1e-5}),
        Node("a", "linear", ("n",), ("w",), module="a"),
        Node("b", "linear", ("n",), ("w",), module="b"),
        Node("y", "add", ("a", "b")),
    ]
    weights = {"gain": random(8, seed=5), "w": random(3, 8)}
    after, changed = folded(nodes, weights)
    assert after[0].weights == ()
    assert {node.weights[0] for node in after[1:3]} == {"a.weight", "b.weight"}
    torch.testing.assert_close(run(after, changed), run(nodes, weights))
    assert torch.equal(changed["w"], weights["w"])


def test_a_gain_whose_reader_is_not_linear_stays():
    nodes = [
        Node("n", "rms_norm", ("x",), ("gain",), {"eps": 1e-5}),
        Node("a", "linear", ("n",), ("w",), module="a"),
        Node("y", "add", ("n", "a")),
    ]
    weights = {"gain": random(8, seed=5), "w": random(8, 8)}
    after, changed = folded(nodes, weights)
    assert after[0].weights == ("gain",)
    torch.testing.assert_close(run(after, changed), run(nodes, weights))


def test_the_attention_scale_goes_into_the_query_projection_and_its_bias():
    nodes = [
        Node("q", "linear", ("x",), ("wq", "bq"), module="q_proj"),
        Node("k", "linear", ("x",), ("wk",), module="k_proj"),
        Node("t", "transpose", ("k",), attrs={"dims": [1, 2]}),
        Node("y", "matmul", ("q", "t"), attrs={"scale": 0.125}),
    ]
    weights = {"wq": random(4, 8), "bq": random(4, seed=6), "wk": random(4, 8, seed=7)}
    after, changed = folded(nodes, weights)
    assert after[-1].attrs == {}
    torch.testing.assert_close(run(after, changed), run(nodes, weights))


def test_a_scaled_query_that_something_else_reads_keeps_its_scale():
    nodes = [
        Node("q", "linear", ("x",), ("wq",), module="q_proj"),
        Node("t", "transpose", ("q",), attrs={"dims": [1, 2]}),
        Node("y", "matmul", ("q", "t"), attrs={"scale": 0.125}),
    ]
    weights = {"wq": random(4, 8)}
    after, changed = folded(nodes, weights)
    assert after[-1].attrs == {"scale": 0.125}
    torch.testing.assert_close(run(after, changed), run(nodes, weights))

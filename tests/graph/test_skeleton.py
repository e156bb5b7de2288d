"""A graph made from a configuration is the graph that the model with weights has."""

from __future__ import annotations

import pytest
import torch

from mpcbench.graph.lower import lower
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.graph.skeleton import COEFFICIENTS, Skeleton
from tests.graph.models import polynomial_model, random_model
from tests.tiny import tiny_llama


def _facts(graph: SecureGraph) -> tuple:
    """All but the nodes' names, whose order of making differs."""
    places = {node.name: place for place, node in enumerate(graph.nodes)}
    nodes = [
        (n.op, [places[name] for name in n.inputs], n.weights, n.attrs, n.layer, n.module)
        for n in graph.nodes
    ]
    return nodes, graph.weights, graph.embedding, graph.vocab_size, graph.max_tokens


@pytest.mark.parametrize("embedding", ["client", "private"])
@pytest.mark.parametrize("tied", [True, False])
def test_llama_of_any_depth(embedding: str, tied: bool) -> None:
    model = tiny_llama(layers=5, tied=tied)
    assert _facts(Skeleton(model.config).graph((), embedding)) == _facts(lower(model, embedding).graph)


@pytest.mark.parametrize(
    ("degree", "leading"), [(2, 0.2), (2, 1e-4), (3, 0.2), (4, 0.2)], ids=["folds", "not", "cubic", "quartic"]
)
def test_polynomial_layers_fold_as_their_coefficients_say(degree: int, leading: float) -> None:
    model = polynomial_model(degree, (1,), leading)
    known = {1: model.model.layers[1].mlp.activation.coefficients.detach()}
    made = Skeleton(model.config, degree).graph((1,), coefficients=known)
    assert _facts(made) == _facts(lower(model).graph)


def test_unknown_coefficients_are_those_of_silus_series() -> None:
    config = random_model("llama").config
    ops = {degree: {node.op for node in Skeleton(config, degree).graph((0, 1)).nodes} for degree in (2, 3, 4)}
    assert "quadratic_glu" in ops[2] and "nested_glu" in ops[4] and "polynomial_glu" in ops[3]
    assert not any("swiglu" in found for found in ops.values())


def test_one_skeleton_makes_many_graphs() -> None:
    skeleton = Skeleton(tiny_llama(layers=3).config, 2)
    first = skeleton.graph((0, 2))
    assert [n.layer for n in first.nodes if n.op == "quadratic_glu"] == [0, 2]
    assert not any(n.op == "quadratic_glu" for n in skeleton.graph(()).nodes)
    assert _facts(skeleton.graph((0, 2))) == _facts(first)


def test_nothing_but_coefficients_has_values() -> None:
    skeleton = Skeleton(tiny_llama(layers=3).config, 2)
    assert all(weight.is_meta for weight in skeleton.weights.values())
    assert any(name.endswith(COEFFICIENTS) for name in skeleton.weights)
    assert all(isinstance(weight, torch.Tensor) for weight in skeleton.weights.values())

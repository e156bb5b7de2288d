from __future__ import annotations

import pytest
import torch

from mpcbench.errors import UserError
from mpcbench.graph.interpreter import PlaintextInterpreter
from mpcbench.graph.lower import lower
from tests.graph.models import last_logits, polynomial_model, random_model, tokens


def assert_equal_logits(model, lowered, lengths=(2, 5, 19)):
    for length in lengths:  # none of them the captured one
        found = PlaintextInterpreter(lowered.graph, lowered.weights).run(tokens(length))
        torch.testing.assert_close(found, last_logits(model, tokens(length)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "untied", "mistral", "qwen2", "qwen3"])
def test_a_lowered_model_computes_what_transformers_computes(kind):
    model = random_model(kind)
    assert_equal_logits(model, lower(model))


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_polynomial_layers_compute_what_the_checkpoint_computes(degree):
    model = polynomial_model(degree)
    lowered = lower(model)
    assert_equal_logits(model, lowered)
    glus = [node.op for node in lowered.graph.nodes if node.op.endswith("glu")]
    assert glus == ["swiglu", "quadratic_glu" if degree == 2 else "nested_glu"]


def test_nearly_straight_quadratics_keep_explicit_coefficients():
    model = polynomial_model(2, leading=1e-5)
    lowered = lower(model)
    assert_equal_logits(model, lowered)
    assert [node.op for node in lowered.graph.nodes if node.op.endswith("glu")] == [
        "swiglu",
        "polynomial_glu",
    ]


def test_capturing_leaves_the_model_as_it_was():
    model = random_model("llama")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attention = model.config._attn_implementation
    lower(model)
    assert model.config._attn_implementation == attention
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_every_weight_is_secret_but_for_rope_and_an_embedding_at_the_client():
    model = random_model("llama")
    for embedding, table_is_secret in (("client", False), ("private", True)):
        lowered = lower(model, embedding)
        public = {name for name, weight in lowered.graph.weights.items() if not weight.secret}
        ropes = {name for node in lowered.graph.nodes if node.op == "rope" for name in node.weights}
        assert ropes and ropes <= public
        assert public - ropes == (set() if table_is_secret else {"embed_tokens.weight"})


def test_a_tied_head_and_a_public_table_are_two_tensors():
    lowered = lower(random_model("llama"))
    head = next(node for node in lowered.graph.nodes if node.module == "lm_head")
    assert head.weights[0] != "embed_tokens.weight"
    assert lowered.graph.weights[head.weights[0]].secret


def test_each_node_knows_its_layer_and_module():
    graph = lower(random_model("llama")).graph
    assert [(n.layer, n.module) for n in graph.nodes if n.op == "swiglu"] == [
        (0, "layers.0.mlp"), (1, "layers.1.mlp"),
    ]  # fmt: skip
    norms = [(n.layer, n.module) for n in graph.nodes if n.op == "rms_norm"]
    assert norms[0] == (0, "layers.0.input_layernorm") and norms[-1] == (None, "norm")
    assert graph.nodes[-1].op == "output"
    assert sum(node.op == "softmax" for node in graph.nodes) == 2


def test_only_the_last_position_reaches_the_head():
    graph = lower(random_model("llama")).graph
    ops = [node.op for node in graph.nodes]
    head = next(i for i, node in enumerate(graph.nodes) if node.module == "lm_head")
    assert "last_token" in ops[:head]


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("gelu", r"^layers\.1\.mlp uses aten\.\S+, for which there is no secure operator"),
        ("gemma", r"^norm uses aten\.\S+, for which there is no secure operator"),
    ],
)
def test_what_has_no_operator_is_one_sentence_that_names_module_and_operator(kind, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        lower(random_model(kind))
    assert "\n" not in str(caught.value)

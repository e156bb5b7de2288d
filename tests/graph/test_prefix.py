"""A prefix as constants of the model, in plaintext, against Transformers on the whole text."""

from __future__ import annotations

import pytest
import torch

from mpcbench.errors import UserError
from mpcbench.graph.decoding import continued, prefix_length, with_cache
from mpcbench.graph.interpreter import PlaintextInterpreter
from mpcbench.graph.lower import lower
from mpcbench.graph.prefix import prefixed
from mpcbench.graph.ranges import Observer, observe
from mpcbench.graph.secure_graph import SecureGraph
from tests.graph.models import last_logits, polynomial_model, random_model, tokens

MODELS = {"llama": lambda: random_model("llama"), "quadratic": lambda: polynomial_model(2)}


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("kind", MODELS)
def test_prompts_go_on_behind_it(kind, count):
    model, ids = MODELS[kind](), tokens(11)
    made = prefixed(lower(model), ids[:, :count])
    made.graph.check()
    assert prefix_length(made.graph) == count
    plain = PlaintextInterpreter(made.graph, made.weights)
    expected = last_logits(model, ids)
    torch.testing.assert_close(plain.run(ids[:, count:]), expected, rtol=1e-4, atol=1e-4)


def test_a_generation_goes_on_behind_it_as_well():
    model, ids = random_model("llama"), tokens(12)
    made = prefixed(lower(model), ids[:, :3])
    graph = with_cache(made.graph)
    assert graph is made.graph  # it has its caches already
    plain = PlaintextInterpreter(graph, made.weights)
    start = 0
    for length in (5, 1, 1):
        plain.use(continued(graph, start))
        logits = plain.run(ids[:, 3 + start : 3 + start + length])
        start += length
        torch.testing.assert_close(logits, last_logits(model, ids[:, : 3 + start]), rtol=1e-4, atol=1e-4)


def test_the_graph_holds_it_as_secret_weights_and_no_range_of_the_first_position():
    lowered = lower(random_model("llama"))
    observer = Observer(lowered.graph, lowered.weights)
    observer.run(tokens(9))
    lowered.graph = observe(lowered.graph, observer)
    graph = prefixed(lowered, tokens(2)).graph
    own = {name: weight for name, weight in graph.weights.items() if name not in lowered.graph.weights}
    assert len(own) == 4 and all(weight.secret for weight in own.values())  # keys and values of two layers
    assert {tuple(weight.shape) for weight in own.values()} == {(1, 2, 4, 2), (1, 2, 2, 4)}
    for node in graph.nodes[:-2]:  # behind the last token no later position was seen
        seen = node.attrs.get("range", {})
        assert not any(name.endswith("_first") for name in seen)
        assert seen.get("first") == seen.get("rest")
    assert graph.max_tokens == lowered.graph.max_tokens - 2
    assert SecureGraph.from_json(graph.to_json()) == graph


def test_a_prefix_that_leaves_no_room_is_refused():
    with pytest.raises(UserError, match="prefix of 127 tokens leaves 1 of the model's positions"):
        prefixed(lower(random_model("llama")), tokens(127))

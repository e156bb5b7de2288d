"""The graph with a cache, in plaintext, against Transformers without one."""

from __future__ import annotations

import pytest
import torch

from mpcbench.graph.decoding import choosing, continued, with_cache
from mpcbench.graph.interpreter import PlaintextInterpreter
from mpcbench.graph.lower import Lowered, lower
from mpcbench.graph.ranges import Observer, observe
from mpcbench.graph.secure_graph import SecureGraph
from tests.graph.models import last_logits, polynomial_model, random_model, tokens

MODELS = {
    "llama": lambda: random_model("llama"),
    "qwen2": lambda: random_model("qwen2"),
    "quadratic": lambda: polynomial_model(2),
    "quartic": lambda: polynomial_model(4),
}


def _steps(lowered: Lowered, ids: torch.Tensor, lengths: list[int]) -> list[torch.Tensor]:
    """Outputs after so many tokens at a time, each step reading what those before have cached."""
    graph, found, start = with_cache(lowered.graph), [], 0
    interpreter = PlaintextInterpreter(graph, lowered.weights)
    for length in lengths:
        interpreter.use(continued(graph, start))
        found.append(interpreter.run(ids[:, start : start + length]))
        start += length
    return found


@pytest.mark.parametrize("kind", MODELS)
def test_steps_compute_what_the_whole_text_gives(kind):
    model, ids = MODELS[kind](), tokens(13)
    found = _steps(lower(model), ids, [7, 1, 1, 3, 1])
    for end, logits in zip((7, 8, 9, 12, 13), found, strict=True):
        torch.testing.assert_close(logits, last_logits(model, ids[:, :end]), rtol=1e-4, atol=1e-4)


def test_a_cleared_cache_begins_a_new_text():
    model = random_model("llama")
    graph = with_cache(lower(model).graph)
    interpreter = PlaintextInterpreter(graph, lower(model).weights)
    for seed in (0, 1):
        interpreter.cache.clear()
        found = interpreter.run(tokens(6, seed))
        torch.testing.assert_close(found, last_logits(model, tokens(6, seed)), rtol=1e-4, atol=1e-4)


def test_the_choice_is_the_largest_logit():
    model = random_model("llama")
    lowered = lower(model)
    found = PlaintextInterpreter(choosing(lowered.graph), lowered.weights).run(tokens(9))
    assert found.tolist() == last_logits(model, tokens(9)).argmax(-1).tolist()


@pytest.fixture(scope="module")
def ranged() -> SecureGraph:
    lowered = lower(random_model("llama"))
    observer = Observer(lowered.graph, lowered.weights)
    observer.run(tokens(9))
    return observe(lowered.graph, observer)


def test_weights_and_the_other_nodes_stay(ranged):
    graph = continued(with_cache(ranged), 5)
    kept = {node.name: node for node in graph.nodes if node.op not in ("past", "append")}
    assert list(kept) == [node.name for node in ranged.nodes]
    assert all(kept[node.name].weights == node.weights for node in ranged.nodes)
    graph.check()
    slots = [node.attrs["slot"] for node in graph.nodes if node.op == "append"]
    assert slots == [node.attrs["slot"] for node in graph.nodes if node.op == "matmul"]
    assert slots == list(range(2 * 2))  # keys and values of two layers
    assert SecureGraph.from_json(graph.to_json()) == graph


def test_later_tokens_have_the_ranges_of_later_positions(ranged):
    seen = {node.name: node.attrs["range"] for node in ranged.nodes if "range" in node.attrs}
    for node in continued(with_cache(ranged), 5).nodes:
        if node.op == "rms_norm":
            assert node.attrs["range"] == {"first": seen[node.name]["rest"], "rest": seen[node.name]["rest"]}
        elif node.module == "lm_head":  # it reads one position, the last, wherever that is
            assert node.attrs["range"] == seen[node.name]
        elif "range" in node.attrs:
            assert not any(name.endswith("_first") for name in node.attrs["range"])
            assert node.attrs["range"].items() <= seen[node.name].items()


def test_nothing_cached_changes_nothing(ranged):
    assert continued(with_cache(ranged), 0) == with_cache(ranged)

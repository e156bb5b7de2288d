from __future__ import annotations

import json

import pytest

from mpcbench.errors import UserError
from mpcbench.graph.lower import lower
from mpcbench.graph.secure_graph import SecureGraph
from tests.graph.models import random_model


@pytest.fixture(scope="module")
def graph() -> SecureGraph:
    return lower(random_model("llama")).graph


def test_a_graph_survives_its_file(graph, tmp_path):
    (tmp_path / "graph.json").write_text(graph.to_json())
    again = SecureGraph.read(tmp_path / "graph.json")
    assert again.to_json() == graph.to_json()
    assert again.sha256() == graph.sha256()
    assert again.nodes == graph.nodes and again.weights == graph.weights


def test_its_file_holds_no_weights(graph):
    def numbers(value):
        if isinstance(value, dict):
            return max([0, *map(numbers, value.values())])
        if isinstance(value, list):
            floats = sum(isinstance(item, float) for item in value)
            return max([floats, *map(numbers, value)])
        return 0

    assert numbers(json.loads(graph.to_json())) <= 4  # attributes and ranges, never a row of a matrix


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda body: body["nodes"][3].update(op="os.system"), "'os.system', which this mpcbench does not"),
        (lambda body: body["nodes"][3].update(inputs=["nobody"]), "uses 'nobody', which is not defined"),
        (lambda body: body["nodes"][3].update(weights=["nothing"]), "uses 'nothing', which is not defined"),
        (lambda body: body.update(format=99), "has another format"),
        (lambda body: body.pop("nodes"), "is not a graph"),
        (lambda body: body.update(more=1), "is not a graph"),
        (lambda body: body["weights"].update(w={"secret": True}), "is not a graph"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_sentence(graph, change, sentence):
    body = json.loads(graph.to_json())
    change(body)
    with pytest.raises(UserError, match=sentence):
        SecureGraph.from_json(json.dumps(body))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"graph"', "null"])
def test_no_graph_at_all(text):
    with pytest.raises(UserError, match="is not a graph"):
        SecureGraph.from_json(text)


def test_a_missing_file_says_what_to_name(tmp_path):
    with pytest.raises(UserError, match="name a party's folder"):
        SecureGraph.read(tmp_path / "graph.json")


def test_every_value_is_freed_after_its_last_use_and_once(graph):
    freed = [name for names in graph.last_uses().values() for name in names]
    assert len(freed) == len(set(freed)) == len(graph.nodes) - 1  # all but the output
    order = {node.name: index for index, node in enumerate(graph.nodes)}
    for user, names in graph.last_uses().items():
        later = [node for node in graph.nodes if order[node.name] > order[user]]
        assert not any(set(names) & set(node.inputs) for node in later)

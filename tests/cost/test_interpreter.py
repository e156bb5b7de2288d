"""What the cost interpreter predicts is what two parties and a dealer enter, entry by entry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mpcbench.cost.interpreter import predict
from mpcbench.errors import UserError
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.records.schema import PHASES, REPETITION, Entry, Ledger
from mpcbench.secure.protocol import load_protocol
from tests.cost.runs import LENGTH, PROTOCOLS, export, run_all, scopes
from tests.secure.pair import run_pair

CASES = [
    ("swiglu", "client"), ("deferred", "client"), ("prefixed", "client"), ("quadratic", "private"),
    ("quartic", "client"), ("unfolded", "client"),
]  # fmt: skip
RUNS = [(f"{kind}-{embedding}", protocol) for kind, embedding in CASES for protocol in PROTOCOLS]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, SecureGraph]]:
    made = {}
    for kind, embedding in CASES:
        folder = tmp_path_factory.mktemp(f"{kind}-{embedding}")
        made[f"{kind}-{embedding}"] = (folder, export(folder, kind, embedding))
    return made


@pytest.fixture(scope="module")
def measured(graphs) -> tuple[dict, dict]:
    return run_pair(run_all, {name: str(folder) for name, (folder, _) in graphs.items()}, provider="dealer")


def _flat(ledger: Ledger) -> dict[tuple, Entry]:
    return {
        (phase, e.layer, e.module, e.operator): e for phase in PHASES for e in getattr(ledger, phase).entries
    }


@pytest.mark.parametrize(("name", "protocol"), RUNS, ids=lambda word: word)
def test_every_entry_of_a_real_run_is_predicted_exactly(name, protocol, graphs, measured):
    predicted = _flat(predict(graphs[name][1], load_protocol(protocol, "dealer"), LENGTH))
    seeds = predicted.pop(("setup", None, "seeds", "seeds"))  # entered before these runs
    assert (seeds.bytes_sent, seeds.rounds, seeds.tuples, seeds.calls) == ((32, 32), 1, {}, 1)
    first, second = (
        dict(scopes(party[name, protocol]["setup"] + party[name, protocol]["inference"]))
        for party in measured
    )
    seen = {scope for scope in first if scope[3] != REPETITION}
    assert seen == set(predicted)
    for scope in seen:
        entry, a, b = predicted[scope], first[scope], second[scope]
        assert (a["bytes_sent"], b["bytes_sent"]) == entry.bytes_sent, scope
        assert a["rounds"] == b["rounds"] == entry.rounds, scope
        assert a["tuples"] == b["tuples"] == entry.tuples, scope
        assert (a["dealt_bytes"], b["dealt_bytes"]) == (entry.dealt_bytes or (0, 0)), scope
        assert (a["unseeded_bytes"], b["unseeded_bytes"]) == (entry.unseeded_bytes or (0, 0)), scope
        if scope[0] != "offline":  # an operator asks for its tuples in as many requests as it likes
            assert a["calls"] == b["calls"] == entry.calls, scope


def test_cases_are_what_they_are_called(graphs):
    kinds = {name: {node.op for node in graph.nodes} for name, (_, graph) in graphs.items()}
    assert "swiglu" in kinds["swiglu-client"]
    assert "quadratic_glu" in kinds["quadratic-private"] and "swiglu" not in kinds["quadratic-private"]
    assert {"nested_glu", "swiglu"} <= kinds["quartic-client"]
    assert "polynomial_glu" in kinds["unfolded-client"]
    arranged = load_protocol("frontier").arranged(graphs["deferred-client"][1], LENGTH)
    assert [node.op for node in arranged.nodes].count("normed_scores") == 2


def test_first_party_deals_nothing_over_the_wire(graphs):
    graph = graphs["swiglu-client"][1]
    own, dealt = (
        predict(graph, load_protocol("crypten", provider), LENGTH) for provider in ("first-party", "dealer")
    )
    assert own.online == dealt.online
    assert own.offline.bytes == 0 < dealt.offline.bytes_sent[1]
    for mine, theirs in zip(own.offline.entries, dealt.offline.entries, strict=True):
        assert mine.tuples == theirs.tuples
        assert mine.dealt_bytes == theirs.dealt_bytes[::-1]  # party 0 keeps what a dealer would send party 1
        assert mine.unseeded_bytes == theirs.unseeded_bytes


@pytest.mark.parametrize("count", [0, 1, 129])
def test_number_of_tokens_that_the_model_does_not_take_is_refused(count, graphs):
    with pytest.raises(UserError, match="this model takes 2 to 128 tokens"):
        predict(graphs["swiglu-client"][1], load_protocol("crypten"), count)


def test_a_step_needs_room_behind_what_is_cached(graphs):
    graph = graphs["swiglu-client"][1]
    step = predict(graph, load_protocol("crypten"), 1, cached=127)
    assert step.online.rounds == predict(graph, load_protocol("crypten"), 128).online.rounds
    assert step.online.bytes < predict(graph, load_protocol("crypten"), 128).online.bytes
    with pytest.raises(UserError, match="--tokens 128: this model takes 2 to 127 tokens"):
        predict(graph, load_protocol("crypten"), 1, cached=128)


def test_graph_without_ranges_is_refused_where_they_matter(graphs):
    graph = graphs["swiglu-client"][1]
    bare = replace(graph, nodes=[replace(n, attrs={k: v for k, v in n.attrs.items() if k != "range"})
                                 for n in graph.nodes])  # fmt: skip
    with pytest.raises(UserError, match="no calibrated range"):
        predict(bare, load_protocol("frontier"), LENGTH)

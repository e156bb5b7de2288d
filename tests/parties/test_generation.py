"""Text between two real parties: the tokens, what each took, and when it ends."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch

from mpcbench.cost.declared import Cost
from mpcbench.cost.interpreter import predict
from mpcbench.errors import PeerError
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.parties.launcher import LocalRun, run_here
from mpcbench.parties.party import Outcome
from mpcbench.parties.result import (
    ALL_LAYERS,
    by_operator,
    later_steps,
    merge_ledgers,
    merge_openings,
)
from mpcbench.records.schema import REPETITION
from mpcbench.secure.protocol import load_protocol
from tests.parties.conftest import TOKENS, Exported

NEW = 4


def _run(exported: Exported, protocol: str, **changes: object) -> Outcome:
    usual = {"repetitions": 1, "warmups": 0, "threads": 1, "new_tokens": NEW}
    shares = changes.pop("shares", exported.client)
    return run_here(LocalRun(shares, protocol, TOKENS, **{**usual, **changes}))


def _plaintext(exported: Exported, count: int = NEW) -> tuple[int, ...]:
    ids = TOKENS
    with torch.no_grad():
        for _ in range(count):
            ids = torch.cat([ids, exported.checkpoint.model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return tuple(ids[0, TOKENS.shape[1] :].tolist())


@pytest.fixture(scope="module")
def frontier(exported: Exported) -> Outcome:
    """Twice, so that the second text's randomness is dealt ahead."""
    return _run(exported, "frontier", repetitions=2)


@pytest.fixture(scope="module")
def crypten(exported: Exported) -> Outcome:
    return _run(exported, "crypten")


def test_tokens_are_the_plaintexts(exported: Exported, frontier: Outcome, crypten: Outcome) -> None:
    assert frontier.tokens == crypten.tokens == _plaintext(exported)
    for outcome in (frontier, crypten):
        assert (outcome.logits - exported.logits()).abs().max() < 0.05  # of the prompt


def test_every_token_has_a_ledger_and_opens_its_logits_alone(frontier: Outcome, crypten: Outcome) -> None:
    for outcome, repetitions in ((frontier, 2), (crypten, 1)):
        steps = later_steps(outcome.results)
        assert len(steps) == NEW - 1
        for online, offline, times, openings in steps:
            assert {"linear", "softmax", "matmul", "swiglu"} <= {entry.operator for entry in online.entries}
            assert {entry.module for entry in online.entries if entry.operator == "softmax"} == {ALL_LAYERS}
            assert all(entry.layer is None for entry in [*online.entries, *offline.entries])
            assert openings.unmasked == ["logits of the last position"]
            assert len(times.online_seconds) == repetitions
        assert merge_openings(outcome.results).unmasked == ["logits of the last position"]


def test_weights_are_masked_once_and_a_step_is_cheap(frontier: Outcome, crypten: Outcome) -> None:
    """Set-up opened every weight; a step of one token then opens activations, under CrypTen weights again."""
    first = merge_ledgers(frontier.results)
    assert first.setup.bytes > 0
    for online, *_ in later_steps(frontier.results):
        assert online.bytes < first.online.bytes / 3
    weights = [entry for entry in merge_ledgers(crypten.results).online.entries if entry.operator == "linear"]
    for online, *_ in later_steps(crypten.results):
        (linear,) = [e for e in online.entries if e.operator == "linear" and e.module == ALL_LAYERS]
        whole = sum(entry.bytes_sent[0] for entry in weights if entry.layer is not None)
        assert linear.bytes_sent[0] > whole / 2


def test_under_frontier_cached_rows_are_not_opened_again(frontier: Outcome, crypten: Outcome) -> None:
    """Keys and values of 2 heads of 4 channels in 2 layers: under CrypTen a token more is 32 numbers more."""
    numbers = {}
    for name, outcome, width in (("frontier", frontier, 6), ("crypten", crypten, 8)):
        sent = [
            next(entry.bytes_sent[0] for entry in online.entries if entry.operator == "matmul")
            for online, *_ in later_steps(outcome.results)
        ]
        numbers[name] = [(second - first) / width for first, second in pairwise(sent)]
    weights = 2 * 4  # one weight of attention more in each of 4 heads of 2 layers
    assert numbers == {"frontier": [weights] * 2, "crypten": [weights + 32] * 2}


@pytest.mark.parametrize("protocol", ["crypten", "frontier"])
def test_every_step_costs_what_its_graph_declares(
    exported: Exported, frontier: Outcome, crypten: Outcome, protocol: str
) -> None:
    """Declared costs of the graph continued after so many tokens, added up by operator: bytes and rounds."""
    outcome = {"crypten": crypten, "frontier": frontier}[protocol]
    graph = SecureGraph.read(exported.client / "party0" / "graph.json")
    for index, (online, offline, *_) in enumerate(later_steps(outcome.results)):
        declared = _declared(graph, protocol, TOKENS.shape[1] + index)
        measured = Cost()
        for entry in online.entries:
            if entry.operator != REPETITION:
                measured += Cost(entry.bytes_sent[0], entry.rounds)
        assert (measured.bytes_sent, measured.rounds) == (declared.bytes_sent, declared.rounds)
        tuples = sum((Counter(e.tuples) for e in offline.entries if e.operator != REPETITION), Counter())
        assert tuples == declared.tuples


def _declared(graph: SecureGraph, protocol: str, past: int) -> Cost:
    """Of one token after ``past`` cached ones, from shapes alone."""
    ledger = predict(graph, load_protocol(protocol, "dealer"), 1, past)
    tuples = sum((Counter(entry.tuples) for entry in ledger.offline.entries), Counter())
    return Cost(ledger.online.bytes_sent[0], ledger.online.rounds, tuples)


def test_private_logits_open_the_token_alone(exported: Exported) -> None:
    outcome = _run(exported, "frontier", private_logits=True)
    assert outcome.tokens == _plaintext(exported)
    assert outcome.logits is None
    assert merge_openings(outcome.results).unmasked == ["token"]
    assert [openings.unmasked for *_, openings in later_steps(outcome.results)] == [["token"]] * (NEW - 1)
    operators = {entry.operator for entry in merge_ledgers(outcome.results).online.entries}
    assert "argmax" in operators


def test_private_embedding_and_a_token_that_ends_the_text(exported: Exported) -> None:
    plain = _plaintext(exported)
    end = next(token for token in plain if token != plain[0])
    outcome = _run(exported, "frontier", shares=exported.private, new_tokens=20, stop=(end,))
    assert outcome.tokens == plain[: plain.index(end) + 1]


def test_a_text_too_long_for_the_model_is_refused(exported: Exported) -> None:
    with pytest.raises(
        PeerError, match=r"^party \d .*has 7 tokens and the model has 128 positions: ask for 1 to 122"
    ):
        _run(exported, "crypten", new_tokens=123)


def test_lines_by_operator_add_up(crypten: Outcome) -> None:
    lines = crypten.results[0].lines
    added = by_operator(lines)
    assert len({line.scope for line in added}) == len(added) < len(lines)
    for name in ("calls", "bytes_sent", "rounds", "dealt_bytes", "unseeded_bytes"):
        assert sum(getattr(line, name) for line in added) == sum(getattr(line, name) for line in lines)

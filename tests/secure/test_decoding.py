"""Greedy generation with secret-shared keys and values, with one party: every protocol, step by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mpcbench.checkpoints import Checkpoint, load
from mpcbench.distill import Texts, calibrate
from mpcbench.graph.interpreter import PlaintextInterpreter
from mpcbench.graph.lower import lower
from mpcbench.graph.secure_graph import Node
from mpcbench.graph.shares import ShareFolder, read_shares
from mpcbench.pipeline.export import export
from mpcbench.pipeline.generation import plaintext_tokens
from mpcbench.secure.decoding import LOGITS, TOKEN, Decoder
from mpcbench.secure.guard import Guard
from mpcbench.secure.interpreter import SecureInterpreter
from mpcbench.secure.ledger import Ledger
from mpcbench.secure.protocol import Protocol, available, load_protocol
from tests.secure.single import one_party
from tests.tiny import tiny_folder, tiny_texts

PROMPT = torch.tensor([[5, 9, 33, 60, 3, 17, 17]])
NEW = 6
TEXTS = Texts(tiny_texts(), "random words", "0")


@pytest.fixture(scope="module", params=["SwiGLU", "quadratic"])
def model(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, ShareFolder]:
    """A tiny Llama, or the same with a polynomial layer, and both parties' shares added up."""
    folder: Path = tmp_path_factory.mktemp("decoding")
    checkpoint = load(str(tiny_folder(folder / "model")))
    if request.param == "quadratic":
        out = folder / "quadratic"
        checkpoint = load(str(calibrate(checkpoint, 1, 2, placement="first", texts=TEXTS, folder=out)))
    export(checkpoint, folder / "shares", "client", 16, TEXTS)
    first, second = (read_shares(folder / "shares" / f"party{rank}", rank) for rank in (0, 1))
    weights = {name: share + second.shares[name] for name, share in first.shares.items()}
    return checkpoint, replace(second, shares=weights)


class Reference(PlaintextInterpreter):
    """Plaintext with the functions that a protocol puts in place of softmax and SiLU."""

    def __init__(self, checkpoint: Checkpoint, folder: ShareFolder, protocol: Protocol):
        super().__init__(folder.graph, lower(checkpoint.model, "client").weights)
        self.operators = protocol.operators

    def call(self, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
        kind = PlaintextInterpreter if node.op == "embedding" else self.operators[node.op]
        if kind is PlaintextInterpreter:
            return super().call(node, inputs)
        return kind.reference(node, inputs, [self.weights[name] for name in node.weights])

    def greedy(self) -> list[int]:
        ids = PROMPT
        for _ in range(NEW):
            ids = torch.cat([ids, self.run(ids)[0].argmax(-1, keepdim=True)], dim=1)
        return ids[0, PROMPT.shape[1] :].tolist()


def _generated(folder: ShareFolder, protocol: str, private: bool = False) -> tuple[list[int], list[Any]]:
    """The tokens, and each step's guard and ledger."""
    with one_party() as communicator:
        interpreter = SecureInterpreter(folder, load_protocol(protocol), communicator)
        decoder, found, steps = Decoder(interpreter, private), [], []
        decoder.restart()
        tokens = PROMPT
        for _ in range(NEW):
            communicator.ledger, communicator.guard = Ledger(), Guard()
            decoder.prepare(tokens.shape[1])
            found.append(decoder.step(tokens, tokens.shape[1]))
            steps.append((communicator.guard, communicator.ledger))
            tokens = torch.tensor([[found[-1]]])
        assert (decoder.logits is None) == private
    return found, steps


@pytest.mark.parametrize("protocol", available())
def test_tokens_are_those_of_the_protocols_functions_in_plaintext(model, protocol):
    checkpoint, folder = model
    expected = Reference(checkpoint, folder, load_protocol(protocol)).greedy()
    if protocol not in ("mpcformer", "secformer"):  # they put another function in place of softmax
        assert expected == plaintext_tokens(checkpoint, PROMPT, NEW)
    found, steps = _generated(folder, protocol)
    assert found == expected
    assert [guard.unmasked for guard, _ in steps] == [[LOGITS]] * NEW


@pytest.mark.parametrize("protocol", ["crypten", "frontier"])
def test_private_logits_give_the_same_tokens_and_open_no_logits(model, protocol):
    checkpoint, folder = model
    found, steps = _generated(folder, protocol, private=True)
    assert found == plaintext_tokens(checkpoint, PROMPT, NEW)
    assert [guard.unmasked for guard, _ in steps] == [[TOKEN]] * NEW


def test_rounds_follow_from_the_length_alone(model):
    """Softmax's tree has three levels over 7 and 8 keys, and four over 9 to 16, in each of two layers."""
    _, steps = _generated(model[1], "frontier")
    rounds = [ledger.total("online").rounds for _, ledger in steps]
    assert rounds == [rounds[0]] * 2 + [rounds[0] + 2] * (NEW - 2)


def test_under_frontier_a_step_opens_its_own_keys_and_values_alone(model):
    """Four heads of four channels: what is multiplied grows with the cache, and needs no other triple."""
    _, steps = _generated(model[1], "frontier")
    for index, (_, ledger) in enumerate(steps[1:]):
        cached = PROMPT.shape[1] + index
        tuples = [
            tally.tuples["cached_matmul"] for scope, tally in ledger.tallies.items()
            if scope.operator == "matmul" and scope.phase == "offline"
        ]  # fmt: skip
        assert tuples == [4 * (cached + 1) + 4 * 4] * 2  # scores, and mixtures of values
        assert "matmul" not in ledger.total("offline").tuples

"""The secure interpreter, with one party: fixed point agrees with float, and results are decoded rightly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mpcbench.checkpoints import Checkpoint, load
from mpcbench.distill import Texts
from mpcbench.errors import UserError
from mpcbench.graph.secure_graph import Node, SecureGraph, Weight
from mpcbench.graph.shares import ShareFolder, read_shares
from mpcbench.pipeline.export import export
from mpcbench.secure.interpreter import SecureInterpreter
from mpcbench.secure.protocol import load_protocol
from mpcbench.secure.substrate import crypten
from tests.secure.single import one_party
from tests.tiny import tiny_folder, tiny_texts

STEP = 2.0**-16
TOKENS = torch.tensor([[5, 9, 33, 60, 2, 17, 17]])


# CrypTen's decoding, and ours in its place.


def test_crypten_decodes_negative_values_just_above_an_integer_wrongly() -> None:
    """Once this fails, CrypTen's own decoding can be used again in SecureInterpreter.infer."""
    encoder = crypten.encoder.FixedPointEncoder(precision_bits=16)
    values = torch.tensor([-2 + STEP, -7 + 5 * STEP, -2 - STEP, 1 + STEP], dtype=torch.float64)
    decoded = encoder.decode((values * 2**16).long()).double()
    assert (decoded - values).tolist() == [-1.0, -1.0, 0.0, 0.0]


def _lookup(rows: torch.Tensor) -> ShareFolder:
    """A folder whose graph opens the embedding of the last token."""
    nodes = (
        Node("x", "tokens"),
        Node("e", "embedding", ("x",), ("table",)),
        Node("l", "last_token", ("e",)),
        Node("o", "output", ("l",)),
    )
    count, width = rows.shape
    graph = SecureGraph(
        nodes=list(nodes), weights={"table": Weight((count, width), secret=False)}, embedding="client",
        vocab_size=count, max_tokens=16,
    )  # fmt: skip
    return ShareFolder(0, "test", 16, graph, {}, {"table": rows})


def test_infer_decodes_every_multiple_of_the_step_rightly() -> None:
    whole = torch.arange(-9, 10).repeat_interleave(5) * 1.0
    row = whole + torch.tensor([-2, -1, 0, 1, 2]).repeat(19) * STEP
    folder = _lookup(torch.stack([torch.zeros_like(row), row]))
    with one_party() as communicator:
        logits = SecureInterpreter(folder, load_protocol("crypten"), communicator).infer(
            torch.tensor([[0, 1]]), 2
        )
    assert logits.equal(row)


# A whole tiny Llama.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return load(str(tiny_folder(tmp_path_factory.mktemp("interpreter") / "model")))


@pytest.fixture(scope="module", params=["client", "private"])
def folder(request: Any, checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> ShareFolder:
    return _whole(checkpoint, tmp_path_factory.mktemp("shares"), request.param)


def _whole(
    checkpoint: Checkpoint, out: Path, embedding: str, prefix: torch.Tensor | None = None
) -> ShareFolder:
    """Both parties' shares added up: what one party alone computes on."""
    export(checkpoint, out, embedding, 16, Texts(tiny_texts(), "test", "0"), prefix=prefix)
    first, second = (read_shares(out / f"party{rank}", rank) for rank in (0, 1))
    weights = {name: share + second.shares[name] for name, share in first.shares.items()}
    return replace(second, shares=weights)


def test_logits_agree_with_plaintext(checkpoint: Checkpoint, folder: ShareFolder) -> None:
    seen = []
    with one_party() as communicator:
        interpreter = SecureInterpreter(folder, load_protocol("crypten"), communicator)
        interpreter.on_node = lambda node: seen.append(node.name)
        settings = crypten.cfg.config
        logits = interpreter.infer(TOKENS, TOKENS.shape[1])
        assert crypten.cfg.config is settings  # what an operator sets ends with it
        guard, ledger = communicator.guard, communicator.ledger
    with torch.no_grad():
        expected = checkpoint.model(TOKENS).logits[0, -1]
    assert (logits - expected).abs().max() < 0.05
    assert logits.argmax() == expected.argmax()
    assert guard.unmasked == ["logits of the last position"]
    assert len(seen) == sum(node.op != "tokens" for node in folder.graph.nodes)
    modules = {(scope.layer, scope.module) for scope in ledger.tallies if scope.phase == "online"}
    assert {layer for layer, _ in modules} == {None, 0, 1}
    assert (1, "layers.1.mlp.down_proj") in modules


@pytest.mark.parametrize("count", [7, 20])
def test_norms_that_are_put_off_change_nothing(count: int, tmp_path: Path) -> None:
    """``frontier`` puts them off for seven tokens of this model, and not for twenty."""
    checkpoint = load(str(tiny_folder(tmp_path / "model", hidden=32)))
    tokens = torch.randint(3, 64, (1, count), generator=torch.Generator().manual_seed(1))
    with one_party() as communicator:
        whole = _whole(checkpoint, tmp_path / "shares", "client")
        interpreter = SecureInterpreter(whole, load_protocol("frontier"), communicator)
        logits = interpreter.infer(tokens, count)
    assert ("normed_scores" in {node.op for node in interpreter.graph.nodes}) == (count == 7)
    with torch.no_grad():
        expected = checkpoint.model(tokens).logits[0, -1]
    assert (logits - expected).abs().max() < 0.05


@pytest.mark.parametrize("protocol", ["crypten", "frontier"])
def test_inferences_go_on_behind_a_prefix(protocol: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    with one_party() as communicator:
        whole = _whole(checkpoint, tmp_path / "shares", "client", prefix=TOKENS[:, :2])
        interpreter = SecureInterpreter(whole, load_protocol(protocol), communicator)
        for _ in range(2):  # the second begins behind the prefix again
            logits = interpreter.infer(TOKENS[:, 2:], TOKENS.shape[1] - 2)
    with torch.no_grad():
        expected = checkpoint.model(TOKENS).logits[0, -1]
    assert (logits - expected).abs().max() < 0.05


def test_every_weight_is_used_once_as_it_is_stored(folder: ShareFolder) -> None:
    with one_party() as communicator:
        weights = SecureInterpreter(folder, load_protocol("crypten"), communicator).weights
    assert set(weights) == set(folder.public) | set(folder.shares)
    assert all(isinstance(weights[name], crypten.CrypTensor) for name in folder.shares)


def test_shares_of_another_fixed_point_format_are_refused() -> None:
    folder = replace(_lookup(torch.zeros(2, 4)), fraction_bits=12)
    with one_party() as communicator, pytest.raises(UserError) as caught:
        SecureInterpreter(folder, load_protocol("crypten"), communicator)
    assert "12 fraction bits" in str(caught.value)
    assert "wants 16" in str(caught.value)


def test_an_inference_leaves_the_weights_as_they_were(folder: ShareFolder) -> None:
    with one_party() as communicator:
        interpreter = SecureInterpreter(folder, load_protocol("crypten"), communicator)
        before = {name: interpreter.weights[name].share.clone() for name in folder.shares}
        interpreter.infer(TOKENS, TOKENS.shape[1])
    assert all(interpreter.weights[name].share.equal(share) for name, share in before.items())

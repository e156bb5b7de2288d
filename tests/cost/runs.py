"""Small Llamas under every protocol, run by two parties and a dealer, for the estimate to be held against."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from mpcbench.checkpoints import PolyLlamaForCausalLM, with_polynomials
from mpcbench.graph.lower import Lowered, lower
from mpcbench.graph.prefix import prefixed
from mpcbench.graph.ranges import Observer, observe
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.graph.shares import read_shares, write_shares
from mpcbench.secure.protocol import available
from tests.graph.models import polynomial_model, random_model, tokens
from tests.tiny import tiny_llama

ROWS = {2: (0.1, 0.5, 0.15), 4: (0.1, 0.5, 0.2, 0.01, -0.004)}
"""Coefficients near SiLU's, so that values stay in ranges that series can be fitted to."""


def _fitted(degree: int, layers: tuple[int, ...]) -> PolyLlamaForCausalLM:
    column = torch.tensor(ROWS[degree])[:, None]
    scatter = 1 + 0.1 * torch.rand(1, 24, generator=torch.Generator().manual_seed(5))
    return with_polynomials(random_model("llama"), dict.fromkeys(layers, column * scatter), degree)


MODELS = {
    "swiglu": lambda: random_model("llama"),
    "prefixed": lambda: random_model("llama"),
    "deferred": lambda: tiny_llama(hidden=32),
    "quadratic": lambda: _fitted(2, (0, 1)),
    "quartic": lambda: _fitted(4, (1,)),
    "unfolded": lambda: polynomial_model(2, (1,), leading=1e-4),
}
"""What the layers' activations are, folded where the name does not say otherwise; ``prefixed`` goes on
behind three tokens, and ``deferred`` is a SwiGLU model whose norms in front of attention are put off where
the protocol can."""
PROTOCOLS = tuple(available())
LENGTH = 7


def export(folder: Path, kind: str, embedding: str) -> SecureGraph:
    """Shares of a model of :data:`MODELS` with calibrated ranges, in ``folder``."""
    lowered = lower(MODELS[kind](), embedding)
    observer = Observer(lowered.graph, lowered.weights)
    with torch.no_grad():
        for seed in range(8):
            observer.run(tokens(24, seed))
    lowered = Lowered(replace(observe(lowered.graph, observer), model={"name": kind}), lowered.weights)
    if kind == "prefixed":
        lowered = prefixed(lowered, tokens(3))
    write_shares(lowered.graph, lowered.weights, folder, 16)
    return lowered.graph


def run_all(communicator: Any, folders: dict[str, str]) -> dict[tuple[str, str], dict[str, list[dict]]]:
    """In a party's process: every export under every protocol; setup's and the inference's ledgers."""
    return {
        (name, protocol): _run(communicator, Path(folder), protocol)
        for name, folder in folders.items()
        for protocol in PROTOCOLS
    }


def _run(communicator: Any, folder: Path, protocol: str) -> dict[str, list[dict]]:
    from mpcbench.secure.guard import Guard
    from mpcbench.secure.interpreter import SecureInterpreter
    from mpcbench.secure.ledger import Ledger
    from mpcbench.secure.protocol import load_protocol

    rank = communicator.get_rank()
    setup = communicator.ledger = Ledger()
    interpreter = SecureInterpreter(
        read_shares(folder / f"party{rank}"), load_protocol(protocol), communicator
    )
    inference = communicator.ledger = Ledger()
    communicator.guard = Guard()
    interpreter.infer(tokens(LENGTH, 99) if rank == 1 else None, LENGTH)
    return {"setup": setup.as_json(), "inference": inference.as_json()}


def scopes(lines: list[dict]) -> Iterator[tuple[tuple, dict]]:
    """Lines by their scope."""
    for line in lines:
        yield (line["phase"], line["layer"], line["module"], line["operator"]), line

"""The secure interpreter: a graph, run on shares, every node under its own scope of the ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mpcbench.errors import UserError
from mpcbench.graph.interpreter import Interpreter
from mpcbench.graph.secure_graph import Node, SecureGraph
from mpcbench.graph.shares import ShareFolder, encode
from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.protocol import Protocol
from mpcbench.secure.randomness.prg import words
from mpcbench.secure.substrate import crypten

CLIENT = 1
INPUTS = 1 << 63
"""Where the numbers of inputs begin in the common seed's key streams, far from those of requests."""


class SecureInterpreter(Interpreter[Any]):
    """Runs the graph of one party's share folder under a protocol.

    Call after :func:`~mpcbench.secure.substrate.install`. Raises UserError when the shares were cut for
    another fixed-point format than the protocol's. ``on_node`` is called with every node before it runs.
    """

    def __init__(self, folder: ShareFolder, protocol: Protocol, communicator: LinkCommunicator):
        self.protocol, self.operators = protocol, protocol.operators
        self._configs: dict[tuple, Any] = {}
        super().__init__(folder.graph)
        self.source = folder.graph
        """The share folder's own graph."""
        bits = protocol.fixed_point.fraction_bits
        if folder.fraction_bits != bits:
            raise UserError(
                f"The shares have {folder.fraction_bits} fraction bits and protocol {protocol.name} wants "
                f"{bits}: export the model for this protocol."
            )
        self.communicator = communicator
        self.client = CLIENT if communicator.get_world_size() > 1 else 0
        self._inputs = 0
        self.on_node: Callable[[Node], None] = lambda node: None
        self.public = folder.public
        self.weights = self._load(folder, bits)

    def use(self, graph: SecureGraph, count: int | None = None) -> None:
        """Run this graph from now on, arranged for ``count`` tokens if that is known already.

        It must use the weights of the share folder's.
        """
        self._asked, self._arranged_for = graph, count
        super().use(self.protocol.arranged(graph, count))
        nodes = self.graph.nodes
        self._settings = {node.name: self._config(node) for node in nodes if node.op in self.operators}

    def call(self, node: Node, inputs: list[Any]) -> Any:
        self.on_node(node)
        if node.op == "embedding" and self.graph.embedding == "client":
            return inputs[0]  # the client looked its own tokens up
        operator = self.operators[node.op]
        usual = crypten.cfg.config
        crypten.cfg.set_config(self._settings[node.name])
        try:
            with self.communicator.ledger.scope("online", node.layer, node.module, node.op):
                return operator.run(node, inputs, [self.weights[name] for name in node.weights])
        finally:
            crypten.cfg.set_config(usual)

    def infer(self, tokens: torch.Tensor | None, count: int) -> torch.Tensor | None:
        """One forward pass over ``count`` tokens, which the client gives as (1, count) of int64.

        Returns the logits (V,) of the last position to the client and None to the other party.
        """
        self.cache.clear()
        return self.compute(tokens, count, "logits of the last position")

    def compute(self, tokens: torch.Tensor | None, count: int, name: str) -> torch.Tensor | None:
        """As :meth:`infer`, whatever the graph's output is: it is opened to the client, by this name."""
        if count != self._arranged_for:
            self.use(self._asked, count)
        ledger, guard = self.communicator.ledger, self.communicator.guard
        with ledger.scope("online", None, "input", "input"):
            shared = self._share_input(tokens, count)
        output = self.run(shared)
        with ledger.scope("online", None, "output", "output"), guard.output(name):
            opened = output.reveal(dst=self.client)
        if self.communicator.get_rank() != self.client:
            return None
        # Not CrypTen's decode, which returns negative values just above an integer 1.0 too low.
        return (opened.flatten().double() / output.encoder.scale).float()

    def _share_input(self, tokens: torch.Tensor | None, count: int) -> Any:
        """The client's embedded tokens, or its one-hot rows, as a fresh sharing (no communication)."""
        graph = self.graph
        table = next(node.weights[0] for node in graph.nodes if node.op == "embedding")
        private = graph.embedding == "private"
        width = graph.vocab_size if private else graph.weights[table].shape[1]
        value = torch.zeros(1, count, width, dtype=torch.int64 if private else torch.float32)
        if self.communicator.get_rank() == self.client:
            if private:
                value.scatter_(2, tokens.unsqueeze(-1), 1)
            else:
                value = self.public[table][tokens]
        bits = 0 if private else crypten.cfg.encoder.precision_bits
        # Fresh for every input; the model owner holds the seed because the share that it makes is its own.
        self._inputs += 1
        mask = words(self.communicator.common_seed, INPUTS + self._inputs, value.numel()).reshape(value.shape)
        if self.communicator.get_rank() == self.client:
            mask = (
                encode(value, bits) - mask if self.communicator.get_world_size() > 1 else encode(value, bits)
            )
        return crypten.mpc.MPCTensor.from_shares(mask, precision=bits)

    def _load(self, folder: ShareFolder, bits: int) -> dict[str, Any]:
        weights: dict[str, Any] = dict(folder.public)
        for node in self.graph.nodes:
            for name in node.weights:
                if name in folder.shares and name not in weights:
                    weights[name] = self.operators[node.op].load(node, name, folder.shares[name], bits)
        return weights

    def _config(self, node: Node) -> Any:
        """CrypTen's configuration for a node; merging one takes a millisecond, so equal ones are shared."""
        settings = dict(self.operators[node.op].settings(node))
        key = tuple(sorted(settings.items()))
        if key not in self._configs:
            with crypten.cfg.temp_override(settings):
                self._configs[key] = crypten.cfg.config
        return self._configs[key]

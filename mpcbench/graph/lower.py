"""Lower a captured model to the operators of a secure graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.fx import Node as FxNode

from mpcbench.graph.capture import Captured, capture
from mpcbench.graph.fold import fold
from mpcbench.graph.patterns import Match, match, settled
from mpcbench.graph.secure_graph import Node, SecureGraph, Weight

if TYPE_CHECKING:
    from transformers import PretrainedConfig

EMBEDDINGS = ("client", "private")


@dataclass
class Lowered:
    """A secure graph and its weights (float32, by name), before they are cut into shares."""

    graph: SecureGraph
    weights: dict[str, torch.Tensor]


def lower(model: nn.Module, embedding: str = "client") -> Lowered:
    """Capture ``model`` and lower it; norm gains, attention scales and quadratics are folded into weights.

    ``embedding``: ``client`` makes the embedding table public to the client, ``private`` keeps it
    secret and looks rows up under MPC. Raises UserError for what no operator covers.
    """
    with torch.no_grad():
        return finished(*built(model), model.config, embedding)


def built(model: nn.Module) -> tuple[list[Node], dict[str, torch.Tensor]]:
    """Captured and translated, node by node, with nothing folded yet. Raises as :func:`lower` does."""
    builder = _Builder(capture(model))
    return builder.build(), builder.weights


def finished(
    nodes: list[Node], weights: dict[str, torch.Tensor], config: PretrainedConfig, embedding: str
) -> Lowered:
    """Fold, and declare the weights that are left."""
    limit = int(getattr(config, "max_position_embeddings", 4096))
    window = getattr(config, "sliding_window", None)
    graph = SecureGraph(
        nodes=nodes,
        weights={},
        embedding=embedding,
        vocab_size=int(config.vocab_size),
        max_tokens=min(limit, window) if window else limit,
    )
    return _declared(*fold(graph, weights))


def _declared(graph: SecureGraph, weights: dict[str, torch.Tensor]) -> Lowered:
    """Drop unused weights and declare the others: secret, but for RoPE's tables and a public embedding."""
    used = {name for node in graph.nodes for name in node.weights}
    public = {name for node in graph.nodes if node.op == "rope" for name in node.weights}
    if graph.embedding == "client":
        public |= {name for node in graph.nodes if node.op == "embedding" for name in node.weights}
    kept = {name: weights[name].detach().contiguous() for name in sorted(used)}
    graph.weights = {name: Weight(tuple(t.shape), name not in public) for name, t in kept.items()}
    graph.check()
    return Lowered(graph, kept)


class _Builder:
    """Turns captured nodes into graph nodes: matches backwards from the output, then emits forwards."""

    def __init__(self, captured: Captured):
        self.captured = captured
        self.weights: dict[str, torch.Tensor] = {}
        self.names: dict[FxNode, str] = {}
        self.nodes: list[Node] = []

    def build(self) -> list[Node]:
        root = settled(next(n for n in self.captured.graph.nodes if n.op == "output").args[0][0])
        matches: dict[FxNode, Match] = {}
        needed = {root}
        for node in reversed(list(self.captured.graph.nodes)):
            if node in needed:
                matches[node] = match(self.captured, node)
                needed.update(matches[node].inputs)
        for node in self.captured.graph.nodes:
            if node in matches:
                self._emit(node, matches[node])
        self._add("output", "output", [self.names[root]], node=root)
        return self.nodes

    def _emit(self, node: FxNode, found: Match) -> None:
        inputs = [self.names[source] for source in found.inputs]
        if found.op == "attention":
            self.names[node] = self._attention(node, inputs, found.attrs)
            return
        weights = [self._weight(source, found.op) for source in found.weights]
        self.names[node] = self._add(node.name, found.op, inputs, weights, found.attrs, node)

    def _attention(self, node: FxNode, inputs: list[str], attrs: dict) -> str:
        """Attention with grouped queries: heads that share a key are rows of one product."""
        q, k, v = inputs
        name, groups = node.name, attrs["groups"]
        kv_heads, dim = attrs["heads"] // groups, attrs["dim"]
        grouped = {"shape": [1, kv_heads, -1, dim]}
        rows = self._add(f"{name}_q", "reshape", [q], attrs=grouped, node=node)
        keys = self._add(f"{name}_k", "transpose", [k], attrs={"dims": [2, 3]}, node=node)
        scores = self._add(
            f"{name}_scores", "matmul", [rows, keys], attrs={"scale": attrs["scale"]}, node=node
        )
        weights = self._add(f"{name}_softmax", "softmax", [scores], attrs={"groups": groups}, node=node)
        # Its left operand is zero wherever the causal mask hides; `groups` says so.
        causal = {"groups": groups}
        mixed = self._add(f"{name}_mix", "matmul", [weights, v], attrs=causal, node=node)
        ungrouped = {"shape": [1, attrs["heads"], -1, dim]}
        return self._add(name, "reshape", [mixed], attrs=ungrouped, node=node)

    def _weight(self, source: FxNode, op: str) -> str:
        """Register a tensor. The embedding table gets a name of its own even when the head is tied to it."""
        name = self.captured.names[source.name]
        name = "embed_tokens.weight" if op == "embedding" else name
        self.weights[name] = self.captured.tensors[source.name].detach().float()
        return name

    def _add(
        self, name: str, op: str, inputs: list[str], weights: list[str] | None = None,
        attrs: dict | None = None, node: FxNode | None = None,
    ) -> str:  # fmt: skip
        origin = self.captured.origin(node)
        path = "output" if op == "output" else origin.path
        self.nodes.append(
            Node(name, op, tuple(inputs), tuple(weights or ()), dict(attrs or {}), origin.layer, path)
        )
        return name

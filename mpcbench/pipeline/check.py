"""Did this run's values stay within the ranges that its approximations were made for?

Outside its range an approximation under MPC is silently wrong, and nobody can look. With the checkpoint
and the prompt at hand, as on one machine, the graph is run in plaintext beside, and looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from mpcbench.checkpoints import Checkpoint
from mpcbench.graph.decoding import prefix_length
from mpcbench.graph.interpreter import FUNCTIONS, PlaintextInterpreter
from mpcbench.graph.lower import lower
from mpcbench.graph.prefix import prefixed
from mpcbench.graph.ranges import Observer, observe
from mpcbench.graph.secure_graph import Node, SecureGraph
from mpcbench.secure.operators import Operator
from mpcbench.secure.operators.limits import Seen
from mpcbench.secure.protocol import Protocol

Plain = TypeVar("Plain", bound=PlaintextInterpreter)


class Watcher(Observer):
    """A plaintext run of what a protocol's operators compute, which remembers what their checks want too."""

    def __init__(
        self, graph: SecureGraph, weights: Mapping[str, torch.Tensor], operators: Mapping[str, Operator]
    ):
        super().__init__(graph, weights)
        self.operators = operators
        # Quad and 2Quad are functions of their own, and what follows from them has other ranges.
        self.functions = {**FUNCTIONS, **{op: each.reference for op, each in operators.items()}}

    def call(self, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
        result = super().call(node, inputs)
        if node.op in self.operators:
            weights = [self.weights[name] for name in node.weights]
            for name, values in self.operators[node.op].measured(node, inputs, weights, result).items():
                self._widen(node, name, values)
        return result


def range_note(
    shares: Path, checkpoint: Checkpoint, tokens: torch.Tensor, protocol: Protocol, count: int | None
) -> str:
    """A sentence for the record: with ``tokens`` (1, S) all is within range, or the first that is not.

    ``count``: over how many tokens the parties' passes are, None where they generate and lengths differ.
    """
    watch = partial(Watcher, operators=protocol.operators)
    watched = run_in_plaintext(shares, checkpoint, tokens, watch)
    graph = SecureGraph.read(shares / "party0" / "graph.json")
    # Arranged like the calibrated ranges, so that operators which take others' places find what they need.
    seen = protocol.arranged(observe(graph, watched), count)
    ranges = {node.name: node.attrs.get("range", {}) for node in seen.nodes}
    found = first_violation(protocol.arranged(graph, count), ranges, protocol.operators)
    return found or (
        "Checked in plaintext: all values lie within the calibrated ranges, their margins, and the limits of "
        "the operators."
    )


@torch.no_grad()
def run_in_plaintext(
    shares: Path, checkpoint: Checkpoint, tokens: torch.Tensor,
    interpreter: Callable[[SecureGraph, Mapping[str, torch.Tensor]], Plain],
) -> Plain:  # fmt: skip
    """An interpreter after its run of the exported graph with ``tokens`` (1, S), in floating point.

    The graph has its calibrated ranges. Where it has a prefix, its tokens are the first of them.
    """
    graph = SecureGraph.read(shares / "party0" / "graph.json")
    lowered, count = lower(checkpoint.model, graph.embedding), prefix_length(graph)
    if count:
        lowered = prefixed(lowered, tokens[:, :count])
    plain = interpreter(graph, lowered.weights)
    plain.run(tokens[:, count:])
    return plain


def first_violation(
    graph: SecureGraph, seen: Mapping[str, Seen], operators: Mapping[str, Operator]
) -> str | None:
    """The first node, in the order of execution, whose operator is wrong for values seen there by name."""
    for node in graph.nodes:
        found = operators[node.op].violation(node, seen.get(node.name, {})) if node.op in operators else None
        if found is not None:
            name, low, high, allowed = found
            return (
                f"OUT OF RANGE: {node.module or node.name} ({node.op}, {name}) is {low:.3g} to {high:.3g}, "
                f"{allowed}; what follows from it may be wrong."
            )
    return None

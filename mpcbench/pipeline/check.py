"""Did this run's values stay within the ranges that its approximations were made for?

Outside its range an approximation under MPC is silently wrong, and nobody can look. With the checkpoint
and the prompt at hand, as on one machine, the graph is run in plaintext beside, and looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch

from mpcbench.checkpoints import Checkpoint
from mpcbench.graph.decoding import prefix_length
from mpcbench.graph.interpreter import PlaintextInterpreter
from mpcbench.graph.lower import lower
from mpcbench.graph.prefix import prefixed
from mpcbench.graph.ranges import Observer
from mpcbench.graph.secure_graph import Node, SecureGraph
from mpcbench.secure.operators import Operator

Plain = TypeVar("Plain", bound=PlaintextInterpreter)

_SQUARES = ("first", "rest")


def range_note(
    shares: Path, checkpoint: Checkpoint, tokens: torch.Tensor, operators: Mapping[str, Operator]
) -> str:
    """A sentence for the record: with ``tokens`` (1, S) all is within range, or the first that is not."""
    observer = run_in_plaintext(shares, checkpoint, tokens, Observer)
    graph = SecureGraph.read(shares / "party0" / "graph.json")
    found = first_violation(graph, observer.ranges, operators)
    return found or "Checked in plaintext: all values lie within the calibrated ranges and their margins."


@torch.no_grad()
def run_in_plaintext(
    shares: Path, checkpoint: Checkpoint, tokens: torch.Tensor, interpreter: type[Plain]
) -> Plain:
    """An interpreter after its run of the exported graph with ``tokens`` (1, S), in floating point.

    Where the graph has a prefix, its tokens are the first of them.
    """
    graph = SecureGraph.read(shares / "party0" / "graph.json")
    lowered, count = lower(checkpoint.model, graph.embedding), prefix_length(graph)
    if count:
        lowered = prefixed(lowered, tokens[:, :count])
    plain = interpreter(lowered.graph, lowered.weights)
    plain.run(tokens[:, count:])
    return plain


def first_violation(
    graph: SecureGraph, seen: Mapping[str, Mapping[str, list[float]]], operators: Mapping[str, Operator]
) -> str | None:
    """The first node, in the order of execution, that leaves a calibrated range by more than its margin."""
    for node in graph.nodes:
        margin = float(getattr(operators[node.op].params, "margin", 1.0)) if node.op in operators else 1.0
        for name, (low, high) in seen.get(node.name, {}).items():
            if name in node.attrs.get("range", {}) and _outside(node, name, low, high, margin):
                known = " to ".join(f"{value:.3g}" for value in node.attrs["range"][name])
                return (
                    f"OUT OF RANGE: {node.module or node.name} ({node.op}, {name}) is {low:.3g} to "
                    f"{high:.3g}, "
                    f"calibrated {known} with margin {margin:g}; what follows from it may be wrong."
                )
    return None


def _outside(node: Node, name: str, low: float, high: float, margin: float) -> bool:
    least, most = node.attrs["range"][name]
    if node.op == "rms_norm" and name in _SQUARES:
        return low < least / margin or high > most * margin
    if name == "scores":
        return False  # what matters is the spread, and CrypTen's margin is one of another kind
    return max(abs(low), abs(high)) > margin * max(abs(least), abs(most))

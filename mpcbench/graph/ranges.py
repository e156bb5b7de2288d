"""Ranges of a graph's values on calibration text, which approximations under MPC need to know.

CrypTen's inverse square root, exponential and reciprocal are right only on an interval, and silently
wrong outside. The intervals are measured here, in plaintext, and stored in the graph: they are public,
and every record of a run holds them beside the graph's hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from mpcbench.graph.interpreter import PlaintextInterpreter, causal_mask
from mpcbench.graph.secure_graph import Node, SecureGraph


class Observer(PlaintextInterpreter):
    """A plaintext run that remembers, by node, the extremes that operators ask for.

    - ``rms_norm``: smallest and largest mean square, apart for the first position, where Llamas keep an
      attention sink that is thousands of times larger, and for the rest;
    - ``softmax``: smallest and largest score that the mask lets through, and by how much the scores of
      one row differ;
    - GLUs: absolute gate, up value and product, the first position apart (``gate_first``);
    - ``linear`` and ``matmul``: absolute values of what is multiplied, for ``linear`` likewise apart.
    """

    def __init__(self, graph: SecureGraph, weights: Mapping[str, torch.Tensor]):
        super().__init__(graph, weights)
        self.ranges: dict[str, dict[str, list[float]]] = {}

    def call(self, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
        result = super().call(node, inputs)
        if node.op == "rms_norm":
            squares = inputs[0].pow(2).mean(-1).reshape(inputs[0].shape[1], -1)
            for name, part in (("first", squares[:1]), ("rest", squares[1:])):
                self._widen(node, name, part[part > 0])  # zeros stay zeros, whatever they are divided by
        elif node.op == "softmax":
            mask = causal_mask(*inputs[0].shape[-2:], node.attrs["groups"])
            self._widen(node, "scores", inputs[0][..., mask])
            low, high = (inputs[0].masked_fill(~mask, limit) for limit in (float("inf"), float("-inf")))
            self._widen(node, "spread", high.amax(-1) - low.amin(-1))
        elif node.op == "linear":
            self._positions(node, "input", inputs[0].abs())
        elif node.op == "matmul":
            for name, value in zip(("left", "right"), inputs, strict=True):
                self._widen(node, name, value.abs())
        elif node.op.endswith("glu"):
            for name, value in zip(("gate", "up", "product"), (*inputs, result), strict=True):
                self._positions(node, name, value.abs())
        return result

    def _positions(self, node: Node, name: str, values: torch.Tensor) -> None:
        """Values (1, S, ...) of the first position apart from those of the rest."""
        self._widen(node, f"{name}_first", values[:, :1])
        self._widen(node, name, values[:, 1:])

    def _widen(self, node: Node, name: str, values: torch.Tensor) -> None:
        if values.numel() == 0:
            return
        low, high = float(values.min()), float(values.max())
        seen = self.ranges.setdefault(node.name, {}).setdefault(name, [low, high])
        seen[0], seen[1] = min(seen[0], low), max(seen[1], high)


def known(graph: SecureGraph) -> dict[str, dict[str, tuple[float, float]]]:
    """The graph's ranges by node and name, to six digits; the graph's hash stands for all of them."""
    return {
        node.name: {name: (_short(low), _short(high)) for name, (low, high) in node.attrs["range"].items()}
        for node in graph.nodes
        if "range" in node.attrs
    }


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def observe(graph: SecureGraph, observer: Observer) -> SecureGraph:
    """The same graph with ``attrs["range"]`` filled in from what ``observer`` has seen."""
    nodes = [
        replace(node, attrs={**node.attrs, "range": observer.ranges[node.name]})
        if node.name in observer.ranges
        else node
        for node in graph.nodes
    ]
    return replace(graph, nodes=nodes)

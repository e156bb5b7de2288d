"""The walk that every interpreter of a secure graph shares, and the plaintext one, every test's oracle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch

from mpcbench.graph.secure_graph import Node, SecureGraph

Value = TypeVar("Value")
Function = Callable[[Node, list[torch.Tensor], list[torch.Tensor]], torch.Tensor]


class Interpreter(ABC, Generic[Value]):
    """Runs a graph node by node and frees every value after its last use.

    ``cache`` holds what ``append`` nodes have made, by the ``past`` node through which the next run reads it.
    """

    def __init__(self, graph: SecureGraph):
        self.cache: dict[str, Value] = {}
        self.use(graph)

    def use(self, graph: SecureGraph) -> None:
        """Run this graph from now on."""
        self.graph = graph
        self._freed = graph.last_uses()

    @property
    def steps(self) -> int:
        """How many nodes a run calls; the others are given."""
        return sum(node.op not in ("tokens", "past") for node in self.graph.nodes)

    @abstractmethod
    def call(self, node: Node, inputs: list[Value]) -> Value:
        """The value of ``node`` from those of its inputs."""

    def run(self, tokens: Value) -> Value:
        """The output's value for an input at the ``tokens`` node."""
        values: dict[str, Value | None] = {}
        result = tokens
        for node in self.graph.nodes:
            if node.op == "tokens":
                values[node.name] = tokens
                continue
            if node.op == "past":
                values[node.name] = self.cache.get(node.name)
                continue
            result = self.call(node, [values[name] for name in node.inputs])
            values[node.name] = result
            if node.op == "append":
                self.cache[node.inputs[0]] = result
            for name in self._freed.get(node.name, ()):
                del values[name]
        return result


class PlaintextInterpreter(Interpreter[torch.Tensor]):
    """Float arithmetic. ``run`` takes token ids (1, S) and returns the last position's logits (1, 1, V)."""

    def __init__(self, graph: SecureGraph, weights: Mapping[str, torch.Tensor]):
        super().__init__(graph)
        self.weights = weights
        self.functions: Mapping[str, Function] = FUNCTIONS

    def call(self, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
        return self.functions[node.op](node, inputs, [self.weights[name] for name in node.weights])


def rope_tables(
    frequencies: torch.Tensor, tokens: int, scale: float, start: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of Llama's rotary embedding, each (tokens, d), in float32 as Transformers has it.

    ``start`` is the position of the first token.
    """
    angles = torch.arange(start, start + tokens, dtype=torch.float32)[:, None] * frequencies.float()
    both = torch.cat([angles, angles], dim=-1)
    return both.cos() * scale, both.sin() * scale


def causal_mask(rows: int, keys: int, groups: int) -> torch.Tensor:
    """(rows, keys) of bool: ``rows`` are ``groups`` times the queries, which are the last of the positions.

    Each query sees the keys up to its own position.
    """
    queries = rows // groups
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries).repeat(groups, 1)


def _rms_norm(node: Node, inputs: list, weights: list) -> torch.Tensor:
    x = inputs[0]
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + node.attrs["eps"])
    return y * weights[0] if weights else y


def rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """x (..., S, d) turned by angles whose tables are (S, d)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _rope(node: Node, inputs: list, weights: list) -> torch.Tensor:
    x = inputs[0]
    tables = rope_tables(weights[0], x.shape[-2], node.attrs["scale"], node.attrs.get("start", 0))
    return rotated(x, *tables)


def _normed_scores(node: Node, inputs: list, weights: list) -> torch.Tensor:
    squares, queries, keys, _ = inputs
    norm = node.attrs["norm"]
    root = torch.rsqrt(squares / norm["width"] + norm["eps"])
    tables = rope_tables(weights[0], keys.shape[-2], 1.0)
    queries, keys = (rotated(x * root, *tables) for x in (queries, keys))
    scores = queries.reshape(1, keys.shape[1], -1, keys.shape[-1]) @ keys.transpose(2, 3)
    return scores * causal_mask(*scores.shape[-2:], node.attrs["groups"])


def _softmax(node: Node, inputs: list, weights: list) -> torch.Tensor:
    scores = inputs[0]
    mask = causal_mask(*scores.shape[-2:], node.attrs["groups"])
    return scores.masked_fill(~mask, float("-inf")).softmax(-1)


def _append(node: Node, inputs: list, weights: list) -> torch.Tensor:
    past, new = inputs
    past = weights[0] if past is None and weights else past
    return new if past is None else torch.cat([past, new], node.attrs["dim"])


def _polynomial_glu(node: Node, inputs: list, weights: list) -> torch.Tensor:
    gate, up = inputs
    value = weights[0][-1]
    for row in reversed(weights[0][:-1]):
        value = value * gate + row
    return value * up


def _nested_glu(node: Node, inputs: list, weights: list) -> torch.Tensor:
    gate, up = inputs
    square = gate.square() + weights[0]
    if node.attrs["degree"] == 3:
        return (square * gate + weights[1]) * up
    return (square.square() + weights[1] * gate + weights[2]) * up


FUNCTIONS: dict[str, Function] = {
    "embedding": lambda node, x, w: w[0][x[0]],
    "linear": lambda node, x, w: torch.nn.functional.linear(x[0], *w),
    "matmul": lambda node, x, w: x[0] @ x[1] * node.attrs.get("scale", 1.0),
    "add": lambda node, x, w: x[0] + x[1],
    "rms_norm": _rms_norm,
    "sum_squares": lambda node, x, w: x[0].square().sum(-1, keepdim=True),
    "normed_scores": _normed_scores,
    "rope": _rope,
    "softmax": _softmax,
    "swiglu": lambda node, x, w: torch.nn.functional.silu(x[0]) * x[1],
    "polynomial_glu": _polynomial_glu,
    "quadratic_glu": lambda node, x, w: (x[0].square() + w[0]) * x[1],
    "nested_glu": _nested_glu,
    "reshape": lambda node, x, w: x[0].reshape(node.attrs["shape"]),
    "transpose": lambda node, x, w: x[0].transpose(*node.attrs["dims"]),
    "last_token": lambda node, x, w: x[0][:, -1:],
    "append": _append,
    "argmax": lambda node, x, w: x[0].argmax(-1),
    "output": lambda node, x, w: x[0],
}
"""What every operator computes in plaintext: ``(node, input values, weight values) -> value``."""

"""Operators that need no communication: sums, views, and products with public numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mpcbench.cost.declared import FREE, Cost
from mpcbench.graph.interpreter import rope_tables
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.operators.base import Operator, Sample, Shape
from mpcbench.secure.ring import bits_of, wrap
from mpcbench.secure.substrate import communicator


class _Local(Operator):
    """Exact on shares, for all inputs, at no cost."""

    source = "linearity of additive sharing"
    domain = "all"
    error = 1e-4

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        return FREE


def _values(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


class Add(_Local):
    """x + y: each party adds its shares."""

    name, op = "local.add", "add"

    @classmethod
    def sample(cls) -> Sample:
        return Sample(Node("y", cls.op), [_values(1, 5, 8), _values(1, 5, 8) * 3])

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        return inputs[0] + inputs[1]


class Reshape(_Local):
    """A view of each party's share."""

    name, op = "local.reshape", "reshape"

    @classmethod
    def sample(cls) -> Sample:
        return Sample(Node("y", cls.op, attrs={"shape": [1, -1, 2, 4]}), [_values(1, 5, 8)])

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        return wrap(inputs[0].share.reshape(*node.attrs["shape"]), bits_of(inputs[0]))


class Transpose(_Local):
    """A view of each party's share."""

    name, op = "local.transpose", "transpose"

    @classmethod
    def sample(cls) -> Sample:
        return Sample(Node("y", cls.op, attrs={"dims": [1, 2]}), [_values(1, 5, 2, 4)])

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        return wrap(inputs[0].share.transpose(*node.attrs["dims"]), bits_of(inputs[0]))


class LastToken(_Local):
    """The last position alone: the LM head is needed for no other."""

    name, op = "local.last_token", "last_token"

    @classmethod
    def sample(cls) -> Sample:
        return Sample(Node("y", cls.op), [_values(1, 5, 8)])

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        return inputs[0][:, -1:]


class Append(_Local):
    """Rows behind those of earlier tokens: each party joins its shares."""

    name, op = "local.append", "append"

    @classmethod
    def sample(cls) -> Sample:
        return Sample(Node("y", cls.op, attrs={"dim": 3}), [_values(1, 2, 4, 5), _values(1, 2, 4, 1)])

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        past, new = inputs
        past = weights[0] if past is None and weights else past
        return new if past is None else type(new).cat([past, new], dim=node.attrs["dim"])


class Output(_Local):
    """Names the value that the party program opens to the client; opening it is not the graph's business."""

    name, op = "local.output", "output"

    @classmethod
    def sample(cls) -> Sample:
        return Sample(Node("y", cls.op), [_values(1, 1, 8)])

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        return inputs[0]


class Rope(_Local):
    """Rotary embedding with public tables: products with public numbers, each truncated locally."""

    name, op = "local.rope", "rope"
    source = "RoFormer (Su et al., 2021), section 3.2.2; public tables"
    error = 5e-4

    @classmethod
    def sample(cls) -> Sample:
        frequencies = 10000.0 ** (-torch.arange(0, 8, 2) / 8)
        return Sample(Node("y", cls.op, attrs={"scale": 1.0}), [_values(1, 3, 7, 8) * 5], [frequencies])

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        x = inputs[0]
        cos, sin = rope_tables(weights[0], x.size(-2), node.attrs["scale"], node.attrs.get("start", 0))
        half = x.size(-1) // 2
        turned = type(x).cat([-x[..., half:], x[..., :half]], dim=-1)
        communicator().ledger.cut_locally(2 * x.nelement(), 2 * bits_of(x))
        return x * cos + turned * sin


OPERATORS = (Add, Reshape, Transpose, LastToken, Append, Output, Rope)

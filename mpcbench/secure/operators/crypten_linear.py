"""Stock CrypTen's products: both operands are masked and opened afresh, weights included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from mpcbench.cost import crypten as price
from mpcbench.cost.declared import Cost
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.operators.base import Operator, Sample, Shape


def _values(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2)) * scale


class Linear(Operator):
    """x Wᵀ + b by one Beaver matrix triple. The weight's mask is opened again in every inference."""

    name, op = "crypten.linear", "linear"
    source = "Beaver (CRYPTO 1991); CrypTen (Knott et al., NeurIPS 2021), section 4; beaver.py: matmul"
    domain = "|y| < 2^15; fails with probability |y| 2^(2f-64) an element (local truncation)"
    error = 2e-3

    @classmethod
    def sample(cls) -> Sample:
        weights = [_values(96, 64, scale=0.1), _values(96)]
        return Sample(Node("y", cls.op, weights=("w", "b")), [_values(1, 8, 64)], weights)

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        out, width = weights[0]
        return price.matmul(math.prod(inputs[0][:-1]), width, out, weight=True)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        y = inputs[0].matmul(weights[0])
        return y + weights[1] if len(weights) > 1 else y

    def room(self, node: Node) -> float:
        return 2.0 ** (63 - 2 * self.bits)

    def load(self, node: Node, name: str, share: torch.Tensor, bits: int) -> Any:
        """(O, I) as stored -> (I, O) as multiplied, contiguous, so that no inference transposes it."""
        return super().load(node, name, share.t().contiguous() if share.dim() == 2 else share, bits)


class Matmul(Operator):
    """Batched product of two secret activations by one Beaver matrix triple."""

    name, op = "crypten.matmul", "matmul"
    source = Linear.source
    domain = Linear.domain
    error = 1e-3

    @classmethod
    def sample(cls) -> Sample:
        return Sample(
            Node("y", cls.op, attrs={"scale": 0.125}), [_values(1, 3, 24, 64), _values(1, 3, 64, 8)]
        )

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        left, right = inputs
        return price.matmul(left[-2], left[-1], right[-1], batch=math.prod(left[:-2]))

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        y = inputs[0].matmul(inputs[1])
        return y * node.attrs["scale"] if "scale" in node.attrs else y

    def room(self, node: Node) -> float:
        return 2.0 ** (63 - 2 * self.bits) * node.attrs.get("scale", 1.0)


class Embedding(Operator):
    """Private table: the client shares one-hot rows, which select by a Beaver matrix triple."""

    name, op = "crypten.embedding", "embedding"
    source = "one-hot product, CrypTen examples; beaver.py: matmul"
    domain = "one-hot rows at 0 fraction bits"
    error = 1e-4

    @classmethod
    def sample(cls) -> Sample:
        rows = torch.nn.functional.one_hot(torch.tensor([[3, 0, 39, 3]]), 40)
        return Sample(Node("y", cls.op, weights=("table",)), [rows], [_values(40, 16)])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        vocabulary, width = weights[0]
        return price.matmul(math.prod(inputs[0][:-1]), vocabulary, width, weight=True)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        return inputs[0].matmul(weights[0])


OPERATORS = (Linear, Matmul, Embedding)

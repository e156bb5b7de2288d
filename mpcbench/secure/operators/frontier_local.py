"""What costs nothing where values keep the fraction bits that they have: sums, and the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from mpcbench.cost.declared import FREE, Cost
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape
from mpcbench.secure.randomness.prg import fresh_seed, words
from mpcbench.secure.ring import bits_of, plus, rescaled, wrap


class Add(Operator):
    """x + y, where the one with fewer fraction bits gets as many as the other, exactly."""

    name, op = "frontier.add", "add"
    source = "linearity of additive sharing"
    domain = "all"
    error = 1e-4

    @classmethod
    def sample(cls) -> Sample:
        values = torch.randn(2, 1, 5, 8, generator=torch.Generator().manual_seed(1))
        return Sample(Node("y", cls.op), [values[0], values[1] * 3])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        return FREE

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        bits = [bits_of(value) for value in inputs]
        wanted = max(bits)
        first, second = (rescaled(v.share, b, wanted) for v, b in zip(inputs, bits, strict=True))
        return wrap(first + second, wanted)


class Output(Operator):
    """The value that is opened to the client, its surplus fraction bits drowned in random ones.

    A product that was never cut is exact to the last bit, and those last bits would tell the client more
    than the logits. Party 0 adds a fresh random number below 2^-``bits`` to every element.
    """

    name, op = "frontier.output", "output"
    source = "statistical noise flooding of the bits that truncation would have cut"
    domain = "all"
    error = 1e-4

    class Params(Params):
        """``bits``: fraction bits that are meant to be seen."""

        bits: int = Field(default=16, ge=4, le=32)

    @classmethod
    def sample(cls) -> Sample:
        return Sample(Node("y", cls.op), [torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(1))])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        return FREE

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        share, bits = inputs[0].share, bits_of(inputs[0])
        surplus = bits - self.params.bits
        if surplus <= 0:
            return inputs[0]
        noise = words(fresh_seed(), 0, share.numel()).reshape(share.shape) & ((1 << surplus) - 1)
        return wrap(plus(share, noise - (1 << (surplus - 1))), bits)


OPERATORS = (Add, Output)

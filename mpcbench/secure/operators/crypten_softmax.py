"""Stock CrypTen's softmax behind a public causal mask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mpcbench.cost import crypten as price
from mpcbench.cost.declared import Cost
from mpcbench.graph.interpreter import causal_mask
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape


class Softmax(Operator):
    """Maximum by comparisons, exponential by squarings, reciprocal by Newton-Raphson.

    A score that the mask hides is replaced, without communication, by a public number ``margin`` below
    the smallest score seen in calibration. A mask of minus infinity (or -10000) would not do: CrypTen's
    exponential (1 + x/2^i)^(2^i) grows again below x = -2^(i+1).
    """

    name, op = "crypten.softmax", "softmax"
    source = "CrypTen (Knott et al., NeurIPS 2021), section 4.2; approximations.py: softmax, maximum.py: max"
    domain = "scores within calibration; spread + margin < 2^(exp_iterations + 1); at most about 100 keys"
    error = 2e-2

    class Params(Params):
        """``margin``: how far below the smallest score a hidden one lies; e^-margin must vanish."""

        exp_iterations: int = 8
        reciprocal_nr_iters: int = 10
        margin: float = 16.0

    @classmethod
    def sample(cls) -> Sample:
        scores = torch.randn(1, 2, 16, 8, generator=torch.Generator().manual_seed(5)) * 3
        extremes = [float(scores.min()), float(scores.max())]
        return Sample(Node("y", cls.op, attrs={"groups": 2, "range": {"scores": extremes}}), [scores])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        keys = inputs[0][-1]
        rows = math.prod(inputs[0][:-1])
        p = self.params
        return price.softmax(rows, keys, p.exp_iterations, p.reciprocal_nr_iters, self.bits)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        scores = inputs[0].clone()
        mask = causal_mask(*scores.size()[-2:], node.attrs["groups"]).long()
        floor = node.attrs["range"]["scores"][0] - self.params.margin
        scores.share = scores.share * mask  # a 0/1 factor needs no truncation
        return (scores + (1 - mask).float() * floor).softmax(-1)

    def settings(self, node: Node) -> Mapping[str, Any]:
        return {
            "functions.exp_iterations": self.params.exp_iterations,
            "functions.reciprocal_nr_iters": self.params.reciprocal_nr_iters,
            "functions.max_method": "log_reduction",
        }


OPERATORS = (Softmax,)

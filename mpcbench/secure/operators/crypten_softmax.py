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
from mpcbench.secure.operators.limits import Measured, Plain, Seen, Violation, beyond, exp_reach
from mpcbench.secure.operators.ranges import span

TOP = "largest score of a row"
SUM_ERROR = 0.08
"""By which part the weights of a row of 100 keys that are all alike are wrong at 16 fraction bits."""


class Softmax(Operator):
    """Maximum by comparisons, exponential by squarings, reciprocal by Newton-Raphson.

    A score that the mask hides is replaced, without communication, by a public number ``margin`` below
    the smallest score seen in calibration. A mask of minus infinity (or -10000) would not do: CrypTen's
    exponential (1 + x/2^i)^(2^i) grows again below x = -2^(i+1).
    """

    name, op = "crypten.softmax", "softmax"
    source = "CrypTen (Knott et al., NeurIPS 2021), section 4.2; approximations.py: softmax, maximum.py: max"
    domain = (
        "scores within calibration; spread, and the largest above the smallest + margin, < 500 for 8 "
        "exp_iterations; sum of e^(s - max), which is at most the number of keys, up to about 100 for f = 16"
    )
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

    def measured(self, node: Node, inputs: Plain, weights: Plain, result: torch.Tensor) -> Measured:
        """The largest score of each row that has hidden ones, the sums of e^(s - max), the number of keys."""
        mask = causal_mask(*inputs[0].shape[-2:], node.attrs["groups"])
        scores = inputs[0].masked_fill(~mask, float("-inf"))
        top = scores.amax(-1, keepdim=True)
        sums, keys = (scores - top).exp().sum(-1), torch.tensor([mask.shape[-1]])
        return {TOP: top[..., ~mask.all(-1), 0], "sum": sums, "keys": keys}

    def violation(self, node: Node, seen: Seen) -> Violation | None:
        if "scores" not in seen:
            return None
        vanishes, most = exp_reach(self.params.exp_iterations, self.bits)
        floor = span(node, "scores")[0] - self.params.margin
        least = floor + min(self.params.margin, vanishes)
        name = TOP if TOP in seen else "scores"
        if not seen[name][0] >= least:
            return Violation(name, *seen[name], f"right above {least:.3g}, below which hidden scores count")
        exponents = {
            "spread": seen.get("spread", (0.0, 0.0)),
            "above hidden ones": [score - floor for score in seen["scores"]],
        }
        return beyond(exponents, exponents, most) or self._too_many(seen)

    def _too_many(self, seen: Seen) -> Violation | None:
        """Newton's y² is cut to f bits, by which the reciprocal of a sum s errs by the part s² 2^-(f+1); and
        it starts from exp(1 - 2s)."""
        _, most = exp_reach(self.params.exp_iterations, self.bits)
        largest = min(math.sqrt(SUM_ERROR * 2.0 ** (self.bits + 1)), (most + 1) / 2)
        keys = f" over {seen['keys'][1]:.0f} keys" if "keys" in seen else ""
        found = beyond(seen, ["sum"], largest)
        return found and found._replace(name=f"sum of exponentials{keys}")

    def settings(self, node: Node) -> Mapping[str, Any]:
        return {
            "functions.exp_iterations": self.params.exp_iterations,
            "functions.reciprocal_nr_iters": self.params.reciprocal_nr_iters,
            "functions.max_method": "log_reduction",
        }


OPERATORS = (Softmax,)

"""The index of the largest value under MPC, so that a client learns its token and no logit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mpcbench.compat import import_crypten
from mpcbench.cost import crypten as price
from mpcbench.cost.declared import FREE, Cost
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.operators.base import Operator, Sample, Shape
from mpcbench.secure.ring import plus, wrap


class Argmax(Operator):
    """A tournament of neighbours: the larger of two values goes on with its index, of equal ones the first.

    Comparisons are CrypTen's, of whole ring elements, and exact; selections multiply integers by a bit, so
    that nothing is cut. Rounds grow with the logarithm of the number of values.
    """

    name, op = "tournament.argmax", "argmax"
    source = "tournament; comparison: CrypTen (Knott et al., NeurIPS 2021), mpc.py: _ltz"
    domain = "differences of values below 2^63 as integers"
    error = 1e-9
    cuts_locally = frozenset()

    @classmethod
    def sample(cls) -> Sample:
        values = torch.randn(1, 1, 21, generator=torch.Generator().manual_seed(9))
        values[..., 13] = values[..., 16] = 4.0
        return Sample(Node("y", cls.op), [values])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        cost, left = FREE, inputs[0][-1]
        while left > 1:
            pairs = left // 2
            cost += price.ltz(pairs) + price.mul(2 * pairs, pairs)
            left -= pairs
        return cost

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        values = inputs[0].share.reshape(-1)
        indices = plus(torch.zeros_like(values), torch.arange(len(values)))
        field = torch.stack([values, indices])  # shares of values and of their indices, as integers
        while field.shape[1] > 1:
            field = _round(field)
        return wrap(field[1].reshape(1, 1), 0)


def _round(field: torch.Tensor) -> torch.Tensor:
    """(2, n) -> (2, n - n // 2): one winner of every pair of neighbours, and an odd one out."""
    crypten = import_crypten()
    pairs = field.shape[1] // 2
    first, second = field[:, 0 : 2 * pairs : 2], field[:, 1 : 2 * pairs : 2]
    second_wins = wrap(first[0] - second[0], 0)._ltz()
    change = crypten.stack([wrap(part, 0) for part in second - first]) * second_wins
    return torch.cat([first + change.share, field[:, 2 * pairs :]], dim=1)


OPERATORS = (Argmax,)

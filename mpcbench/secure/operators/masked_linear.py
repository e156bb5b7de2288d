"""Products with weights whose masks are opened once, at setup: one opening of the activation is left.

B is drawn once for a weight W, and E = W - B opened. An inference opens Z = X - A under a fresh A, and
X W = Z W + A E + A B: the dealer gives shares of A B, the provider adds this party's share of A E ahead of
time, and Z W is left for the online phase. Linear layers that read the same X share its one opening.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import Field

from mpcbench.cost.declared import FREE, RING_BYTES, Cost, dealt, narrow_opening
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.opening import CUT_BYTES, EXACT, Cut, opened
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape
from mpcbench.secure.operators.ranges import Operand, operand
from mpcbench.secure.randomness.linear import Linear as LinearRecipe
from mpcbench.secure.randomness.linear import WeightMask
from mpcbench.secure.ring import bits_of, matmul, rescaled, truncated_locally, wrap
from mpcbench.secure.substrate import communicator, provider


@dataclass(frozen=True)
class MaskedWeight:
    """This party's share of a weight (I, O), the opened W - B, and the number of the request that made B."""

    share: torch.Tensor
    difference: torch.Tensor
    number: int
    bits: int


@dataclass
class Reading:
    """An activation that has been opened, and this party's shares of A E + A B by the weights' numbers: what
    its followers need to finish their products."""

    public: torch.Tensor
    bits: int
    prepared: dict[int, torch.Tensor]


def mask_weight(node: Node, share: torch.Tensor, bits: int, wanted: int | None = None) -> MaskedWeight:
    """Draw B and open W - B, entered as the node's setup; ``wanted``: fraction bits to cut W to, locally."""
    recipe, wanted = WeightMask(size=tuple(share.shape)), bits if wanted is None else wanted
    with communicator().ledger.scope("setup", node.layer, node.module, node.op):
        share = truncated_locally(share, bits, wanted)
        (difference,), _ = opened(recipe, [share])
        provider().weight_opened(difference)
    return MaskedWeight(share, difference, provider().last, wanted)


def mask_cost(elements: int) -> Cost:
    """Cost of :func:`mask_weight` for so many elements: one opening, and masks from seeds alone."""
    return Cost(RING_BYTES * elements, 1, Counter(weight=elements))


def read(
    share: torch.Tensor, bits: int, how: Cut, weights: Sequence[MaskedWeight], scale: int | None = None
) -> tuple[Reading, list[torch.Tensor]]:
    """Open an activation (m, k), which is cut to ``bits``, for products with all ``weights``.

    With a ``scale`` the first row then stands for itself / 2^scale, and this party's shares of the mask A and
    of the sums of A² over each row are returned too.
    """
    recipe = LinearRecipe(
        size=tuple(share.shape),
        weights=tuple(weight.number for weight in weights),
        columns=tuple(weight.share.shape[1] for weight in weights),
        shift=how.shift,
        squares=scale is not None,
        first=scale or 0,
    )
    (public,), tuples = opened(recipe, [share], [how])
    if scale:
        public[0] >>= scale
    mask, *products = tuples[1:] if how.shift else tuples
    more = [] if scale is None else [mask, products.pop()]
    prepared = {weight.number: product for weight, product in zip(weights, products, strict=True)}
    return Reading(public, bits, prepared), more


class ReuseLinear(Operator):
    """x Wᵀ + b with the weight's mask opened once; the product is truncated locally, as in CrypTen."""

    name, op = "reuse.linear", "linear"
    source = "Beaver (CRYPTO 1991) with a fixed operand; SPU's make_cached_var; truncation: SecureML, 4.1"
    domain = "|y| < 2^15; fails with probability |y| 2^(2f-64) an element (local truncation)"
    error = 2e-3
    groups_linears = True
    opened_bytes: ClassVar[int] = RING_BYTES
    """Bytes a party sends of every element of the input."""

    @classmethod
    def sample(cls) -> Sample:
        generator = torch.Generator().manual_seed(2)
        x, weight, bias = (
            torch.randn(*shape, generator=generator) for shape in ((1, 8, 64), (96, 64), (96,))
        )
        node = Node("y", cls.op, weights=("w", "b"), attrs={"own": 2, "range": {"input": [0.0, 4.0]}})
        return Sample(node, [x], [weight * 0.1, bias])

    def load(self, node: Node, name: str, share: torch.Tensor, bits: int) -> Any:
        if share.dim() != 2:
            return wrap(share, bits)
        return mask_weight(node, share.t().contiguous(), bits)

    def setup_cost(self, node: Node, name: str, shape: Shape) -> Cost:
        return mask_cost(math.prod(shape)) if len(shape) == 2 else FREE

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        if "leader" in node.attrs:
            return FREE
        m, k = math.prod(inputs[0][:-1]), inputs[0][-1]
        products = m * sum(shape[0] for shape in weights if len(shape) == 2)
        tuples = dealt("linear", products, products + self._extra(m * k))
        return narrow_opening(m * k, self.opened_bytes) + tuples

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        x, weight = inputs[0], weights[0]
        if "leader" not in node.attrs:
            others = weights[node.attrs.get("own", len(weights)) :]
            x.reading = self._read(node, x, [weight, *others])
        reading: Reading = x.reading
        y = matmul(reading.public, weight.share) + reading.prepared[weight.number]
        y = self._finish(y, reading.bits + weight.bits, node, weights)
        return wrap(y[0].reshape(*x.size()[:-1], -1), y[1])

    def room(self, node: Node) -> float:
        return 2.0 ** (63 - 2 * self.bits)

    def _read(self, node: Node, x: Any, weights: list[MaskedWeight]) -> Reading:
        opened = self._operand(node, x)
        return read(opened.share.reshape(-1, x.size(-1)), opened.bits, opened.cut, weights)[0]

    def _operand(self, node: Node, x: Any) -> Operand:
        return Operand(x.share, EXACT, bits_of(x))

    def _extra(self, elements: int) -> int:
        return 0

    def _finish(
        self, y: torch.Tensor, bits: int, node: Node, weights: Sequence[Any]
    ) -> tuple[torch.Tensor, int]:
        """Truncate, then add the bias."""
        wanted = weights[0].bits
        y = truncated_locally(y, bits, wanted)
        has_bias = node.attrs.get("own", len(weights)) > 1
        return (y + weights[1].share if has_bias else y), wanted


class FrontierLinear(ReuseLinear):
    """x Wᵀ + b, where the opening cuts x to ``input_bits`` and the product keeps all its bits."""

    name = "frontier.linear"
    source = "Beaver (CRYPTO 1991) with a fixed operand; truncation with the opening: secure/opening.py"
    domain = "|x| within calibration times margin; |y| < 2^(63 - input_bits - f)"
    error = 1e-3
    opened_bytes = CUT_BYTES
    ranges = ("input",)

    class Params(Params):
        """``input_bits``: fraction bits to which the activation is cut; ``margin``: factor by which its
        calibrated magnitude may be left; ``truncation``: ``checked`` cannot fail, ``local`` can."""

        input_bits: int = Field(default=15, ge=6, le=24)
        margin: float = 2.0
        truncation: str = Field(default="checked", pattern="^(checked|local)$")

    def _operand(self, node: Node, x: Any) -> Operand:
        p = self.params
        return operand(node, "input", x, p.input_bits, p.margin, p.truncation == "checked")

    def room(self, node: Node) -> float:
        return 2.0 ** (63 - self.params.input_bits - self.bits)

    def _extra(self, elements: int) -> int:
        return elements

    def _finish(
        self, y: torch.Tensor, bits: int, node: Node, weights: Sequence[Any]
    ) -> tuple[torch.Tensor, int]:
        has_bias = node.attrs.get("own", len(weights)) > 1
        return (y + rescaled(weights[1].share, weights[0].bits, bits) if has_bias else y), bits


class ReuseEmbedding(ReuseLinear):
    """Private table: the client shares one-hot rows, which select from a table whose mask is open."""

    name, op = "reuse.embedding", "embedding"
    domain = "one-hot rows at 0 fraction bits"
    error = 1e-4
    groups_linears = False

    @classmethod
    def sample(cls) -> Sample:
        rows = torch.nn.functional.one_hot(torch.tensor([[3, 0, 39, 3]]), 40)
        table = torch.randn(40, 16, generator=torch.Generator().manual_seed(2))
        return Sample(Node("y", cls.op, weights=("table",)), [rows], [table])

    def load(self, node: Node, name: str, share: torch.Tensor, bits: int) -> Any:
        return mask_weight(node, share, bits)

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        return super().cost(node, inputs, [tuple(reversed(weights[0]))])


OPERATORS = (ReuseLinear, FrontierLinear, ReuseEmbedding)

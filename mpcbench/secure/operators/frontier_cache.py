"""Products with cached keys and values, each of which is opened once, in the step that makes it.

A key or value K is opened as x = K - B when it first multiplies something. x and the shares of B stay, and
the dealer keeps B; a later step opens its queries (or weights of attention) Q - A under a fresh A and asks
for shares of A B alone: Q K = (Q - A) K + A x + A B. That is what weights do, whose masks are open since
set-up. It is safe for the same reason: x is the only thing ever opened under B, and does not change.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field

from mpcbench.cost.declared import FREE, RING_BYTES, Cost
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.opening import Cut, opened
from mpcbench.secure.operators.base import Operator, Params, Sample, Shape
from mpcbench.secure.randomness.linear import CachedMatmul, CachedRows, scattered, seen_positions
from mpcbench.secure.ring import bits_of, plus, rescaled, wrap
from mpcbench.secure.substrate import communicator


@dataclass(frozen=True)
class Rows:
    """Opened keys or values with ``bits`` fraction bits: K - B, which is public, and this party's share of B.

    Both are (batch, head size, tokens) or (batch, tokens, head size).
    """

    public: torch.Tensor
    mask: torch.Tensor
    bits: int

    def behind(self, past: Rows | None, dim: int) -> Rows:
        """All rows, these behind those of earlier tokens."""
        if past is None:
            return self
        if past.bits != self.bits:
            raise RuntimeError(f"rows of {self.bits} fraction bits cannot follow cached ones of {past.bits}")
        public, mask = ([past.public, self.public], [past.mask, self.mask])
        return Rows(torch.cat(public, dim), torch.cat(mask, dim), self.bits)


@dataclass
class Cache:
    """What hangs on the new rows' shares: ``past`` rows, and ``rows``, all of them, once they are opened."""

    dim: int
    past: Rows | None
    rows: Rows | None = None


class Append(Operator):
    """The new rows, with the earlier ones attached as their opening left them; nothing is copied or sent.

    A prefix's rows, which are weights, are opened when they are loaded: once a model, at setup. They are not
    cut, so that this needs no check: what is made for all later inferences depends on the mask of that one
    opening, which so cannot have to be made again under another.
    """

    name, op = "frontier.append", "append"
    source = "secure/operators/frontier_cache.py"
    domain = "all; what reads it must be frontier.matmul"
    error = 1e-4

    class Params(Params):
        """``input_bits``: fraction bits that a prefix's rows have at least; ``matmul`` cuts new ones to as
        many as those have."""

        input_bits: int = Field(default=15, ge=6, le=24)

    @classmethod
    def sample(cls) -> Sample:
        fresh = torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(1))
        return Sample(Node("y", cls.op, attrs={"dim": 3}), [None, fresh])

    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        return FREE

    def load(self, node: Node, name: str, share: torch.Tensor, bits: int) -> Rows:
        rows = share.reshape(-1, *share.shape[-2:])
        wanted = max(bits, self.params.input_bits)
        recipe = CachedRows(
            size=tuple(rows.shape), shift=0, slot=node.attrs["slot"], dim=node.attrs["dim"] - 1
        )
        with communicator().ledger.scope("setup", node.layer, node.module, node.op):
            (public,), (_, mask) = opened(recipe, [rescaled(rows, bits, wanted)])
        return Rows(public, mask, wanted)

    def setup_cost(self, node: Node, name: str, shape: Shape) -> Cost:
        n = math.prod(shape)
        return Cost(RING_BYTES * n, 1, Counter(cached_rows=n), RING_BYTES * n)

    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        past, new = inputs
        rows = past.cache.rows if past is not None else weights[0] if weights else None
        joined = wrap(new.share, bits_of(new))
        joined.cache = Cache(node.attrs["dim"] - 1, rows)
        return joined


def product(
    node: Node, left: torch.Tensor, fresh: torch.Tensor, cache: Cache, cuts: Sequence[Cut], bits: int
) -> torch.Tensor:
    """Shares (batch, m, k) times all rows of a cache, whose new ones are ``fresh`` (shares, uncut).

    One round, in which the left operand and the new rows are opened; these are cut to ``bits`` and then
    belong to the cache.
    """
    groups, dim = node.attrs.get("groups", 0), cache.dim
    past = 0 if cache.past is None else cache.past.public.shape[dim]
    recipe = CachedMatmul(
        left=tuple(left.shape), fresh=tuple(fresh.shape), shifts=tuple(how.shift for how in cuts),
        causal=groups, slot=node.attrs["slot"], past=past, dim=dim,
    )  # fmt: skip
    packed = left.reshape(left.shape[0], -1)[:, seen_positions(*left.shape[1:], groups)] if groups else left
    (x, y), (_, _, a, b, both) = opened(recipe, [packed, fresh], cuts)
    if groups:
        x, a = scattered(x, tuple(left.shape), groups), scattered(a, tuple(left.shape), groups)
    cache.rows = Rows(y, b, bits).behind(cache.past, dim)
    # (x + a)(y + b): the party that adds the public product computes x (y + b) in one go.
    rows = cache.rows
    return torch.matmul(x, plus(rows.mask, rows.public)) + torch.matmul(a, rows.public) + both


OPERATORS = (Append,)

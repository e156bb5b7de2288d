"""Norms that are put off where the first row is an attention sink, and the turning of opened values."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mpcbench.errors import UserError
from mpcbench.graph.interpreter import FUNCTIONS, rope_tables, rotated
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.opening import Cut
from mpcbench.secure.operators import frontier_normed
from mpcbench.secure.operators.frontier_normed import NormedScores, SumSquares
from mpcbench.secure.operators.inverse_root import layout
from mpcbench.secure.randomness.attention import TABLE_BITS, rotation, turned
from mpcbench.secure.ring import wrap
from tests.secure.pair import run_pair
from tests.secure.single import one_party

TOKENS, WIDTH, DIM, SINK = 7, 24, 8, 900.0
FREQUENCIES = 10000.0 ** (-torch.arange(0, DIM, 2) / DIM)


def _case() -> tuple[Node, Node, torch.Tensor, list[torch.Tensor]]:
    """Both nodes, x with a first row that is a sink, and its projections as an opened x would give them."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(1, TOKENS, WIDTH, generator=generator)
    x[:, 0] *= SINK
    mean = x.square().mean(-1)[0]
    projections = [torch.randn(WIDTH, heads * DIM, generator=generator) / 5 for heads in (4, 2, 2)]
    q, k, v = ((x @ w).reshape(1, TOKENS, -1, DIM).transpose(1, 2) for w in projections)
    norm = {"eps": 1e-5, "width": WIDTH, "margin": 1.5, "tolerance": 1e-4}
    seen = {"first": [float(mean[0])] * 2, "rest": [float(mean[1:].min()), float(mean[1:].max())]}
    magnitudes = {name: [0.0, 8.0] for name in ("query", "key", "value")} | {"scores": [-24.0, 24.0]}
    squares = Node("s", "sum_squares", attrs={"own": 0, "norm": norm, "range": seen})
    scores = Node("y", "normed_scores", attrs={"norm": norm, "groups": 2, "range": seen | magnitudes})
    return squares, scores, x, [q, k, v]


def _run(communicator: Any) -> dict[str, list]:
    from mpcbench.secure.substrate import crypten

    squares, scores, x, projected = _case()
    scale = layout(squares).scale
    assert scale > 8
    with communicator.ledger.scope("online", 0, "x", "x"):
        shared = crypten.cryptensor(x, src=0)
        sums = SumSquares(SumSquares.Params()).run(squares, [shared], [])
        # The opened x scales the first row; so it is for the projections, which are given here.
        for value in projected:
            value[:, :, 0] /= 2.0**scale
        given = [sums, *(crypten.cryptensor(value, src=0) for value in projected)]
        result = NormedScores(NormedScores.Params()).run(scores, given, [FREQUENCIES])
        opened = {}
        for name, value in (("scores", result), ("values", given[3].normed)):
            with communicator.guard.output(name):
                opened[name] = (value.reveal().double() / value.encoder.scale).tolist()
        return opened


@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_of_the_first_row_holds_what_rounding_adds_to_it(
    monkeypatch: pytest.MonkeyPatch, sign: int
) -> None:
    """The whole row at one element, as large as it may be."""
    squares, *_ = _case()
    plan, seen = layout(squares), []
    x = torch.zeros(1, TOKENS, WIDTH, dtype=torch.float64)
    x[0, 0, 3] = sign * math.sqrt(plan.high * WIDTH) * 2.0**plan.scale * (1 - 2.0**-24)

    class Seen(Exception):
        pass

    def read(share: torch.Tensor, bits: int, how: Cut, *others: Any) -> None:
        seen.append((share, how))
        raise Seen

    monkeypatch.setattr(frontier_normed, "read", read)
    with one_party(), pytest.raises(Seen):
        SumSquares(SumSquares.Params()).run(squares, [wrap((x * 2.0**30).round().long(), 30)], [])
    ((share, how),) = seen
    elements, bound = how.first
    assert elements == WIDTH and abs(int(share[0, 3])) <= bound
    assert abs(int(share[0, 3])) > 0.999 * bound


def test_a_sink_in_the_first_row_costs_the_others_nothing():
    first, second = run_pair(_run, provider="dealer")
    assert first == second
    _, node, x, projected = _case()
    squares = x.square().sum(-1, keepdim=True)
    expected = FUNCTIONS["normed_scores"](node, [squares, *projected], [FREQUENCIES])
    assert (torch.tensor(first["scores"]) - expected).abs().max() < 1e-2
    root = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5)
    assert (torch.tensor(first["values"]) - projected[2] * root).abs().max() < 2e-3


def test_rows_too_far_apart_are_refused():
    _, node, _, _ = _case()
    wide = {**node.attrs["range"], "scores": [-99999.0, 99999.0]}
    node = Node("y", node.op, module="layers.3", attrs={**node.attrs, "range": wide})
    operator = NormedScores(NormedScores.Params())
    with pytest.raises(UserError, match=r"layers.3 has mean squares .* leave it out"):
        operator._formats(node, layout(node), 30, 8192)


def test_an_opened_difference_and_its_mask_turn_apart():
    """Rounded apart, they are within two units of what they hide, turned."""
    generator = torch.Generator().manual_seed(1)
    value = torch.randint(-(2**20), 2**20, (2, 3 * TOKENS, DIM), generator=generator)
    mask = torch.randint(-(2**46), 2**46, value.shape, generator=generator)
    table = rotation(tuple(FREQUENCIES.tolist()), TOKENS)
    found = turned(value - mask, table) + turned(mask, table)
    cos, sin = (wave.double() / 2**TABLE_BITS for wave in table)
    exact = rotated(value.double().reshape(2, 3, TOKENS, DIM), *(torch.cat([w, w], -1) for w in (cos, sin)))
    assert (found.reshape(exact.shape) - exact).abs().max() <= 2


def test_the_table_is_that_of_the_plaintext():
    cos, sin = rope_tables(FREQUENCIES, TOKENS, 1.0)
    for wave, expected in zip(
        rotation(tuple(FREQUENCIES.double().tolist()), TOKENS), (cos, sin), strict=True
    ):
        assert (wave / 2**TABLE_BITS - expected[:, : DIM // 2]).abs().max() < 2.0**-TABLE_BITS

"""Cached keys and values between two parties: right in every step, and opened once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from mpcbench.graph.interpreter import causal_mask
from mpcbench.graph.secure_graph import Node
from mpcbench.secure import opening
from mpcbench.secure.ledger import Ledger
from mpcbench.secure.operators import REGISTRY
from mpcbench.secure.ring import bits_of, wrap
from tests.secure.pair import run_pair
from tests.secure.single import one_party

LENGTHS = (4, 1, 1, 2)
"""Tokens of every step."""
HEADS, GROUPS, WIDTH = 2, 3, 8
RANGE = {"range": {"left": [0.0, 6.0], "right": [0.0, 6.0]}}
KEYS = Node("scores", "matmul", attrs={**RANGE, "slot": 0})
VALUES = Node("mix", "matmul", attrs={**RANGE, "slot": 1, "groups": GROUPS})


def _random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _inputs(step: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Left operand and new rows of both products; weights of attention are zero where the mask hides."""
    new, total = LENGTHS[step], sum(LENGTHS[: step + 1])
    rows = GROUPS * new
    attention = _random(3 * step + 1, 1, HEADS, rows, total) * causal_mask(rows, total, GROUPS)
    queries = _random(3 * step, 1, HEADS, rows, WIDTH)
    fresh = _random(3 * step + 2, 1, HEADS, new, WIDTH)
    return {"scores": (queries, fresh.transpose(2, 3).contiguous()), "mix": (attention, fresh)}


def _expected(step: int) -> dict[str, torch.Tensor]:
    found = {}
    for name, dim in (("scores", 3), ("mix", 2)):
        rows = torch.cat([_inputs(i)[name][1] for i in range(step + 1)], dim)
        found[name] = _inputs(step)[name][0] @ rows
    return found


def _steps(communicator: Any) -> list[dict[str, Any]]:
    from mpcbench.secure.substrate import crypten

    append, matmul = (REGISTRY[name] for name in ("frontier.append", "frontier.matmul"))
    append, matmul = append(append.Params()), matmul(matmul.Params())
    past: dict[str, Any] = {"scores": None, "mix": None}
    reports = []
    for step in range(len(LENGTHS)):
        report = {}
        for node, dim in ((KEYS, 3), (VALUES, 2)):
            node = replace(node, attrs={**node.attrs, "past": sum(LENGTHS[:step])})
            left, fresh = (crypten.cryptensor(value, src=0) for value in _inputs(step)[node.name])
            communicator.ledger = Ledger()
            with communicator.ledger.scope("online", 0, "test", "matmul"):
                rows = append.run(Node("a", "append", attrs={"dim": dim}), [past[node.name], fresh], [])
                value = matmul.run(node, [left, rows], [])
            past[node.name] = rows
            online, offline = communicator.ledger.total("online"), communicator.ledger.total("offline")
            with (
                communicator.ledger.scope("online", 0, "test", "output"),
                communicator.guard.output(node.name),
            ):
                opened = value.reveal().double() / value.encoder.scale
            shapes = [tuple(v.shape) for v in (_inputs(step)[node.name][0], _whole(step, node.name, dim))]
            declared = matmul.cost(node, shapes, [])
            report[node.name] = {
                "value": opened.tolist(),
                "measured": (online.bytes_sent, online.rounds, dict(offline.tuples), offline.bytes_sent),
                "declared": (
                    declared.bytes_sent, declared.rounds, dict(declared.tuples),
                    declared.dealt_bytes if communicator.get_rank() == 1 else 0,
                ),
            }  # fmt: skip
        reports.append(report)
    return reports


def _whole(step: int, name: str, dim: int) -> torch.Tensor:
    return torch.cat([_inputs(i)[name][1] for i in range(step + 1)], dim)


@pytest.fixture(scope="module", params=["dealer", "first-party"])
def reports(request: pytest.FixtureRequest) -> tuple[list, list]:
    found = run_pair(_steps, provider=request.param)
    if request.param == "first-party":  # which sends nothing
        for report in found[1]:
            for part in report.values():
                part["declared"] = (*part["declared"][:3], 0)
    return found


def test_every_step_multiplies_all_rows(reports):
    for party in reports:
        for step, report in enumerate(party):
            for name, expected in _expected(step).items():
                value = torch.tensor(report[name]["value"], dtype=torch.float64)
                assert (value - expected).abs().max() < 2e-2


def test_a_step_costs_what_its_new_rows_cost(reports):
    for party in reports:
        for report in party:
            for part in report.values():
                assert part["measured"] == part["declared"]
    # One token: three groups of queries and one key in each of two heads are opened, whatever is cached.
    sent = [party[step]["scores"]["measured"][0] for party in reports for step in (1, 2)]
    assert set(sent) == {6 * HEADS * (GROUPS + 1) * WIDTH}


PREFIX = 3


@pytest.mark.parametrize(("node", "dim"), [(KEYS, 3), (VALUES, 2)])
@pytest.mark.parametrize("input_bits", [15, 18])
def test_rows_of_a_prefix_are_opened_without_a_check_and_multiply_as_others(
    monkeypatch: pytest.MonkeyPatch, node: Node, dim: int, input_bits: int
) -> None:
    """Whatever the mask is: material is made for the mask of that opening and no other."""
    append, matmul = REGISTRY["frontier.append"], REGISTRY["frontier.matmul"]
    append, matmul = (
        append(append.Params(input_bits=input_bits)),
        matmul(matmul.Params(input_bits=input_bits)),
    )
    left, fresh = _inputs(0)[node.name]
    shape = [*fresh.shape]
    shape[dim] = PREFIX
    prefix = _random(9, *shape) * 3
    if dim == 2:
        left = torch.cat([_random(8, *left.shape[:3], PREFIX), left], 3)
    share = (prefix.double() * 2.0**16).round().long()
    with one_party() as communicator:
        with monkeypatch.context() as refusing:
            refusing.setattr(opening, "may_have_wrapped", lambda z, cut: bool(cut.shift))
            at_setup = replace(node, attrs={"slot": node.attrs["slot"], "dim": dim})
            rows = append.load(at_setup, "prefix", share, 16)
        assert communicator.ledger.risks.total() == 0.0
        wanted = max(16, input_bits)
        assert rows.bits == wanted
        assert torch.equal(rows.public + rows.mask, share.flatten(0, 1) << wanted - 16)
        values = [wrap((x.double() * 2.0**34).round().long(), 34) for x in (left, fresh)]
        joined = append.run(Node("a", "append", attrs={"dim": dim}), [None, values[1]], [rows])
        made = matmul.run(replace(node, attrs={**node.attrs, "past": PREFIX}), [values[0], joined], [])
    value = made.share.double() * 2.0 ** -bits_of(made)
    expected = left.double() @ torch.cat([prefix, fresh], dim).double()
    assert (value - expected).abs().max() < 2e-3

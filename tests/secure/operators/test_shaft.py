"""SHAFT's operators beyond their samples: clipped scores, hidden keys, the window, costs without ranges."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mpcbench.checkpoints import load
from mpcbench.cost.declared import FREE, Cost
from mpcbench.distill.texts import calibration_texts
from mpcbench.graph.interpreter import PlaintextInterpreter, causal_mask
from mpcbench.graph.lower import lower
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.operators import REGISTRY
from mpcbench.secure.operators.shaft import Softmax, SwiGLU
from mpcbench.secure.protocol import load_protocol
from mpcbench.secure.series import Period, sine_series
from tests.secure.pair import run_pair

TOKENS, WIDTH, CHANNELS = 32, 576, 1536
NODE = Node("y", "softmax", attrs={"groups": 1})
LARGEST = {2: 0.0075, 8: 0.019, 32: 0.065, 128: 0.14, 512: 0.25}
"""Keys -> the error that the softmax states."""


def _scores() -> torch.Tensor:
    """Rows as SmolLM2 has them, from far below the lower bound to above the upper one, and one low row."""
    scores = torch.randn(1, 2, TOKENS, TOKENS, generator=torch.Generator().manual_seed(11)) * 5
    scores[..., 0] += 9
    scores[0, 0, 0] = -1.0
    return scores


def _gates() -> list[torch.Tensor]:
    gate = torch.linspace(-40, 40, 4001).reshape(1, 1, -1)
    return [gate, torch.cos(gate)]


def _run(communicator: Any) -> dict[str, list]:
    from mpcbench.secure.substrate import crypten

    cases = {"softmax": (Softmax, [_scores()]), "swiglu": (SwiGLU, _gates())}
    opened = {}
    for name, (kind, inputs) in cases.items():
        with communicator.ledger.scope("online", 0, name, name):
            value = kind(kind.Params()).run(NODE, [crypten.cryptensor(x, src=0) for x in inputs], [])
            with communicator.guard.output(name):
                opened[name] = (value.reveal().double() / value.encoder.scale).tolist()
    return opened


@pytest.fixture(scope="module")
def opened() -> dict[str, torch.Tensor]:
    first, second = run_pair(_run, provider="dealer")
    assert first == second
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in first.items()}


def _euler(scores: torch.Tensor, mask: torch.Tensor, steps: int = 16) -> torch.Tensor:
    """The operator's steps in floating point."""
    s, y = scores.double().clamp(-4, 12), mask / mask.sum(-1, keepdim=True).double()
    for _ in range(steps):
        y = y + (s - (s * y).sum(-1, keepdim=True)) * y / steps
    return y


def test_scores_are_clipped_and_stepped_as_declared(opened):
    scores, mask = _scores(), causal_mask(TOKENS, TOKENS, 1)
    assert scores[..., mask].min() < -4 and scores[..., mask].max() > 12
    assert (opened["softmax"] - _euler(scores, mask)).abs().max() < 2e-3
    assert (opened["softmax"].sum(-1) - 1).abs().max() < 2e-3


class _Approximated(PlaintextInterpreter):
    """A model whose SiLU and softmax are SHAFT's, in floating point."""

    def call(self, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
        if node.op == "softmax":
            return _euler(inputs[0], causal_mask(*inputs[0].shape[-2:], node.attrs["groups"])).float()
        if node.op == "swiglu":
            series = sine_series("silu_less_relu", Period(4), 16, 12)
            gate = inputs[0].abs()
            rest = torch.from_numpy(series(gate.double().flatten().numpy())).reshape(gate.shape).float()
            return (inputs[0].relu() + (gate < 8) * rest) * inputs[1]
        return super().call(node, inputs)


@pytest.mark.real_model
@torch.no_grad()
def test_smollm2_keeps_its_next_tokens():
    """Eight passages of the packaged text, cut to 32 tokens: the numbers stand in docs/protocols.md."""
    checkpoint = load()
    lowered = lower(checkpoint.model)
    exact, ours = (kind(lowered.graph, lowered.weights) for kind in (PlaintextInterpreter, _Approximated))
    divergences, kept = [], 0
    for text in calibration_texts().texts[:8]:
        ids = checkpoint.tokenizer(text, return_tensors="pt").input_ids[:, :TOKENS]
        p, q = (each.run(ids).flatten().double().log_softmax(-1) for each in (exact, ours))
        divergences.append(float((p.exp() * (p - q)).sum()))
        kept += int(p.argmax() == q.argmax())
    assert sum(divergences) / 8 == pytest.approx(0.0041, rel=0.1)
    assert kept == 8


def test_hidden_keys_weigh_nothing_whatever_is_seen(opened):
    mask = causal_mask(TOKENS, TOKENS, 1)
    assert (opened["softmax"][..., ~mask] == 0).all()
    assert abs(opened["softmax"][0, 0, 0, 0] - 1) < 1e-3  # one key at -1, and 31 hidden ones


@pytest.mark.parametrize("keys", LARGEST)
def test_steps_err_by_what_the_domain_says(keys):
    """Rows of two values, among which are those that err most, and random ones."""
    apart = torch.linspace(0, 16, 321).double()
    rows = [torch.zeros(len(apart), keys).double() for _ in range(2)]
    rows[0][:, :1], rows[1][:, : keys // 2] = apart[:, None], apart[:, None]
    spread = torch.randn(500, keys, generator=torch.Generator().manual_seed(1)).double() * 3
    scores = torch.cat([*(row - 4 for row in rows), spread.clamp(-4, 12)])
    error = (_euler(scores, torch.ones(keys)) - scores.softmax(-1)).abs().max()
    assert 0.8 * LARGEST[keys] < error <= LARGEST[keys]
    assert Softmax.error == LARGEST[32]


def test_silu_errs_by_what_is_stated_and_is_relu_outside_the_window(opened):
    gate, up = (x.double() for x in _gates())
    silu = torch.nn.functional.silu(gate)
    assert (opened["swiglu"] - silu * up).abs().max() < 5.3e-3 + 1e-4
    outside = gate.abs() > 8.01
    assert (opened["swiglu"] - gate.relu() * up)[outside].abs().max() < 1e-3
    inside = (gate.abs() < 8) & (up.abs() > 0.1)
    error = ((opened["swiglu"] - silu * up) / up)[inside].abs().max()
    assert 4e-3 < error < 6e-3


def _cost(name: str, inputs: list, weights: list = ()) -> Cost:
    kind = REGISTRY[name]
    return kind(kind.Params()).cost(Node("y", kind.op), inputs, weights)


def test_softmax_takes_as_many_rounds_for_any_number_of_keys():
    costs = [_cost("shaft.softmax", [(1, 9, rows, keys)]) for rows, keys in ((1, 8), (32, 32), (32, 512))]
    assert [cost.rounds for cost in costs] == [8 + 1 + 32] * 3
    elements = 9 * 32 * 32
    assert costs[1].bytes_sent == 8 * elements * (2 * 27 + 2 + 64)


def test_an_mlp_layer_compares_twice_and_opens_the_phase_once():
    x, h = (1, TOKENS, WIDTH), (1, TOKENS, CHANNELS)
    wide, narrow = ((CHANNELS, WIDTH), (WIDTH, CHANNELS))
    linear = [_cost("crypten.linear", [x], [wide])] * 2 + [_cost("crypten.linear", [h], [narrow])]
    glu = _cost("shaft.swiglu", [h, h])
    n = math.prod(h)
    assert (glu.rounds, glu.bytes_sent) == (2 * 8 + 1 + 3, n * (8 * (2 * 27 + 6) + 3))
    assert glu.tuples["trig"] == 2 * 12 * n
    assert sum(linear, FREE).rounds + glu.rounds == 23


def test_no_cost_depends_on_calibration():
    operators = load_protocol("shaft").operators
    for op, kind in (("softmax", Softmax), ("swiglu", SwiGLU)):
        assert type(operators[op]) is kind and not kind.priced_by
        assert operators[op].params == kind.Params()  # the file spells out what the code takes anyway

"""The declared costs add up to the published and measured figures of stock CrypTen."""

from __future__ import annotations

import pytest

from mpcbench.cost.declared import Cost
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.operators import REGISTRY

S, D, H = 32, 576, 1536


def _cost(name: str, inputs: list, weights: list = (), bits: int = 16, **attrs: object) -> Cost:
    kind = REGISTRY[name]
    return kind(kind.Params(), bits).cost(Node("y", kind.op, attrs=attrs), inputs, weights)


def _mlp(tokens: int, width: int, channels: int, glu: str) -> Cost:
    x, h = (1, tokens, width), (1, tokens, channels)
    wide = _cost("crypten.linear", [x], [(channels, width)])
    return wide + wide + _cost(glu, [h, h]) + _cost("crypten.linear", [h], [(width, channels)])


@pytest.mark.parametrize(
    ("glu", "megabytes", "rounds"),
    [("crypten.swiglu", 83.951616, 28), ("crypten.quadratic_glu", 46.202880, 5)],
)
def test_an_mlp_layer_costs_what_stock_crypten_is_known_to_cost(glu, megabytes, rounds):
    cost = _mlp(S, D, H, glu)
    assert 2 * cost.bytes_sent == round(megabytes * 1e6)  # both parties send the same
    assert cost.rounds == rounds


@pytest.mark.parametrize(("glu", "per_element"), [("crypten.swiglu", 51), ("crypten.quadratic_glu", 3)])
def test_a_glu_opens_so_many_elements_an_element(glu, per_element):
    assert _cost(glu, [(1, S, H), (1, S, H)]).bytes_sent == 8 * per_element * S * H


def test_softmax_of_32_keys_takes_105_rounds():
    assert _cost("crypten.softmax", [(1, 9, 32, 32)]).rounds == 105


def test_ties_of_a_maximum_take_a_bit_for_every_fraction_bit():
    few, many = (_cost("crypten.softmax", [(1, 9, 32, 32)], bits=bits) for bits in (16, 20))
    rows, draws = 9 * 32, 2  # in the last pairwise maximum, and in its one-hot index
    assert many.bytes_sent - few.bytes_sent == 8 * 4 * rows * draws
    assert many.tuples["bit"] - few.tuples["bit"] == 4 * rows * draws
    assert many.rounds == few.rounds


def test_newton_s_steps_are_planned_for_the_protocol_s_fraction_bits():
    ranges = {"first": [2.0, 100.0], "rest": [2.0, 100.0]}
    few, many = (_cost("crypten.rms_norm", [(1, S, D)], bits=bits, range=ranges) for bits in (8, 16))
    assert few.rounds > many.rounds


def test_costs_add_and_multiply():
    one = Cost(8, 1) + Cost(16, 2)
    assert one == Cost(24, 3)
    assert 3 * one == Cost(72, 9)

"""Where an operator says that it is right it is, and beyond it is not: in fixed point, with one party."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from mpcbench.graph.ranges import Observer
from mpcbench.graph.secure_graph import Node, SecureGraph
from mpcbench.secure.operators import REGISTRY, Operator
from mpcbench.secure.operators.limits import exp_reach
from mpcbench.secure.substrate import crypten
from tests.secure.single import one_party


def _operator(name: str, bits: int = 16, **params: object) -> Operator:
    kind = REGISTRY[name]
    return kind(kind.Params(**params), bits)


def _computed(operator: Operator, node: Node, *inputs: torch.Tensor) -> torch.Tensor:
    with one_party(operator.bits) as communicator:
        shared = [crypten.cryptensor(value) for value in inputs]
        with crypten.cfg.temp_override(dict(operator.settings(node))):
            value = operator.run(node, shared, [])
        with communicator.guard.output("test"):
            return value.reveal().double() / value.encoder.scale


def _seen(operator: Operator, node: Node, inputs: Sequence[torch.Tensor]) -> dict[str, list[float]]:
    """What a plaintext run remembers of one node."""
    observer = Observer(SecureGraph([], {}, "client", 0, 8), {})
    observer.functions = {node.op: operator.reference}
    result = observer.call(node, list(inputs))
    for name, values in operator.measured(node, inputs, [], result).items():
        observer._widen(node, name, values)
    return observer.ranges[node.name]


def _found(operator: Operator, node: Node, *inputs: torch.Tensor) -> str | None:
    found = operator.violation(node, _seen(operator, node, inputs))
    return found and found.name


@pytest.mark.parametrize(("iterations", "bits"), [(4, 16), (8, 16), (8, 20), (9, 16)])
def test_crypten_s_exp_vanishes_between_these_two(iterations, bits):
    first, last = exp_reach(iterations, bits)
    with one_party(bits) as communicator:
        x = [0.9 * first, 1.03 * first, first + 10, 0.999 * last, 1.03 * last]
        x = crypten.cryptensor(-torch.tensor(x))
        with crypten.cfg.temp_override({"functions.exp_iterations": iterations}):
            y = x.exp()
        with communicator.guard.output("test"):
            units = y.reveal().tolist()
    assert units[1:4] == [0, 0, 0] and units[0] > 0 and units[4] > 1


@pytest.mark.parametrize(("iterations", "gate", "right"), [(8, 495, True), (8, 520, False), (6, 130, False)])
def test_a_gate_beyond_exp_is_named(iterations, gate, right):
    operator, node = _operator("crypten.swiglu", exp_iterations=iterations), Node("y", "swiglu")
    gates = torch.tensor([[[0.0, 1.0], [float(gate), -float(gate)]]])
    ups = torch.ones_like(gates)
    error = (_computed(operator, node, gates, ups) - operator.reference(node, [gates, ups], [])).abs().max()
    assert bool(error < operator.error) == right
    assert _found(operator, node, gates, ups) == (None if right else "gate")


def _softmax(low: float, high: float) -> Node:
    attrs = {"groups": 1, "range": {"scores": [low, high], "spread": [0.0, high - low]}}
    return Node("y", "softmax", attrs=attrs)


@pytest.mark.parametrize(("keys", "right"), [(50, True), (100, True), (150, False), (256, False)])
def test_keys_that_are_too_many_for_the_reciprocal_are_named(keys, right):
    """Row sums are 1.07 at 100 keys and 1.54 at 200; at 256 the reciprocal leaves all bounds."""
    operator, node = _operator("crypten.softmax"), _softmax(0.0, 0.0)
    scores = torch.zeros(1, 1, 1, keys)
    found = _found(operator, node, scores)
    assert found == (None if right else f"sum of exponentials over {keys} keys")
    assert right or abs(float(_computed(operator, node, scores).sum()) - 1) > 0.03


def test_many_keys_of_which_few_count_are_right():
    operator, node = _operator("crypten.softmax"), _softmax(-20.0, 0.0)
    scores = torch.full((1, 1, 1, 300), -20.0)
    scores[..., :2] = 0.0
    assert abs(float(_computed(operator, node, scores).sum()) - 1) < 1e-2
    assert _found(operator, node, scores) is None


@pytest.mark.parametrize(("below", "right"), [(0, True), (4, True), (14, False), (35, False)])
def test_a_row_below_the_scores_that_the_mask_hides_is_named(below, right):
    operator, node = _operator("crypten.softmax"), _softmax(0.0, 8.0)
    scores = torch.tensor([[[[-float(below), 3.0], [2.0, 2.0]]]])
    hidden = float(_computed(operator, node, scores)[0, 0, 0, 1])
    assert (hidden < 1e-3) == right
    assert _found(operator, node, scores) == (None if right else "largest score of a row")
    extremes = {"scores": [-float(below), 3.0]}
    assert (operator.violation(node, extremes) is None) == right


def test_a_low_score_in_a_row_that_has_a_higher_one_is_right():
    operator, node = _operator("crypten.softmax"), _softmax(0.0, 8.0)
    scores = torch.tensor([[[[0.0, 0.0], [2.0, -30.0]]]])
    computed = _computed(operator, node, scores)[0, 0]
    assert (computed - torch.tensor([[1.0, 0.0], [1.0, 0.0]])).abs().max() < operator.error
    assert _found(operator, node, scores) is None


@pytest.mark.parametrize(
    ("scores", "name"),
    [([[0.0, 0.0], [0.0, -600.0]], "spread"), ([[0.0, 0.0], [530.0, 530.0]], "above hidden ones")],
)
def test_exponents_beyond_exp_are_named(scores, name):
    operator, node = _operator("crypten.softmax"), _softmax(0.0, 8.0)
    assert _found(operator, node, torch.tensor([[scores]])) == name


@pytest.mark.parametrize("name", ["mpcformer.softmax", "secformer.softmax"])
@pytest.mark.parametrize(("total", "right"), [(16.0, True), (4000.0, True), (0.01, False), (20000.0, False)])
def test_sums_that_2quad_cannot_divide_by_are_named(name, total, right):
    operator, node = _operator(name), Node("y", "softmax", attrs={"groups": 1})
    scores = torch.full((1, 1, 1, 4), (total / 4) ** 0.5 - operator.params.centre)
    error = abs(float(_computed(operator, node, scores).sum()) - 1)
    assert (error < 0.05) == right
    assert _found(operator, node, scores) == (None if right else "sum of squares")


def test_2quad_s_sums_follow_its_centre():
    scores = torch.full((1, 1, 1, 4), 40.0)
    node = Node("y", "softmax", attrs={"groups": 1})
    assert _found(_operator("mpcformer.softmax"), node, scores) == "sum of squares"
    assert _found(_operator("mpcformer.softmax", centre=-30.0), node, scores) is None
    assert _found(_operator("mpcformer.softmax", largest_sum=9000.0), node, scores) is None
    assert _operator("mpcformer.softmax").violation(node, {"scores": [60.0, 68.0]}) is not None


def test_scores_that_are_clipped_have_no_range_to_leave():
    node = Node("y", "softmax", attrs={"groups": 1, "range": {"spread": [0.0, 20.0]}})
    seen = {"spread": [0.0, 90.0], "scores": [-60.0, 30.0]}
    assert _operator("shaft.softmax").violation(node, seen) is None


@pytest.mark.parametrize(
    ("name", "values", "right", "named"),
    [
        ("crypten.quadratic_glu", (50000.0, 0.0), (3000.0, 1.0), "power"),
        ("mpcformer.swiglu", (3000.0, 3000.0), (30.0, 30.0), "output"),
        ("fourier.swiglu", (60000.0, 60000.0), (30.0, 30.0), "output"),
        ("shaft.swiglu", (60000.0, 60000.0), (30.0, 30.0), "output"),
    ],
)
def test_products_that_do_not_fit_into_the_ring_are_named(name, values, right, named):
    operator, node = _operator(name), Node("y", REGISTRY[name].op)
    weights = [torch.zeros(1)] if name == "crypten.quadratic_glu" else []
    for given, expected in ((values, named), (right, None)):
        inputs = [torch.tensor([[[value]]]) for value in given]
        result = operator.reference(node, inputs, weights)
        measured = operator.measured(node, inputs, weights, result)
        seen = {key: [float(value.abs().max())] * 2 for key, value in measured.items()}
        found = operator.violation(node, seen)
        assert (found and found.name) == expected


def test_a_product_s_room_shrinks_with_its_fraction_bits():
    node = Node("y", "linear")
    for name, first, second in (
        ("crypten.linear", 2.0**31, 2.0**23),
        ("reuse.linear", 2.0**31, 2.0**23),
        ("frontier.linear", 2.0**32, 2.0**28),
    ):
        assert [_operator(name, bits).room(node) for bits in (16, 20)] == [first, second]
    scaled = Node("y", "matmul", attrs={"scale": 0.1})
    plain = _operator("frontier.matmul").room(Node("y", "matmul"))
    assert plain == 2.0**33 and _operator("frontier.matmul").room(scaled) == pytest.approx(0.1 * 2.0**21)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_sample_is_within_its_operator_s_domain(name):
    operator, sample = _operator(name), REGISTRY[name].sample()
    if sample.node.op in ("embedding", "append", "normed_scores", "sum_squares"):
        return  # their samples are no values of a plaintext run, or take their ranges from other nodes
    observer = Observer(SecureGraph([], {}, "client", 0, 8), dict.fromkeys(sample.node.weights))
    inputs = [None if value is None else value.float() for value in sample.inputs]
    result = operator.reference(sample.node, inputs, sample.weights)
    observer.functions = {sample.node.op: lambda *_: result}
    observer.call(sample.node, inputs)
    for key, values in operator.measured(sample.node, inputs, sample.weights, result).items():
        observer._widen(sample.node, key, values)
    assert operator.violation(sample.node, observer.ranges[sample.node.name]) is None

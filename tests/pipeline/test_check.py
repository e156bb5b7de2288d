"""Values are checked in the order of execution, by what each operator says of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from mpcbench.checkpoints import Checkpoint
from mpcbench.graph.decoding import continued, with_cache
from mpcbench.graph.secure_graph import Node, SecureGraph
from mpcbench.pipeline.check import Watcher, first_violation, range_note, run_in_plaintext
from mpcbench.pipeline.compare import Comparison
from mpcbench.pipeline.export import export
from mpcbench.secure.protocol import available, load_protocol
from tests.pipeline.conftest import TOKENS

OPERATORS = load_protocol("frontier").operators
NORM, GLU = OPERATORS["rms_norm"].params.margin, OPERATORS["swiglu"].params.margin

FEW = TOKENS[:, :3]
"""So few that the tiny model's norms are put off under ``frontier``."""


def _graph() -> SecureGraph:
    norm = Node("n", "rms_norm", attrs={"range": {"first": [1.0, 2.0], "rest": [1.0, 2.0]}}, module="norm")
    glu = Node("g", "swiglu", attrs={"range": {"gate": [0.0, 8.0]}}, module="layers.3.mlp")
    return SecureGraph([norm, glu], {}, "client", 0, 8)


def test_values_within_the_margin_are_in_range() -> None:
    seen = {"n": {"rest": [1 / NORM, 2 * NORM]}, "g": {"gate": [0.0, 8 * GLU], "up": [0.0, 1e9]}}
    assert first_violation(_graph(), seen, OPERATORS) is None


@pytest.mark.parametrize(
    ("node", "values", "words"),
    [
        ("n", {"rest": [0.9 / NORM, 1.0]}, "norm (rms_norm, rest)"),
        ("n", {"first": [1.0, 2.1 * NORM]}, "norm (rms_norm, first)"),
        ("g", {"gate": [0.0, 8.1 * GLU]}, "layers.3.mlp (swiglu, gate)"),
    ],
)
def test_violation_is_named(node: str, values: dict, words: str) -> None:
    found = first_violation(_graph(), {node: values}, OPERATORS)
    assert found.startswith(f"OUT OF RANGE: {words}")


def test_first_of_several_is_named() -> None:
    seen = {"g": {"gate": [0.0, 99.0]}, "n": {"rest": [1.0, 99.0]}}
    assert "norm" in first_violation(_graph(), seen, OPERATORS)


def _behind_a_prefix() -> SecureGraph:
    """Ranges as calibration leaves them, then those of later positions."""
    spans = {name: [0.0, 8.0] for name in ("gate", "up")}
    spans |= {f"{name}_first": [0.0, 99.0] for name in ("gate", "up")}
    glu = Node("g", "swiglu", attrs={"range": spans}, module="layers.3.mlp")
    spans = {"input": [0.0, 8.0], "input_first": [0.0, 99.0]}
    linear = Node("l", "linear", attrs={"range": spans}, module="layers.4.q_proj")
    head = Node("h", "linear", attrs={"range": {"input_first": [0.0, 8.0]}}, module="lm_head")
    return continued(with_cache(SecureGraph([glu, linear, head], {}, "client", 0, 8)), 3)


@pytest.mark.parametrize(
    ("node", "values", "words"),
    [
        ("g", {"gate_first": [0.0, 50.0]}, "layers.3.mlp (swiglu, gate_first) is 0 to 50, calibrated 0 to 8"),
        ("g", {"up_first": [0.0, 50.0]}, "layers.3.mlp (swiglu, up_first)"),
        ("l", {"input_first": [0.0, 50.0]}, "layers.4.q_proj (linear, input_first)"),
        ("h", {"input_first": [0.0, 50.0]}, "lm_head (linear, input_first)"),
        ("h", {"input": [0.0, 50.0]}, "lm_head (linear, input)"),
    ],
)
def test_behind_a_prefix_the_first_position_has_the_ranges_of_the_others(node, values, words):
    found = first_violation(_behind_a_prefix(), {node: values}, OPERATORS)
    assert found.startswith(f"OUT OF RANGE: {words}")
    within = {name: [0.0, 8.0] for name in values}
    assert first_violation(_behind_a_prefix(), {node: within}, OPERATORS) is None


def test_what_is_no_number_is_out_of_range():
    for values in ({"rest": [1.0, math.nan]}, {"rest": [math.nan, 1.0]}):
        assert first_violation(_graph(), {"n": values}, OPERATORS) is not None
    assert first_violation(_graph(), {"g": {"gate": [0.0, math.nan]}}, OPERATORS) is not None


def test_ranges_that_an_operator_does_not_use_bind_nobody():
    """Stock CrypTen's products know no calibration."""
    spans = {"input": [0.0, 8.0], "input_first": [0.0, 8.0]}
    graph = SecureGraph([Node("l", "linear", attrs={"range": spans}, module="q_proj")], {}, "client", 0, 8)
    seen = {"l": {"input": [0.0, 99.0], "output": [-99.0, 99.0]}}
    assert first_violation(graph, seen, load_protocol("crypten").operators) is None
    assert "q_proj" in first_violation(graph, seen, OPERATORS)


def _narrowed(shares: Path, op: str, change: Callable[[dict], dict]) -> None:
    """Change the calibrated ranges of the last node of a kind."""
    path = shares / "party0" / "graph.json"
    graph = SecureGraph.read(path)
    last = next(node for node in reversed(graph.nodes) if node.op == op)
    narrow = replace(last, attrs={**last.attrs, "range": change(last.attrs["range"])})
    nodes = [narrow if node is last else node for node in graph.nodes]
    path.write_text(replace(graph, nodes=nodes).to_json(), encoding="utf-8")


CASES = {
    "gate": ("frontier", "swiglu", {"gate": 0.1}, "layers.2.mlp (swiglu, gate)"),
    "scores of a norm that is put off": (
        "frontier", "softmax", {"scores": 0.1}, "layers.2.self_attn (normed_scores, scores)",
    ),
    "values of a norm that is put off": (
        "frontier", "matmul", {"right": 0.1}, "layers.2.self_attn (normed_scores, value)",
    ),
    "mean squares": ("crypten", "rms_norm", {"first": 0.1}, "norm (rms_norm, first)"),
    "hidden scores": ("crypten", "softmax", {"scores": -99}, "layers.2.self_attn (softmax, largest score"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_leaves_a_range_says_where(
    case: str, original: Checkpoint, plan: Comparison, tmp_path: Path
):
    name, op, factors, words = CASES[case]
    export(original, tmp_path / "out", "client", 16, plan.texts)
    note = partial(range_note, tmp_path / "out", original, FEW, load_protocol(name), FEW.shape[1])
    assert note().startswith("Checked in plaintext: all values lie within")

    def narrower(spans: dict) -> dict:
        if op == "softmax" and name == "crypten":
            return {**spans, "scores": [spans["scores"][0] + 99, spans["scores"][1] + 99]}
        return {key: [end * factors.get(key, 1) for end in span] for key, span in spans.items()}

    _narrowed(tmp_path / "out", op, narrower)
    assert note().startswith(f"OUT OF RANGE: {words}")


def test_a_text_that_is_generated_puts_off_no_norm(original: Checkpoint, plan: Comparison, tmp_path: Path):
    export(original, tmp_path / "out", "client", 16, plan.texts)
    _narrowed(tmp_path / "out", "softmax", lambda spans: {**spans, "scores": [-1e-3, 1e-3]})
    protocol = load_protocol("frontier")
    assert "normed_scores" in range_note(tmp_path / "out", original, FEW, protocol, FEW.shape[1])
    assert range_note(tmp_path / "out", original, FEW, protocol, None).startswith("Checked")


def test_values_are_those_of_the_protocol_s_own_functions(
    original: Checkpoint, plan: Comparison, tmp_path: Path
):
    """Quad and 2Quad are other functions than SiLU and softmax, and lead to other values behind them."""
    export(original, tmp_path / "out", "client", 16, plan.texts)
    found = {}
    for name in available():
        operators = load_protocol(name).operators
        watched = run_in_plaintext(tmp_path / "out", original, TOKENS, partial(Watcher, operators=operators))
        found[name] = watched.ranges
    glu = next(node for node in watched.graph.nodes if node.op == "swiglu")
    assert found["crypten"][glu.name]["product"] != found["mpcformer"][glu.name]["product"]
    assert found["crypten"][glu.name]["product"] == found["frontier"][glu.name]["product"]
    assert set(found["mpcformer"][glu.name]) > {"gate", "up", "output", "power"}
    for ranges in found.values():
        assert torch.tensor([span for spans in ranges.values() for span in spans.values()]).isfinite().all()

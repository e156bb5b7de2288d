"""Ranges are checked in the order of execution, by each operator's own margin."""

from __future__ import annotations

import pytest

from mpcbench.graph.secure_graph import Node, SecureGraph
from mpcbench.pipeline.check import first_violation
from mpcbench.secure.protocol import load_protocol

OPERATORS = load_protocol("frontier").operators
NORM, GLU = OPERATORS["rms_norm"].params.margin, OPERATORS["swiglu"].params.margin


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

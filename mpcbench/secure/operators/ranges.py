"""Calibrated ranges as operators use them: widened by a margin, or a sentence where there are none."""

from __future__ import annotations

from mpcbench.errors import UserError
from mpcbench.graph.secure_graph import Node


def span(node: Node, name: str) -> tuple[float, float]:
    """The smallest and largest value seen in calibration; raises UserError when nothing was seen."""
    found = node.attrs.get("range", {}).get(name)
    if found is None:
        where = node.module or node.name
        raise UserError(
            f"{where} has no calibrated range of its {name}: export the model again, with calibration."
        )
    return float(found[0]), float(found[1])


def magnitude(node: Node, name: str) -> float:
    """The largest absolute value seen."""
    return max(abs(value) for value in span(node, name))


def bound(node: Node, name: str, bits: int, margin: float) -> float:
    """What the integer behind a value with ``bits`` fraction bits stays below."""
    return max(margin * magnitude(node, name), 1.0) * 2.0**bits

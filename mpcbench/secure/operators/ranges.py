"""Calibrated ranges as operators use them: widened by a margin, or a sentence where there are none."""

from __future__ import annotations

from typing import Any

from mpcbench.errors import UserError
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.opening import Cut
from mpcbench.secure.ring import bits_of


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


def largest(node: Node, name: str) -> float:
    """The largest absolute value seen at any position."""
    names = [found for found in (name, f"{name}_first") if found in node.attrs.get("range", {})] or [name]
    return max(magnitude(node, found) for found in names)


def cut(node: Node, name: str, value: Any, wanted: int, margin: float, checked: bool) -> Cut:
    """How an opening cuts ``value`` to ``wanted`` fraction bits, knowing its calibrated magnitude.

    The first position has a bound of its own where calibration saw one, because an attention sink lives
    there that is far larger than all the rest.
    """
    have = bits_of(value)
    scale = margin * 2.0**have
    first = None
    if f"{name}_first" in node.attrs.get("range", {}):
        elements = value.nelement() // value.size(1)
        first = (elements, magnitude(node, f"{name}_first") * scale)
    rest = magnitude(node, name if name in node.attrs.get("range", {}) else f"{name}_first") * scale
    return Cut(max(0, have - wanted), max(rest, 1.0), checked, first)

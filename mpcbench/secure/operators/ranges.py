"""Calibrated ranges as operators use them: widened by a margin, or a sentence where there are none."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from mpcbench.errors import UserError
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.opening import CUT_BITS, CUT_BYTES, Cut
from mpcbench.secure.ring import bits_of, rescaled


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


def seen(node: Node, name: str) -> float | None:
    """The largest absolute value seen at any position; None where calibration saw nothing."""
    ranges = node.attrs.get("range", {})
    return largest(node, name) if {name, f"{name}_first"} & ranges.keys() else None


def largest(node: Node, name: str) -> float:
    """The largest absolute value seen at any position."""
    names = [found for found in (name, f"{name}_first") if found in node.attrs.get("range", {})] or [name]
    return max(magnitude(node, found) for found in names)


class Operand(NamedTuple):
    """This party's share of a value to be opened, how the opening cuts it, and its fraction bits then."""

    share: torch.Tensor
    cut: Cut
    bits: int


def operand(node: Node, name: str, value: Any, wanted: int, margin: float, checked: bool) -> Operand:
    """``value``, to be cut to ``wanted`` fraction bits, knowing its calibrated magnitude.

    Where it has too few bits to lose it is given more, so that six bytes of it are enough. The first position
    has a bound of its own where calibration saw one, because an attention sink lives there that is far larger
    than all the rest.
    """
    have = max(bits_of(value), wanted + CUT_BITS)
    scale = margin * 2.0**have
    first = None
    if f"{name}_first" in node.attrs.get("range", {}):
        elements = value.nelement() // value.size(1)
        first = (elements, magnitude(node, f"{name}_first") * scale)
    rest = magnitude(node, name if name in node.attrs.get("range", {}) else f"{name}_first") * scale
    how = Cut(have - wanted, max(rest, 1.0), checked, first, CUT_BYTES)
    return Operand(rescaled(value.share, bits_of(value), have), how, wanted)

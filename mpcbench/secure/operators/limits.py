"""Whether values that a plaintext run has seen lie where an operator is right, and the first that do not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch

from mpcbench.graph.secure_graph import Node

Plain = Sequence[torch.Tensor]
"""Inputs or weights of a node in a plaintext run."""
Measured = dict[str, torch.Tensor]
"""Values of such a run by name, of which the smallest and the largest count."""
Seen = Mapping[str, Sequence[float]]
"""Smallest and largest value by name: those that calibration looks at, and what the operator measures."""
_FIRST = "_first"


class Violation(NamedTuple):
    """Values from ``low`` to ``high`` where the operator is wrong, and ``allowed``: where it is right."""

    name: str
    low: float
    high: float
    allowed: str


def calibrated(node: Node, name: str) -> Sequence[float] | None:
    """What calibration saw, at the other positions if it saw nothing at the first, or the other way round."""
    ranges, every = node.attrs.get("range", {}), name.removesuffix(_FIRST)
    return next((ranges[each] for each in (name, every, every + _FIRST) if each in ranges), None)


def at_positions(names: Iterable[str]) -> list[str]:
    """The names of these values at the first position, and at all others."""
    return [each for name in names for each in (name + _FIRST, name)]


def beyond_margin(node: Node, seen: Seen, names: Iterable[str], margin: float) -> Violation | None:
    """The first magnitude that is more than ``margin`` times the calibrated one."""
    for name in at_positions(names):
        known = calibrated(node, name)
        if name in seen and known and not _largest(seen[name]) <= margin * _largest(known):
            return _left(name, seen, known, margin)
    return None


def outside_margin(node: Node, seen: Seen, margin: float) -> Violation | None:
    """The first mean square outside its calibrated range, widened by ``margin`` on both sides."""
    for name in ("first", "rest"):
        known = calibrated(node, name)
        if name in seen and known:
            low, high = seen[name]
            if not (known[0] / margin <= low and high <= known[1] * margin):
                return _left(name, seen, known, margin)
    return None


def beyond(seen: Seen, names: Iterable[str], limit: float) -> Violation | None:
    """The first magnitude that is not below ``limit``, whatever calibration saw."""
    for name in names:
        if name in seen and not _largest(seen[name]) < limit:
            return Violation(name, *seen[name], f"right below {limit:.3g}")
    return None


def exp_reach(iterations: int, bits: int) -> tuple[float, float]:
    """CrypTen's exp of -x vanishes from the first to the second; beyond that it grows without bound.

    It is (1 + x / 2^i)^(2^i), which is even about -2^i; what is less than half of 2^-``bits`` is nothing.
    """
    turn = 2.0**iterations
    least = 2.0 ** (-(bits + 1) / turn)
    return turn * (1 - least), turn * (1 + least)


def _largest(span: Sequence[float]) -> float:
    # Python's max passes over a NaN that does not come first.
    return math.inf if any(map(math.isnan, span)) else max(map(abs, span))


def _left(name: str, seen: Seen, known: Sequence[float], margin: float) -> Violation:
    words = " to ".join(f"{value:.3g}" for value in known)
    return Violation(name, *seen[name], f"calibrated {words} with margin {margin:g}")

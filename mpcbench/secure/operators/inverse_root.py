"""The inverse root of a row's mean square as a trigonometric series, and the fraction bits around it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from mpcbench.cost.declared import RING_BYTES
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.operators.ranges import span
from mpcbench.secure.series import Period, Series, fit

TRIG_BITS, PUBLIC_BITS = 22, 18
NORM_BYTES = 7
"""Bytes that are sent of an element of x: its bound is that of a whole row, which leaves no room to give it
more bits only to cut them."""
NORM_BITS = 8 * (RING_BYTES - NORM_BYTES)
SIGNIFICANT = 14
"""Bits of x and of the inverse root that are kept below the leading one."""
TOP = 0.8
"""Largest argument of the series: the rest of the period is for it to come round."""


@dataclass(frozen=True)
class Plan:
    """How rows of one kind are computed: fraction bits of x, of the sum of squares as the series reads it,
    of the root as the series gives it and as it is cut, and the series."""

    x_bits: int
    square_bits: int
    made_bits: int
    root_bits: int
    series: Series


@lru_cache(maxsize=1024)
def plan(low: float, high: float, width: int, tolerance: float) -> Plan:
    """For mean squares from ``low`` to ``high`` of rows of ``width``.

    The sum of squares S is read as S / 2^e, which lies below 0.8; the series has period one and gives
    sqrt(width / S) from it.
    """
    exponent = math.ceil(math.log2(high * width / TOP))
    # Steps of half a power of two, so that many norms share a series.
    lowest = 2.0 ** (math.floor(2 * math.log2(low * width / 2.0**exponent)) / 2)
    series = fit("rsqrt", lowest, TOP, (Period(0),), TRIG_BITS, tolerance)
    # Powers of two of the gain are a matter of fraction bits, so that small roots lose no accuracy.
    gain, lost = math.frexp(math.sqrt(width / 2.0**exponent))
    scaled = replace(
        series,
        constant=series.constant * gain,
        cosines=tuple(gain * c for c in series.cosines),
        sines=tuple(gain * c for c in series.sines),
    )
    x_bits = max(4, SIGNIFICANT - math.floor(math.log2(math.sqrt(low))))
    root_bits = max(6, SIGNIFICANT + math.ceil(math.log2(math.sqrt(high))))
    made_bits = TRIG_BITS + PUBLIC_BITS - lost
    return Plan(x_bits, 2 * x_bits + exponent, made_bits, root_bits, scaled)


@dataclass(frozen=True)
class Layout:
    """One plan for all rows of a norm, where the first row stands for x / 2^``scale``.

    An attention sink makes the first row thousands of times larger; scaled, it has the others' range.
    """

    plan: Plan
    scale: int
    low: float
    high: float


def layout(node: Node) -> Layout:
    """The layout of a norm that is deferred (:mod:`mpcbench.graph.deferral`), from ``node.attrs``.

    Raises UserError where calibration has seen nothing.
    """
    norm = node.attrs["norm"]
    (first_low, first_high), (low, high) = (
        (low / norm["margin"] + norm["eps"], high * norm["margin"] + norm["eps"])
        for low, high in (span(node, "first"), span(node, "rest"))
    )
    scale = max(0, round(math.log2(first_high / high) / 2))
    low, high = min(low, first_low / 4.0**scale), max(high, first_high / 4.0**scale)
    return Layout(plan(low, high, norm["width"], norm["tolerance"]), scale, low, high)

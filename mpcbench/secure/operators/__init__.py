"""Implementations of the graph's operators, by the names that protocol files use.

To add one, write a small file like its neighbours and list its ``OPERATORS`` here; the shared test finds
it by itself.
"""

from __future__ import annotations

from mpcbench.secure.operators import (
    argmax,
    crypten_glu,
    crypten_linear,
    crypten_rms_norm,
    crypten_softmax,
    frontier_cache,
    frontier_glu,
    frontier_local,
    frontier_matmul,
    frontier_nested_glu,
    frontier_normed,
    frontier_rms_norm,
    frontier_softmax,
    local,
    masked_linear,
    published,
    shaft,
)
from mpcbench.secure.operators.base import Operator, Params, Sample

_MODULES = (
    local, crypten_linear, crypten_glu, crypten_softmax, crypten_rms_norm, masked_linear, frontier_local,
    frontier_matmul, frontier_rms_norm, frontier_softmax, frontier_glu, frontier_nested_glu, frontier_cache,
    frontier_normed, published, shaft, argmax,
)  # fmt: skip

REGISTRY: dict[str, type[Operator]] = {
    operator.name: operator for module in _MODULES for operator in module.OPERATORS
}
"""Every implementation by name."""

__all__ = ["REGISTRY", "Operator", "Params", "Sample"]

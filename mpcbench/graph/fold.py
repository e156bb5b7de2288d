"""Fold public-shape arithmetic into the weights, so that no party computes it under MPC.

Four foldings, each exact in real arithmetic:

- the gain of an RMSNorm scales the columns of the linear layers that read it;
- the attention scale goes into the query projection (RoPE is linear, so it commutes);
- a quadratic GLU ``(a g² + b g + c) u`` is completed to a square: with ``s = sign(a)`` it equals
  ``(ĝ² + d) û`` where ``ĝ = √|a| (g + b/2a)``, ``û = s u`` and ``d = s (c − b²/4a)``. The scale and the
  shift go into the gate projection and its bias, the sign into the up projection; ``d`` is one secret
  number a channel. No coefficient is multiplied online, and none, not even its sign, is public. A layer
  with an ``|a|`` below :data:`~mpcbench.checkpoints.polyllama.MIN_LEADING` keeps explicit coefficients;
- cubic and quartic GLUs likewise, see :mod:`mpcbench.graph.nested`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from mpcbench.checkpoints.polyllama import MIN_LEADING
from mpcbench.graph.nested import normal_form
from mpcbench.graph.secure_graph import Node, SecureGraph

Weights = dict[str, torch.Tensor]

_LINEAR_IN_X = {"reshape", "transpose", "rope"}


def fold(graph: SecureGraph, weights: Weights) -> tuple[SecureGraph, Weights]:
    """Apply all foldings; a site that does not have the expected form is left as it is."""
    weights = dict(weights)
    nodes = list(graph.nodes)
    for step in (_fold_gains, _fold_scales, _fold_quadratics, _fold_higher):
        nodes = step(nodes, weights)
    graph.nodes = nodes
    return graph, weights


def _fold_gains(nodes: list[Node], weights: Weights) -> list[Node]:
    for index, node in enumerate(nodes):
        if node.op != "rms_norm" or not node.weights:
            continue
        readers = _readers(nodes, node.name)
        if all(reader.op == "linear" for reader in readers):
            gain = weights[node.weights[0]]
            for reader in readers:
                _rescale(weights, nodes, reader, lambda w, gain=gain: w * gain)
            nodes[index] = replace(node, weights=())
    return nodes


def _readers(nodes: list[Node], name: str) -> list[Node]:
    """The nodes that read a value, seen through views that keep the last dimension."""
    found: list[Node] = []
    for node in nodes:
        if name in node.inputs:
            found += _readers(nodes, node.name) if node.op == "last_token" else [node]
    return found


def _rescale(
    weights: Weights, nodes: list[Node], linear: Node, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Replace a linear layer's weight by its own changed copy (a tied or shared tensor stays intact)."""
    name = linear.weights[0]
    own = f"{linear.module}.weight"
    weights[own] = change(weights[name])
    if own != name:
        nodes[nodes.index(linear)] = replace(linear, weights=(own, *linear.weights[1:]))


def _fold_scales(nodes: list[Node], weights: Weights) -> list[Node]:
    by_name = {node.name: node for node in nodes}
    for index, node in enumerate(nodes):
        scale = node.attrs.get("scale") if node.op == "matmul" else None
        if scale is None:
            continue
        source = by_name[node.inputs[0]]
        while source.op in _LINEAR_IN_X:
            source = by_name[source.inputs[0]]
        if source.op != "linear" or len(_readers(nodes, source.name)) != 1:
            continue
        for name in source.weights:
            weights[name] = weights[name] * scale
        nodes[index] = replace(node, attrs={})
    return nodes


def _fold_quadratics(nodes: list[Node], weights: Weights) -> list[Node]:
    by_name = {node.name: node for node in nodes}
    for index, node in enumerate(nodes):
        if node.op != "polynomial_glu" or node.attrs["degree"] != 2:
            continue
        c, b, a = weights[node.weights[0]].double()
        gate, up = (by_name[name] for name in node.inputs)
        plain = gate.op == up.op == "linear" and len(up.weights) == 1
        if not plain or a.abs().min() < MIN_LEADING * (1 - 1e-6):
            continue
        _fold_gate(nodes, weights, gate, a, b)
        _signed(weights, up, a.sign())
        offset = f"{node.module}.offset"
        weights[offset] = (a.sign() * (c - b * b / (4 * a))).float()
        nodes[index] = replace(node, op="quadratic_glu", weights=(offset,), attrs={})
    return nodes


def _fold_higher(nodes: list[Node], weights: Weights) -> list[Node]:
    by_name = {node.name: node for node in nodes}
    for index, node in enumerate(nodes):
        if node.op != "polynomial_glu" or node.attrs["degree"] not in (3, 4):
            continue
        gate, up = (by_name[name] for name in node.inputs)
        if not gate.op == up.op == "linear" or len(up.weights) > 1:
            continue
        form = normal_form(weights[node.weights[0]].double())
        if form is None:
            continue
        _affine(nodes, weights, gate, form.scale, form.scale * form.shift)
        _signed(weights, up, form.sign)
        names = tuple(f"{node.module}.{part}" for part in form.constants)
        weights.update(zip(names, (c.float() for c in form.constants.values()), strict=True))
        nodes[index] = replace(node, op="nested_glu", weights=names)
    return nodes


def _fold_gate(nodes: list[Node], weights: Weights, gate: Node, a: torch.Tensor, b: torch.Tensor) -> None:
    """``ĝ = √|a| g + b √|a| / 2a``."""
    root = a.abs().sqrt()
    _affine(nodes, weights, gate, root, b * root / (2 * a))


def _signed(weights: Weights, up: Node, sign: torch.Tensor) -> None:
    """The up projection's rows multiplied by one or minus one."""
    weight = weights[up.weights[0]]
    weights[up.weights[0]] = weight * sign.to(weight)[:, None]


def _affine(
    nodes: list[Node], weights: Weights, gate: Node, scale: torch.Tensor, shift: torch.Tensor
) -> None:
    """``scale g + shift`` in place of ``g``: rows of the gate projection scaled, its bias shifted."""
    weight = weights[gate.weights[0]]
    scale, shift = scale.to(weight.device), shift.to(weight.device)
    weights[gate.weights[0]] = (weight.double() * scale[:, None]).float()
    bias = weights[gate.weights[1]].double() * scale if len(gate.weights) > 1 else 0.0
    name = f"{gate.module}.bias"
    weights[name] = (bias + shift).float()
    nodes[nodes.index(gate)] = replace(gate, weights=(gate.weights[0], name))

"""RMSNorms in front of attention, put off until queries and keys have been multiplied.

A norm multiplies row i of x by one number r_i, and what follows is linear up to the scores:

    scores_ij = (r_i x_i Wq) (r_j x_j Wk)ᵀ = r_i r_j (x_i Wq) (x_j Wk)ᵀ

with rotations in between that change nothing of it. So projections read x itself, and r is multiplied in
once it is known, where x has one opening, and those of the squares and of r travel with others that are
due anyway. In exchange the products, one for every pair of tokens, and the values are opened once more: for
many tokens that would be more than is saved. An arrangement for protocols that have both operators; no
captured graph contains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mpcbench.graph.secure_graph import Node, SecureGraph

_VIEWS = {"reshape", "transpose"}


@dataclass(frozen=True)
class _Site:
    """The nodes of one attention that take part; ``dropped`` are the rotations and the views behind them."""

    norm: Node
    projections: tuple[Node, ...]
    ropes: tuple[Node, ...]
    dropped: tuple[Node, ...]
    scores: Node
    softmax: Node
    mix: Node

    def saves(self, graph: SecureGraph, tokens: int) -> bool:
        """Whether what is opened once more for each of ``tokens``, values and products, is no more than x."""
        weights = [graph.weights[node.weights[0]].shape for node in self.projections]
        heads = weights[0][0] // (2 * graph.weights[self.ropes[0].weights[0]].shape[0])
        return 2 * weights[2][0] + heads * (tokens + 1) <= 2 * weights[0][1]


def defer_norms(graph: SecureGraph, settings: Mapping[str, float], tokens: int) -> SecureGraph:
    """The same model with ``sum_squares`` and ``normed_scores`` where an attention over ``tokens`` allows it.

    It must read one RMSNorm without a gain by three projections without a bias, rotate queries and keys
    alike, cache nothing, and open no more than it would otherwise. ``settings``: the norm's ``margin`` and
    ``tolerance``.
    """
    by_name = {node.name: node for node in graph.nodes}
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    changed: dict[str, list[Node]] = {}
    for node in graph.nodes:
        site = _site(node, by_name, readers) if node.op == "softmax" else None
        if site is not None and site.saves(graph, tokens):
            changed |= _arranged(site, graph, settings)
    nodes = [new for node in graph.nodes for new in changed.get(node.name, [node])]
    return replace(graph, nodes=nodes)


def _site(softmax: Node, by_name: Mapping[str, Node], readers: Mapping[str, list[Node]]) -> _Site | None:
    scores, mixes = by_name[softmax.inputs[0]], readers.get(softmax.name, [])
    plain = scores.op == "matmul" and not scores.attrs.keys() & {"scale", "slot"}
    if not plain or [mix.op for mix in mixes] != ["matmul"] or "slot" in mixes[0].attrs:
        return None
    views, ropes = zip(*(_source(name, by_name) for name in scores.inputs), strict=True)
    if any(rope.op != "rope" or rope.attrs.get("scale", 1.0) != 1 for rope in ropes):
        return None
    ends = (*(rope.inputs[0] for rope in ropes), mixes[0].inputs[1])
    projections = tuple(_source(name, by_name)[1] for name in ends)
    if any(node.op != "linear" or len(node.weights) != 1 for node in projections):
        return None
    norm = by_name[projections[0].inputs[0]]
    alone = {reader.name for reader in readers[norm.name]} == {node.name for node in projections}
    if norm.op != "rms_norm" or norm.weights or not alone or ropes[0].weights != ropes[1].weights:
        return None
    return _Site(norm, projections, ropes, (*ropes, *views[0], *views[1]), scores, softmax, mixes[0])


def _source(name: str, by_name: Mapping[str, Node]) -> tuple[list[Node], Node]:
    """Where a value comes from, and the views that it has been through."""
    views, node = [], by_name[name]
    while node.op in _VIEWS:
        views.append(node)
        node = by_name[node.inputs[0]]
    return views, node


def _arranged(site: _Site, graph: SecureGraph, settings: Mapping[str, float]) -> dict[str, list[Node]]:
    """What takes the place of each node that changes, by its name."""
    x = site.norm.inputs[0]
    weights = tuple(node.weights[0] for node in site.projections)
    norm = {**settings, "eps": site.norm.attrs["eps"], "width": graph.weights[weights[0]].shape[1]}
    seen = site.norm.attrs.get("range", {})
    squares = replace(
        site.norm, op="sum_squares", weights=weights, attrs={"own": 0, "norm": norm, "range": seen}
    )
    queries, keys = (rope.inputs[0] for rope in site.ropes)
    scores = replace(
        site.scores, op="normed_scores", inputs=(squares.name, queries, keys, site.mix.inputs[1]),
        weights=site.ropes[0].weights,
        attrs={"norm": norm, "groups": site.softmax.attrs["groups"], "range": seen | _ranges(site)},
    )  # fmt: skip
    mix = replace(site.mix, attrs={**site.mix.attrs, "normed": True})
    changed: dict[str, list[Node]] = {node.name: [] for node in site.dropped}
    for node in (squares, scores, mix):
        changed[node.name] = [node]
    for node in site.projections:
        changed[node.name] = [replace(node, inputs=(x,), attrs={**node.attrs, "leader": squares.name})]
    return changed


def _ranges(site: _Site) -> dict[str, Any]:
    """Calibrated magnitudes of queries, keys, values and scores, as far as there are any."""
    product, mixed, softmax = (n.attrs.get("range", {}) for n in (site.scores, site.mix, site.softmax))
    found = {
        "query": product.get("left"), "key": product.get("right"), "value": mixed.get("right"),
        "scores": softmax.get("scores"),
    }  # fmt: skip
    return {name: span for name, span in found.items() if span is not None}

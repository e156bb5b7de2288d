"""Calibrated ranges for a graph that has none, because there are no weights to calibrate.

Some operators' costs depend on ranges: the number of harmonics of a series, of Newton steps. ``ranges.json``
holds what calibration found in SmolLM2-135M. A model of just that architecture gets them layer by layer, any
other the medians over the layers: an assumption, which the caller has to state.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from statistics import median

from mpcbench.graph.secure_graph import Node, SecureGraph
from mpcbench.secure.operators import Operator

Ranges = dict[str, dict[str, list[float]]]
"""Module of a decoder layer, or ``norm`` -> name of the range -> smallest and largest value."""

_LAYER = re.compile(r"^layers\.\d+\.")


@dataclass(frozen=True)
class Assumed:
    """A graph with ranges, the operators whose costs depend on assumed ones, and the words for them."""

    graph: SecureGraph
    operators: tuple[str, ...]
    words: str


def with_ranges(graph: SecureGraph, operators: Mapping[str, Operator], widen: float = 1.0) -> Assumed:
    """``graph`` with the ranges that costs depend on, where it has none.

    ``widen``: a factor on the assumed ranges (mean squares are widened by it on both sides).
    """
    layers, last = _known()
    own = _is_smollm(graph, len(layers))
    medians = _medians(layers)
    nodes, priced = [], []
    for node in graph.nodes:
        needed = operators[node.op].priced_by if node.op in operators else ()
        if needed and not set(needed) <= set(node.attrs.get("range", {})):
            here = last if node.layer is None else layers[node.layer] if own else medians
            found = {k: _widened(node, v, widen) for k, v in here[_LAYER.sub("", node.module)].items()}
            node = replace(node, attrs={**node.attrs, "range": {**found, **node.attrs.get("range", {})}})
            priced.append(node.op)
        nodes.append(node)
    whose = "those of SmolLM2-135M, layer by layer" if own else "the medians over SmolLM2-135M's layers"
    words = f"{whose}{'' if widen == 1 else f', widened {widen:g} times'}"
    return Assumed(replace(graph, nodes=nodes), tuple(dict.fromkeys(priced)), words)


def _widened(node: Node, span: list[float], factor: float) -> list[float]:
    low, high = span
    return [low / factor if node.op == "rms_norm" else low * factor, high * factor]


def _is_smollm(graph: SecureGraph, layers: int) -> bool:
    """Whether the graph has the sizes of the model that the ranges are from."""
    count = len({node.layer for node in graph.nodes if node.layer is not None})
    width = next((w.shape[1] for name, w in graph.weights.items() if name == "embed_tokens.weight"), 0)
    return (count, width, graph.vocab_size) == (layers, 576, 49152)


@lru_cache(maxsize=1)
def _known() -> tuple[list[Ranges], Ranges]:
    body = json.loads(resources.files("mpcbench.cost").joinpath("ranges.json").read_text(encoding="utf-8"))
    return body["layers"], body["last"]


def _medians(layers: list[Ranges]) -> Ranges:
    return {
        module: {
            name: [median(layer[module][name][end] for layer in layers) for end in (0, 1)] for name in ranges
        }
        for module, ranges in layers[0].items()
    }

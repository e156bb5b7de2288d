"""The secure graph of a model that is known by its configuration alone, on the meta device.

One decoder layer of each kind (SwiGLU, polynomial) is captured and translated as for a real model, then
repeated as often as the configuration says, and only then folded. What comes out is the graph that a model
with weights would have: operators, modules, layers and shapes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from mpcbench.checkpoints import PolyLlamaConfig, PolyLlamaForCausalLM
from mpcbench.checkpoints.polyllama import SILU_SERIES
from mpcbench.graph.fold import Weights
from mpcbench.graph.lower import built, finished
from mpcbench.graph.secure_graph import Node, SecureGraph

if TYPE_CHECKING:
    from transformers import LlamaConfig

COEFFICIENTS = "mlp.activation.coefficients"


class Skeleton:
    """The captured layers of one architecture, from which graphs with any polynomial layers are made."""

    def __init__(self, config: LlamaConfig, degree: int | None = None):
        """``degree`` of polynomial layers, None when no graph will have any. Raises as ``lower`` does."""
        self.config, self.degree = config, degree
        with torch.no_grad():
            self.nodes, self.weights = built(_template(config, degree))

    def graph(
        self, polynomial_layers: tuple[int, ...] = (), embedding: str = "client",
        coefficients: Mapping[int, torch.Tensor] | None = None,
    ) -> SecureGraph:  # fmt: skip
        """The graph with these layers polynomial.

        ``coefficients`` (degree + 1, channels), by layer, decide whether a layer's polynomials fold into the
        weights; where they are not known, they are those of SiLU's series at zero.
        """
        kinds = [int(layer in polynomial_layers) for layer in range(self.config.num_hidden_layers)]
        nodes, weights = repeated(self.nodes, self.weights, kinds)
        for layer in polynomial_layers:
            name = f"layers.{layer}.{COEFFICIENTS}"
            known = (coefficients or {}).get(layer)
            weights[name] = self._series() if known is None else known
        return finished(nodes, weights, self.config, embedding).graph

    def _series(self) -> torch.Tensor:
        column = torch.tensor(SILU_SERIES[: self.degree + 1])
        return column[:, None].expand(-1, self.config.intermediate_size)


def _template(config: LlamaConfig, degree: int | None) -> PolyLlamaForCausalLM:
    """Layer 0 as it is in Llama and, if there is a degree, layer 1 polynomial; no weights."""
    settings = config.to_dict()
    for key in ("model_type", "architectures", "polynomial_layers", "polynomial_degree", "num_hidden_layers"):
        settings.pop(key, None)
    if degree is None:
        small = PolyLlamaConfig(num_hidden_layers=1, **settings)
    else:
        small = PolyLlamaConfig([1], degree, num_hidden_layers=2, **settings)
    with torch.device("meta"):
        return PolyLlamaForCausalLM(small).eval()


def repeated(nodes: list[Node], weights: Weights, kinds: list[int]) -> tuple[list[Node], Weights]:
    """Nodes and weights of a model whose layer i is the template's layer ``kinds[i]``."""
    last = max(index for index, node in enumerate(nodes) if node.layer is not None)
    first = min(index for index, node in enumerate(nodes) if node.layer is not None)
    blocks = {
        kind: [node for node in nodes if node.layer == kind]
        for kind in {node.layer for node in nodes if node.layer is not None}
    }
    made, stored = nodes[:first], {n: w for n, w in weights.items() if not n.startswith("layers.")}
    stream = made[-1].name
    for layer, kind in enumerate(kinds):
        block = _moved(blocks[kind], kind, layer, stream)
        for old, new in zip(blocks[kind], block, strict=True):
            stored.update((name, weights[was]) for was, name in zip(old.weights, new.weights, strict=True))
        made += block
        stream = block[-1].name
    renamed = {nodes[last].name: stream}
    made += [_with_inputs(node, renamed) for node in nodes[last + 1 :]]
    return made, stored


def _moved(block: list[Node], kind: int, layer: int, stream: str) -> list[Node]:
    """One decoder layer under another number, reading ``stream`` where it read the layer before it."""
    own = {node.name for node in block}
    outside = {name for node in block for name in node.inputs} - own
    if len(outside) != 1:
        raise RuntimeError(f"a decoder layer reads {sorted(outside)}, where one value was expected")
    names = {name: f"layer{layer}_{name}" for name in own} | {outside.pop(): stream}
    path = re.compile(rf"^layers\.{kind}(?=\.|$)")
    return [
        replace(
            _with_inputs(node, names),
            name=names[node.name],
            layer=layer,
            module=path.sub(f"layers.{layer}", node.module),
            weights=tuple(path.sub(f"layers.{layer}", name) for name in node.weights),
            attrs=dict(node.attrs),
        )
        for node in block
    ]


def _with_inputs(node: Node, names: Mapping[str, str]) -> Node:
    return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))

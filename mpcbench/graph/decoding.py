"""Generation on the captured graph: the same nodes with a cache of keys and values, one step after another.

:func:`with_cache` joins the keys and the values of every attention to those of earlier tokens. What comes
out serves prompt and decoding steps alike: a step is :func:`continued` after the tokens that are cached,
which turns RoPE to their positions and takes ranges of the later positions alone. Nothing is captured or
stored twice, and weights keep their names. All of it is public: positions, lengths, shapes.
"""

from __future__ import annotations

from dataclasses import replace

from mpcbench.graph.secure_graph import Node, SecureGraph

KEYS_DIM, VALUES_DIM = 3, 2
"""The tokens' dimension of transposed keys (1, K, d, S) and of values (1, K, S, d)."""
_FIRST = "_first"


def with_cache(graph: SecureGraph) -> SecureGraph:
    """The same model with ``past`` and ``append`` nodes in front of every product with keys or values.

    The products get ``attrs["slot"]``, which numbers their caches. A graph that has them stays as it is.
    """
    if any(node.op == "append" for node in graph.nodes):
        return graph
    softmaxes = {node.name for node in graph.nodes if node.op == "softmax"}
    scores = {node.inputs[0] for node in graph.nodes if node.op == "softmax"}
    nodes: list[Node] = []
    slot = 0
    for node in graph.nodes:
        if node.op == "matmul" and (node.name in scores or node.inputs[0] in softmaxes):
            dim = KEYS_DIM if node.name in scores else VALUES_DIM
            node, joined = _joined(node, slot, dim)
            nodes += joined
            slot += 1
        nodes.append(node)
    return replace(graph, nodes=nodes)


def _joined(product: Node, slot: int, dim: int) -> tuple[Node, list[Node]]:
    """A product that reads a cache, and the nodes that feed it."""
    left, new = product.inputs
    past, append = f"{product.name}_past", f"{product.name}_append"
    where = {"layer": product.layer, "module": product.module}
    joined = [
        Node(past, "past", **where),
        Node(append, "append", (past, new), attrs={"dim": dim, "slot": slot}, **where),
    ]
    return replace(product, inputs=(left, append), attrs={**product.attrs, "slot": slot}), joined


def prefix_length(graph: SecureGraph) -> int:
    """How many tokens stand in front of every prompt, as weights (:mod:`mpcbench.graph.prefix`)."""
    found = (node for node in graph.nodes if node.op == "append" and node.weights)
    return next((graph.weights[node.weights[0]].shape[node.attrs["dim"]] for node in found), 0)


def continued(graph: SecureGraph, past: int) -> SecureGraph:
    """A graph :func:`with_cache` for tokens that follow a prefix, if it has one, and ``past`` cached ones."""
    if not past:
        return graph
    past += prefix_length(graph)
    return replace(graph, nodes=[_continued(node, past) for node in graph.nodes])


def _continued(node: Node, past: int) -> Node:
    attrs = dict(node.attrs)
    if node.op == "rope":
        attrs["start"] = past
    if "slot" in attrs and node.op == "matmul":
        attrs["past"] = past
    if "range" in attrs:
        attrs["range"] = _later(attrs["range"])
    return replace(node, attrs=attrs)


def _later(ranges: dict[str, list[float]]) -> dict[str, list[float]]:
    """Ranges without the first position's, which is always cached already.

    Where calibration saw no later position, as behind the last token of all, all of them stay.
    """
    found = {name: span for name, span in ranges.items() if not name.endswith(_FIRST)}
    found |= {
        name: span for name, span in ranges.items()
        if name.endswith(_FIRST) and name.removesuffix(_FIRST) not in found
    }  # fmt: skip
    if "rest" in found:
        found["first"] = found["rest"]
    return found


def choosing(graph: SecureGraph) -> SecureGraph:
    """The same model with the index of the largest logit as its output, in place of the logits."""
    *nodes, output = graph.nodes
    argmax = Node("argmax", "argmax", output.inputs, module="argmax")
    return replace(graph, nodes=[*nodes, argmax, replace(output, inputs=(argmax.name,))])

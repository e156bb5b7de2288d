"""Which linear layers read the same value, so that one opening of it serves them all.

The first of them, the leader, opens the value and asks for the randomness of all; it therefore gets the
other layers' weights after its own. The followers find the value opened.
"""

from __future__ import annotations

from dataclasses import replace

from mpcbench.graph.secure_graph import Node, SecureGraph


def group_linears(graph: SecureGraph) -> SecureGraph:
    """The same graph with leaders and followers marked.

    A leader has ``attrs["own"]``, how many of its weights are its own; a follower ``attrs["leader"]``. One
    that follows another node already stays as it is.
    """
    readers: dict[str, list[Node]] = {}
    for node in graph.nodes:
        if node.op == "linear" and "leader" not in node.attrs:
            readers.setdefault(node.inputs[0], []).append(node)
    marked: dict[str, Node] = {}
    for leader, *others in readers.values():
        weights = (*leader.weights, *(node.weights[0] for node in others))
        attrs = {**leader.attrs, "own": len(leader.weights)}
        marked[leader.name] = replace(leader, weights=weights, attrs=attrs)
        for node in others:
            marked[node.name] = replace(node, attrs={**node.attrs, "leader": leader.name})
    return replace(graph, nodes=[marked.get(node.name, node) for node in graph.nodes])

"""Text in front of every prompt, as keys and values that are constants of the model.

The model owner knows it (a token that begins texts, a system prompt) and computes in plaintext what attention
keeps of it. Both parties get shares of that, as of weights, and prompts go on behind it: its tokens cost
nothing in an inference, and what the first position of a Llama holds, where an attention sink makes values a
thousand times larger than elsewhere, is never computed under MPC.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from mpcbench.errors import UserError
from mpcbench.graph.decoding import continued, with_cache
from mpcbench.graph.interpreter import PlaintextInterpreter
from mpcbench.graph.lower import Lowered
from mpcbench.graph.secure_graph import Weight


@torch.no_grad()
def prefixed(lowered: Lowered, tokens: torch.Tensor) -> Lowered:
    """The model behind ``tokens`` (1, P): its ``append`` nodes have weights, and positions start at P.

    Ranges are those of later positions. Raises UserError when too few positions are left.
    """
    graph, count = with_cache(lowered.graph), tokens.shape[1]
    left = graph.max_tokens - count
    if left < 2:
        raise UserError(
            f"A prefix of {count} tokens leaves {max(0, left)} of the model's positions: shorten it."
        )
    plain = PlaintextInterpreter(graph, lowered.weights)
    plain.run(tokens)
    weights, declared, nodes = dict(lowered.weights), dict(graph.weights), []
    for node in continued(graph, count).nodes:
        if node.op == "append":
            name = f"{node.name}.prefix"
            weights[name] = plain.cache[node.inputs[0]].contiguous()
            declared[name] = Weight(tuple(weights[name].shape))
            node = replace(node, weights=(name,))
        nodes.append(node)
    return Lowered(replace(graph, nodes=nodes, weights=declared, max_tokens=left), weights)

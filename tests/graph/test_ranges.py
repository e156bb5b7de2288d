from __future__ import annotations

import torch

from mpcbench.graph.interpreter import PlaintextInterpreter, causal_mask
from mpcbench.graph.lower import lower
from mpcbench.graph.ranges import Observer, observe
from tests.graph.models import random_model, tokens


class Keeper(PlaintextInterpreter):
    """Keeps the inputs of every call."""

    def __init__(self, *args):
        super().__init__(*args)
        self.inputs = {}

    def call(self, node, inputs):
        self.inputs.setdefault(node.name, []).append(inputs)
        return super().call(node, inputs)


def test_ranges_are_the_extremes_over_all_texts():
    lowered = lower(random_model("llama"))
    observer, keeper = Observer(lowered.graph, lowered.weights), Keeper(lowered.graph, lowered.weights)
    for seed, length in enumerate((4, 9)):
        torch.testing.assert_close(observer.run(tokens(length, seed)), keeper.run(tokens(length, seed)))
    graph = observe(lowered.graph, observer)
    for node in graph.nodes:
        seen = keeper.inputs.get(node.name, [])
        if node.op == "rms_norm":
            squares = [x[0].pow(2).mean(-1)[0] for x in seen]
            assert node.attrs["range"]["first"] == extremes([s[:1] for s in squares])
            if node.module != "norm":  # the last norm sees the last token alone
                assert node.attrs["range"]["rest"] == extremes([s[1:] for s in squares])
        elif node.op == "softmax":
            visible = [x[0][..., causal_mask(*x[0].shape[-2:], node.attrs["groups"])] for x in seen]
            assert node.attrs["range"]["scores"] == extremes(visible)
            mask = [causal_mask(*x[0].shape[-2:], node.attrs["groups"]) for x in seen]
            high = [x[0].masked_fill(~m, -1e9).amax(-1) for x, m in zip(seen, mask, strict=True)]
            low = [x[0].masked_fill(~m, 1e9).amin(-1) for x, m in zip(seen, mask, strict=True)]
            spread = [h - lo for h, lo in zip(high, low, strict=True)]
            assert node.attrs["range"]["spread"] == extremes(spread)
        elif node.op == "swiglu":
            assert node.attrs["range"]["gate_first"] == extremes([x[0][:, :1].abs() for x in seen])
            assert node.attrs["range"]["gate"] == extremes([x[0][:, 1:].abs() for x in seen])
        elif node.op == "matmul":
            for index, name in enumerate(("left", "right")):
                assert node.attrs["range"][name] == extremes([x[index].abs() for x in seen])
        elif node.op == "linear":
            assert node.attrs["range"]["input_first"] == extremes([x[0][:, :1].abs() for x in seen])
        else:
            assert "range" not in node.attrs


def test_a_row_of_zeros_does_not_count_for_a_norm():
    """Such as a padding token's: its normalised row is zero whatever inverse root it is multiplied by."""
    model = random_model("llama")
    model.model.embed_tokens.weight.data[3] = 0.0
    lowered = lower(model)
    first = next(node for node in lowered.graph.nodes if node.op == "rms_norm")
    found = {}
    for name, ids in {"without": [[5, 6]], "with": [[5, 6, 3]], "alone": [[3]]}.items():
        observer = Observer(lowered.graph, lowered.weights)
        observer.run(torch.tensor(ids))
        found[name] = observer.ranges.get(first.name)
    assert found["with"] == found["without"]
    assert found["alone"] is None


def extremes(parts):
    values = torch.cat([part.flatten() for part in parts])
    return [float(values.min()), float(values.max())]

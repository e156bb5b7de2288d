"""Low-rank updates that start from what quantisation took away, instead of from nothing.

LQER (Zhang et al., ICML 2024, section 3): the largest singular directions of a projection's quantisation
error, each input channel weighed by how large the inputs there are. They are where the output errs most.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mpcbench.distill.data import padded
from mpcbench.distill.precision import dense_weight
from mpcbench.progress import Progress, silent

ROWS = 16
LEAST_INPUT = 1e-6


@torch.no_grad()
def compensate(
    student: nn.Module, original: nn.Module, sequences: Sequence[Sequence[int]], progress: Progress = silent
) -> None:
    """Set every low-rank update of ``student`` to the best one of its rank for its projection's error.

    student: a copy of the Llama ``original`` whose projections are rounded and carry peft's LoRA layers.
    sequences: token ids to see inputs on; first tokens, where attention sinks sit, do not count.
    """
    updated = {name: module for name, module in student.named_modules() if hasattr(module, "lora_A")}
    sizes = _input_sizes(original, list(updated), sequences)
    for done, (name, module) in enumerate(updated.items()):
        progress("compensating quantisation", done, len(updated))
        weight, size = original.get_submodule(name).weight.float(), sizes[name].clamp_min(LEAST_INPUT)
        error = weight - dense_weight(module).to(weight.device)
        down, up = module.lora_A["default"].weight, module.lora_B["default"].weight
        left, values, right = torch.linalg.svd(error * size, full_matrices=False)
        rank = min(len(down), len(values))
        root = values[:rank].sqrt()
        down.zero_()[:rank] = root[:, None] * right[:rank] / size
        up.zero_()[:, :rank] = left[:, :rank] * root / module.scaling["default"]
    progress("compensating quantisation", len(updated), len(updated))


def _input_sizes(
    model: nn.Module, names: Sequence[str], sequences: Sequence[Sequence[int]]
) -> dict[str, torch.Tensor]:
    """Module name -> root mean square of each of its input channels."""
    squares: dict[str, torch.Tensor] = {}
    counted: torch.Tensor | None = None

    def see(name: str):
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            own = inputs[0][counted].float().square().sum(0)
            squares[name] = squares[name] + own if name in squares else own

        return hook

    hooks = [model.get_submodule(name).register_forward_hook(see(name)) for name in names]
    tokens = 0
    try:
        for batch in padded(sequences, ROWS):
            batch = batch.to(model.device)
            counted = batch.real & (batch.real.cumsum(1) > 1)
            model.model(input_ids=batch.ids, use_cache=False)
            tokens += int(counted.sum())
    finally:
        for hook in hooks:
            hook.remove()
    return {name: (total / tokens).sqrt() for name, total in squares.items()}

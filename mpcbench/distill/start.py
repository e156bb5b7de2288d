"""Where polynomials start before training: fitted in closed form, from a series, or at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mpcbench.checkpoints.polyllama import SILU_SERIES
from mpcbench.distill.calibrate import fit_layer
from mpcbench.distill.recipe import Polynomials
from mpcbench.distill.stream import Stream
from mpcbench.distill.student import Start, Student
from mpcbench.progress import Progress, silent


@torch.no_grad()
def add_polynomials(
    student: Student,
    layers: Sequence[int],
    settings: Polynomials,
    sequences: Sequence[Sequence[int]],
    seed: int,
    progress: Progress = silent,
    weights: Sequence[float] | None = None,
) -> None:
    """Replace the given layers, in one pass of ``sequences`` through the student.

    Each layer is fitted on the inputs that the student's earlier layers, replaced ones included, produce
    for these sequences; layers that are replaced already stay as they are. weights: what the tokens of each
    sequence count in the fit, 1 unless given.
    """
    generator = torch.Generator().manual_seed(seed)
    model = student.model
    stream = Stream(model, sequences, weights)
    last = max(layers, default=-1)
    for layer in range(last + 1):
        progress("starting polynomials", layer, last + 1)
        stream.attend(layer)
        if layer in layers:
            student.replace(layer, _start(stream, layer, settings, generator), settings.shared)
        stream.transform(layer, model.model.layers[layer].mlp)


def _start(stream: Stream, layer: int, settings: Polynomials, generator: torch.Generator) -> Start:
    mlp = stream.model.model.layers[layer].mlp
    gates = torch.cat([mlp.gate_proj(normed) for normed in stream.mlp_inputs(layer)])[~stream.first]
    scale, bound = gates.square().mean(0).sqrt(), gates.abs().amax(0)
    shape = (settings.degree + 1, gates.shape[1])
    if settings.start == "calibrated":
        coefficients = fit_layer(
            stream, layer, settings.degree, per_channel=not settings.shared, guard_reach=settings.guard_reach
        )
    elif settings.start == "series":
        coefficients = gates.new_tensor(SILU_SERIES[: shape[0]])[:, None].expand(shape)
    else:
        width = 1 if settings.shared else shape[1]
        coefficients = torch.randn(shape[0], width, generator=generator).to(gates.device).expand(shape)
    return Start(coefficients.contiguous(), scale, bound)

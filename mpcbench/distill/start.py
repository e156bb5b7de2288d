"""Where polynomials start before training: fitted in closed form, from a series, or at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mpcbench.checkpoints.polyllama import SILU_SERIES
from mpcbench.distill.calibrate import layer_gates, layer_moments, output_weight
from mpcbench.distill.recipe import Polynomials
from mpcbench.distill.stream import Stream
from mpcbench.distill.student import Start, Student, power_basis
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
    gates = layer_gates(stream, layer)
    moments = layer_moments(stream, layer, gates, settings.degree, settings.guard_reach)
    weight = output_weight(stream, layer)
    usual = gates[~stream.first]
    unit = usual.square().mean(0).sqrt().clamp_min(1e-3)
    if settings.shared:
        unit = unit.square().mean().sqrt()[None]
    if settings.basis == "orthogonal":
        basis = unit * moments.basis(weight, not settings.shared).float()
    else:
        basis = power_basis(unit, settings.degree)
    shape = (settings.degree + 1, gates.shape[1])
    if settings.start == "calibrated":
        coefficients = moments.solve(weight, not settings.shared).float()
    elif settings.start == "series":
        coefficients = gates.new_tensor(SILU_SERIES[: shape[0]])[:, None].expand(shape)
    else:
        width = 1 if settings.shared else shape[1]
        coefficients = torch.randn(shape[0], width, generator=generator).to(gates.device).expand(shape)
    return Start(coefficients.contiguous(), basis, usual.abs().amax(0))

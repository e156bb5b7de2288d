"""Calibration: from a Llama to a PolyLlama in closed form, with no gradient step."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mpcbench import __version__
from mpcbench.checkpoints import (
    Checkpoint,
    PolyLlamaForCausalLM,
    PolynomialGLU,
    Provenance,
    with_polynomials,
    write_provenance,
)
from mpcbench.checkpoints.loading import quiet
from mpcbench.checkpoints.polyllama import check_degree
from mpcbench.checkpoints.provenance import HeldOut
from mpcbench.distill.fit import GUARD_REACH, Moments
from mpcbench.distill.placement import place
from mpcbench.distill.precision import dense_weight
from mpcbench.distill.stream import Stream, divergence
from mpcbench.distill.texts import Split, Texts, calibration_texts, split
from mpcbench.errors import UserError
from mpcbench.paths import cache_dir, whole_file, whole_folder
from mpcbench.progress import Progress, silent

METHODS = {2: 2, 3: 3, 4: 3}
"""By degree, part of every cache key: raise it when the same inputs would give other coefficients."""

FIRST_WEIGHT = 0.02
"""How much the first token of a text counts in the fit.

It is an attention sink in many Llamas (Xiao et al., ICLR 2024, section 3.1): gates of 50 where others stay
within 4, for which a polynomial with a full say of this token would sacrifice all others.
"""


@dataclass(frozen=True)
class Fitted:
    """Coefficients by layer ([degree + 1, channels]) and what they cost in fidelity on held-out text."""

    coefficients: dict[int, torch.Tensor]
    held_out: HeldOut


def calibrate(
    checkpoint: Checkpoint,
    layers: int | None,
    degree: int = 2,
    placement: str = "least-sensitive",
    texts: Texts | None = None,
    progress: Progress = silent,
    per_channel: bool = True,
    folder: Path | None = None,
) -> Path:
    """The folder of a PolyLlama checkpoint with ``layers`` layers replaced; made unless it is cached.

    placement: ``least-sensitive``, ``first``, ``last`` or a list such as ``1,5,7`` (``layers`` may then be
    None). texts: what to fit on, :func:`calibration_texts` by default. per_channel: a polynomial for every
    channel, or one shared by all channels of a layer. folder: where to write instead of the cache; it must
    not exist or be empty. Raises UserError for layers, degrees, placements and folders that are impossible,
    and for a checkpoint that has polynomial layers already.
    """
    if isinstance(checkpoint.model, PolyLlamaForCausalLM) and checkpoint.model.config.polynomial_layers:
        raise UserError(f"{checkpoint.name} has polynomial layers already: calibrate its original.")
    check_degree(degree)
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder: name a new one.")
    texts = texts or calibration_texts()
    parts = split(texts, checkpoint.tokenizer)
    basis = [METHODS[degree], checkpoint.sha256, texts.sha256, degree, per_channel]
    ranked: list[int] = []

    def ranking() -> list[int]:
        ranked.extend(cached_ranking(checkpoint, parts, degree, per_channel, progress, basis))
        return ranked

    chosen = place(placement, layers, checkpoint.model.config.num_hidden_layers, ranking)
    target = folder or cache_dir() / "checkpoints" / _key([*basis, chosen, placement])
    if folder is None and target.is_dir():
        return target
    fitted = fit_layers(checkpoint.model, chosen, degree, parts, per_channel, progress)
    provenance = Provenance(
        original=checkpoint.name,
        original_source=checkpoint.source,
        original_sha256=checkpoint.sha256,
        polynomial_layers=chosen,
        degree=degree,
        placement=placement,
        per_channel=per_channel,
        training="calibrated (closed form), not trained",
        calibration=texts.description,
        calibration_sha256=texts.sha256,
        calibration_tokens=parts.fit_tokens,
        ranking=ranked or None,
        held_out=fitted.held_out,
        mpcbench_version=__version__,
    )
    _write(checkpoint, fitted, provenance, target)
    return target


@torch.no_grad()
def fit_layers(
    model: nn.Module,
    layers: list[int],
    degree: int,
    parts: Split,
    per_channel: bool = True,
    progress: Progress = silent,
) -> Fitted:
    """Fit the given layers in one pass, each on the inputs that the layers replaced before it produce."""
    total = model.config.num_hidden_layers
    coefficients: dict[int, torch.Tensor] = {}
    with _frozen(model):
        original = _original(model, parts)
        fit, held_out = Stream(model, parts.fit), Stream(model, parts.held_out)
        for layer in range(total):
            progress("fitting layers", layer, total)
            fit.attend(layer)
            held_out.attend(layer)
            mlp = model.model.layers[layer].mlp
            if layer in layers:
                coefficients[layer] = fit_layer(fit, layer, degree, per_channel)
                mlp = Replaced(mlp, coefficients[layer])
            fit.transform(layer, mlp)
            held_out.transform(layer, mlp)
        progress("fitting layers", total, total)
        kl, agreement, tokens = divergence(original, held_out)
    return Fitted(coefficients, HeldOut(tokens=tokens, kl=kl, argmax_agreement=agreement))


@torch.no_grad()
def sensitivities(
    model: nn.Module, degree: int, parts: Split, per_channel: bool = True, progress: Progress = silent
) -> list[float]:
    """For each layer the held-out KL (nats a token) to the original of replacing that layer alone.

    One pass of the fitted text; the held-out text branches off at every layer and runs to the end.
    """
    total = model.config.num_hidden_layers
    result = []
    with _frozen(model):
        original = _original(model, parts)
        fit, held_out = Stream(model, parts.fit), Stream(model, parts.held_out)
        for layer in range(total):
            progress("ranking layers", layer, total)
            fit.attend(layer)
            held_out.attend(layer)
            mlp = model.model.layers[layer].mlp
            alone = held_out.branch()
            alone.transform(layer, Replaced(mlp, fit_layer(fit, layer, degree, per_channel)))
            alone.run(range(layer + 1, total))
            result.append(divergence(original, alone)[0])
            fit.transform(layer, mlp)
            held_out.transform(layer, mlp)
        progress("ranking layers", total, total)
    return result


def fit_layer(stream: Stream, layer: int, degree: int, per_channel: bool = True) -> torch.Tensor:
    """Coefficients [degree + 1, channels] (float32) of one layer from a stream that has just attended."""
    moments = layer_moments(stream, layer, layer_gates(stream, layer), degree)
    return moments.solve(output_weight(stream, layer), per_channel).float()


def layer_gates(stream: Stream, layer: int) -> torch.Tensor:
    """Gates of all tokens of a stream that has just attended, [tokens, channels]."""
    mlp = stream.model.model.layers[layer].mlp
    return torch.cat([mlp.gate_proj(normed) for normed in stream.mlp_inputs(layer)])


def layer_moments(
    stream: Stream, layer: int, gate: torch.Tensor, degree: int, guard_reach: float = GUARD_REACH
) -> Moments:
    """What the polynomials of one layer follow from; ``gate`` as :func:`layer_gates` has it."""
    mlp = stream.model.model.layers[layer].mlp
    up = torch.cat([mlp.up_proj(normed) for normed in stream.mlp_inputs(layer)])
    moments = Moments(gate.shape[-1], degree, gate.device)
    first, weight = stream.first, stream.weight
    moments.add(gate, up, torch.where(first, FIRST_WEIGHT, 1.0) * weight)
    if degree > 2:  # text that counts less is there to show what lies beyond, not to be guarded itself
        usual = ~first & (weight >= weight.amax())
        moments.guard(gate[usual].abs().amax(0), guard_reach)
    return moments


def output_weight(stream: Stream, layer: int) -> torch.Tensor:
    """(W_down^T W_down)_jj of every channel j, [channels], float64."""
    return dense_weight(stream.model.model.layers[layer].mlp.down_proj).double().square().sum(0)


class Replaced(nn.Module):
    """A SwiGLU MLP seen with a polynomial activation; shares the MLP's weights."""

    def __init__(self, mlp: nn.Module, coefficients: torch.Tensor):
        super().__init__()
        self.mlp = mlp
        self.activation = PolynomialGLU(coefficients.shape[1], coefficients.shape[0] - 1)
        self.activation.coefficients.data = coefficients

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        gate, up = self.mlp.gate_proj(hidden_states), self.mlp.up_proj(hidden_states)
        return self.mlp.down_proj(self.activation(gate, up))


def _original(model: nn.Module, parts: Split) -> list[torch.Tensor]:
    stream = Stream(model, parts.held_out)
    stream.run(range(model.config.num_hidden_layers))
    return list(stream.log_probabilities())


@contextmanager
def _frozen(model: nn.Module):
    """Evaluation mode for the block."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def _key(parts: list) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def cached_ranking(
    checkpoint: Checkpoint, parts: Split, degree: int, per_channel: bool, progress: Progress, basis: list
) -> list[int]:
    """All layers, least sensitive first; kept on disk with the KL of each."""
    path = cache_dir() / "rankings" / f"{_key(basis)}.json"
    total = checkpoint.model.config.num_hidden_layers
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["kl"]
        if len(kept) == total:
            return sorted(range(total), key=kept.__getitem__)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not there, or damaged: make it
    kept = sensitivities(checkpoint.model, degree, parts, per_channel, progress)
    with whole_file(path) as part:
        part.write_text(json.dumps({"kl": kept}, indent=2) + "\n", encoding="utf-8")
    return sorted(range(total), key=kept.__getitem__)


def _write(checkpoint: Checkpoint, fitted: Fitted, provenance: Provenance, target: Path) -> None:
    poly = with_polynomials(checkpoint.model, fitted.coefficients, provenance.degree)
    with whole_folder(target) as part, quiet():
        poly.save_pretrained(part)
        checkpoint.tokenizer.save_pretrained(part)
        write_provenance(provenance, part)

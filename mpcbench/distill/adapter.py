"""Adapters: what training adds to an original, in a file of a few megabytes.

Safetensors, which hold no code. Names are those of the original's modules::

    model.layers.17.mlp.activation.coefficients      [degree + 1, channels]  float32
    model.layers.17.mlp.gate_proj.down, .up, .scale  [rank, in], [out, rank], []
    model.layers.17.input_layernorm.weight           [hidden]                float32

The metadata under ``mpcbench`` says what the adapter fits and how it was made (:class:`AdapterInfo`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import LlamaForCausalLM

from mpcbench import __version__
from mpcbench.checkpoints import PolyLlamaForCausalLM, with_polynomials
from mpcbench.checkpoints.provenance import HeldOut
from mpcbench.distill.precision import is_projection, rounded
from mpcbench.errors import UserError
from mpcbench.paths import whole_file

KEY = "mpcbench"
_COEFFICIENTS = ".mlp.activation.coefficients"


class AdapterInfo(BaseModel):
    """What an adapter fits, and how it was made.

    ``original_sha256`` is of the original's weights; ``base`` the precision that the student's projections
    had. ``recipe_sha256`` names the recipe with all its changes, ``keep`` is the recipe's own; ``steps`` are
    those that led to these weights, over all stages.
    """

    model_config = ConfigDict(extra="forbid")

    original: str
    original_source: str
    original_sha256: str
    degree: int
    polynomial_layers: list[int]
    placement: str
    shared: bool
    ranking: list[int] | None
    base: str
    double_quantisation: bool
    recipe: str
    recipe_sha256: str
    keep: str
    start: str
    teacher: str
    steps: int
    seed: int
    data: str
    data_sha256: str
    data_tokens: int
    held_out: HeldOut
    mpcbench_version: str

    @classmethod
    def untrained(cls, original: str, base: str) -> AdapterInfo:
        """Of an adapter that changes nothing but the precision of the base."""
        return cls(
            original=original, original_source="", original_sha256="", degree=2, polynomial_layers=[],
            placement="none", shared=False, ranking=None, base=base, double_quantisation=False, recipe="none",
            recipe_sha256="", keep="last", start="none", teacher="none", steps=0, seed=0, data="none",
            data_sha256="", data_tokens=0, held_out=HeldOut(tokens=0, kl=0.0, argmax_agreement=0.0),
            mpcbench_version=__version__,
        )  # fmt: skip


@dataclass(frozen=True)
class LowRank:
    """An update ``scale * up @ down`` of a weight [out, in]; down [rank, in], up [out, rank]."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float = 1.0

    def delta(self) -> torch.Tensor:
        """[out, in] in float32."""
        return self.scale * (self.up.float() @ self.down.float())

    def rounded(self) -> LowRank:
        """Factors in eight bits (E4M3: three of mantissa), each scaled to the format's range."""
        down, down_scale = _eight_bits(self.down)
        up, up_scale = _eight_bits(self.up)
        return LowRank(down, up, self.scale * down_scale * up_scale)


def _eight_bits(factor: torch.Tensor) -> tuple[torch.Tensor, float]:
    """A factor that fills the format's range, and what it has to be multiplied by."""
    scale = factor.abs().max().clamp_min(1e-30).item() / torch.finfo(torch.float8_e4m3fn).max
    return (factor / scale).to(torch.float8_e4m3fn), scale


@dataclass(frozen=True)
class Adapter:
    """Coefficients by layer, low-rank updates by projection, and RMSNorm gains by name."""

    coefficients: dict[int, torch.Tensor]
    updates: dict[str, LowRank]
    norms: dict[str, torch.Tensor]

    def rounded(self) -> Adapter:
        """The same with low-rank updates in eight bits: a quarter of the size, for publication."""
        updates = {name: update.rounded() for name, update in self.updates.items()}
        return Adapter(self.coefficients, updates, self.norms)


def save_adapter(adapter: Adapter, info: AdapterInfo, path: Path) -> None:
    """Write the file as a whole or not at all."""
    tensors = {f"model.layers.{k}{_COEFFICIENTS}": value for k, value in adapter.coefficients.items()}
    for name, update in adapter.updates.items():
        tensors |= {f"{name}.down": update.down, f"{name}.up": update.up}
        tensors[f"{name}.scale"] = torch.tensor(update.scale)
    tensors |= adapter.norms
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with whole_file(path) as part:
        save_file(tensors, part, metadata={KEY: info.model_dump_json()})


def adapter_info(path: Path) -> AdapterInfo:
    """What a file says of itself; UserError if it is no adapter of mpcbench."""
    return _open(path)[1]


def load_adapter(path: Path) -> tuple[Adapter, AdapterInfo]:
    """An adapter and what it fits. UserError if the file is missing, damaged or something else."""
    tensors, info = _open(path, read=True)
    coefficients, norms, updates = {}, {}, {}
    for name, value in tensors.items():
        if name.endswith(_COEFFICIENTS):
            coefficients[int(name.removesuffix(_COEFFICIENTS).split(".")[-1])] = value
        elif name.endswith(".down") and f"{name.removesuffix('.down')}.up" in tensors:
            module = name.removesuffix(".down")
            scale = tensors.get(f"{module}.scale", torch.tensor(1.0))
            updates[module] = LowRank(value, tensors[f"{module}.up"], scale.item())
        elif name.endswith("norm.weight"):
            norms[name] = value
        elif not name.endswith((".up", ".scale")):
            raise UserError(f"{path} holds {name}, which no adapter has: make the adapter again.")
    if sorted(coefficients) != info.polynomial_layers:
        raise UserError(f"{path} lacks coefficients of its layers: make the adapter again.")
    return Adapter(coefficients, updates, norms), info


def _open(path: Path, read: bool = False) -> tuple[dict[str, torch.Tensor], AdapterInfo]:
    try:
        with safe_open(path, framework="pt") as file:
            info = AdapterInfo.model_validate_json((file.metadata() or {})[KEY])
            return {name: file.get_tensor(name) for name in file.keys()} if read else {}, info  # noqa: SIM118
    except (OSError, FileNotFoundError):
        raise UserError(
            f"There is no adapter {path}, or it cannot be read: give a file that exists."
        ) from None
    except (SafetensorError, KeyError, ValidationError, json.JSONDecodeError):
        raise UserError(f"{path} is not an adapter of mpcbench: give a file that distill wrote.") from None


@torch.no_grad()
def merged(
    original: LlamaForCausalLM, adapter: Adapter, info: AdapterInfo, result: str | None = None
) -> PolyLlamaForCausalLM:
    """The original with the adapter's changes made to its weights.

    result: precision that the projections are rounded to after merging; ``None`` means bfloat16 for a
    quantised base and float32 for any other. ``original`` is not changed; tensors that did not change are
    shared with it. Raises UserError if the adapter names weights that the original lacks.
    """
    result = result or ("float32" if info.base == "float32" else "bfloat16")
    poly = with_polynomials(original, adapter.coefficients, info.degree)
    own = dict(poly.named_parameters())
    names = [f"{name}.weight" for name in adapter.updates] + list(adapter.norms)
    for name in names:
        if name not in own:
            raise UserError(f"The adapter changes {name}, which {info.original} does not have.")
    for name, parameter in own.items():
        module = name.removesuffix(".weight")
        if not is_projection(module) or parameter.ndim != 2:
            continue
        weight = rounded(parameter.detach(), info.base, info.double_quantisation)
        if module in adapter.updates:
            weight = weight + adapter.updates[module].delta()
        poly.get_submodule(module).weight = torch.nn.Parameter(rounded(weight, result), requires_grad=False)
    for name, value in adapter.norms.items():
        poly.get_submodule(name.removesuffix(".weight")).weight = torch.nn.Parameter(value.float())
    return poly.eval()

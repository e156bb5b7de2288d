"""Four-bit and bfloat16 bases: what a weight becomes, and how a frozen linear layer holds it.

NF4 (Dettmers et al., NeurIPS 2023, "QLoRA", section 3) and its double quantisation are bitsandbytes' own.
On a GPU its Linear4bit keeps four bits a weight. On a CPU the frozen weights are unpacked once: the same
numbers, without unpacking them again at every step.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from typing import Any

import torch
from torch import nn

BLOCK = 64
"""Weights that share one NF4 scale."""


def bitsandbytes() -> Any:
    """The library, imported without its notices about machines that have no GPU."""
    log = logging.getLogger("bitsandbytes")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            import bitsandbytes as library
            import bitsandbytes.functional
    finally:
        log.setLevel(level)
    return library


def rounded(weight: torch.Tensor, precision: str, double_quantisation: bool = False) -> torch.Tensor:
    """``weight`` as a base of this precision holds it, in float32; shape unchanged.

    precision: ``float32``, ``bfloat16`` or ``nf4``. Dequantised NF4 weights are rounded to bfloat16, the
    precision of the checkpoint that they end up in.
    """
    if precision == "float32":
        return weight.float()
    if precision == "bfloat16":
        return weight.bfloat16().float()
    functional = bitsandbytes().functional
    packed, state = functional.quantize_4bit(
        weight.detach().float().contiguous(), blocksize=BLOCK, quant_type="nf4",
        compress_statistics=double_quantisation,
    )  # fmt: skip
    return functional.dequantize_4bit(packed, state).bfloat16().float()


def is_projection(name: str) -> bool:
    """Whether a module of this name is quantised: the decoder's projections, not embeddings and head."""
    return name.startswith("model.layers.") and name.endswith("_proj")


@torch.no_grad()
def with_precision(
    original: nn.Module, precision: str, device: torch.device | str, double_quantisation: bool = False
) -> nn.Module:
    """A frozen copy on ``device`` whose decoder projections have this precision; all else stays float32.

    Where weights are packed, an NF4 projection becomes bitsandbytes' ``Linear4bit`` and a bfloat16 one a
    :class:`HalfLinear`. Elsewhere a weight keeps its rounded value in float32, which multiplies faster.
    Weights that do not change are shared with ``original``, which itself is left as it is.
    """
    device = torch.empty(0, device=device).device  # "cuda" is no tensor's device: theirs have a number
    shared = {id(tensor): tensor for tensor in (*original.parameters(), *original.buffers())}
    model = copy.deepcopy(original, shared)  # modules are copied, tensors are not
    for name, module in list(model.named_modules()):
        if precision == "float32" or not is_projection(name) or not isinstance(module, nn.Linear):
            continue
        if packs(device):
            parent, _, own = name.rpartition(".")
            packed = _four_bits(module, double_quantisation) if precision == "nf4" else HalfLinear.of(module)
            setattr(model.get_submodule(parent), own, packed.to(device))
        else:
            weight = rounded(module.weight, precision, double_quantisation)
            module.weight = nn.Parameter(weight.to(device), requires_grad=False)
    for module in model.modules():  # not Module.to, which would move the tensors of the original
        for key, tensor in module._parameters.items():
            if tensor is not None and tensor.device != device:
                module._parameters[key] = nn.Parameter(tensor.to(device), requires_grad=False)
        for key, tensor in module._buffers.items():
            module._buffers[key] = None if tensor is None else tensor.to(device)
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


def packs(device: torch.device) -> bool:
    """Whether frozen weights are kept in as few bits as they have, and unpacked in every product."""
    return device.type == "cuda"


class HalfLinear(nn.Linear):
    """A frozen linear layer in two bytes a weight, for inputs of any precision."""

    @classmethod
    def of(cls, module: nn.Linear) -> HalfLinear:
        """The same layer, with its weight rounded."""
        half = cls(module.in_features, module.out_features, bias=False, device="meta")
        half.weight = nn.Parameter(module.weight.detach().bfloat16(), requires_grad=False)
        half.bias = _own(module.bias)
        return half

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out] in the input's precision, or in autocast's."""
        if torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        return nn.functional.linear(input, self.weight.to(input.dtype), self.bias)


def _own(bias: torch.Tensor | None) -> nn.Parameter | None:
    """A bias that moves to another device without that of the original."""
    return None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)


def _four_bits(module: nn.Linear, double_quantisation: bool) -> nn.Module:
    """bitsandbytes' layer, which packs its weight when it is moved to its device."""
    library = bitsandbytes()
    packed = library.nn.Linear4bit(
        module.in_features, module.out_features, bias=module.bias is not None,
        compute_dtype=torch.bfloat16, compress_statistics=double_quantisation, quant_type="nf4",
    )  # fmt: skip
    packed.weight = library.nn.Params4bit(
        module.weight.detach().cpu(), requires_grad=False, blocksize=BLOCK,
        compress_statistics=double_quantisation, quant_type="nf4",
    )  # fmt: skip
    packed.bias = _own(module.bias)
    return packed


def dense_weight(module: nn.Module) -> torch.Tensor:
    """The weight [out, in] of a linear layer in float32, whether it is plain, packed or under a LoRA."""
    base = module.get_base_layer() if hasattr(module, "get_base_layer") else module
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        return base.weight.detach().float()
    return bitsandbytes().functional.dequantize_4bit(base.weight.data, state).float()

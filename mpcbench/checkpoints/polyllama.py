"""Llama with polynomial GLU layers, registered with Transformers' Auto classes.

A SwiGLU layer computes ``down(silu(gate(x)) * up(x))``. Under secret sharing the sigmoid is what
costs; a polynomial of the gate needs multiplications alone. Replacing activations by low-degree
polynomials for two-party inference goes back to CryptoNets (Gilad-Bachrach et al., ICML 2016, section
3.2) and, for transformers, to MPCFormer (Li et al., ICLR 2023, section 4.2). Here every intermediate
channel has a polynomial of its own, which costs nothing more: the coefficients fold into the weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mpcbench.errors import UserError

DEGREES = (2, 3, 4)

# silu(g) = g/2 + g^2/4 - g^4/48 + O(g^6): where an uncalibrated layer starts.
SILU_SERIES = (0.0, 0.5, 0.25, 0.0, -1.0 / 48.0)

MIN_LEADING = 1e-3
"""Smallest |a| of a quadratic a g^2 + b g + c that is completed to a square on export.

Below it b / 2 sqrt|a| would need more integer bits than fixed point has to spare."""


class PolyLlamaConfig(LlamaConfig):
    """A Llama configuration and the set of layers whose GLU is polynomial.

    ``polynomial_layers``: indices of decoder layers, 0-based, each once (kept sorted).
    ``polynomial_degree``: 2, 3 or 4, the same in all of these layers.
    Raises UserError when a layer is out of range or repeated, or the degree is not offered.
    """

    model_type = "poly_llama"

    def __init__(self, polynomial_layers: Iterable[int] = (), polynomial_degree: int = 2, **kwargs):
        super().__init__(**kwargs)
        self.polynomial_layers = check_layers(polynomial_layers, self.num_hidden_layers)
        self.polynomial_degree = check_degree(polynomial_degree)


def check_layers(layers: Iterable[int], total: int) -> list[int]:
    """The sorted layers of a model of ``total`` layers; UserError if one is out of range or repeated."""
    chosen = list(layers)
    for layer in chosen:
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < total:
            raise UserError(f"Layer {layer} does not exist: the model's layers are 0 to {total - 1}.")
        if chosen.count(layer) > 1:
            raise UserError(f"Layer {layer} is named more than once: name each polynomial layer once.")
    return sorted(chosen)


def check_degree(degree: int) -> int:
    """``degree`` itself; UserError unless it is 2, 3 or 4."""
    if isinstance(degree, bool) or degree not in DEGREES:
        raise UserError(f"A polynomial degree of {degree} is not offered: choose 2, 3 or 4.")
    return int(degree)


class PolynomialGLU(nn.Module):
    """``p_j(gate_j) * up_j`` with one polynomial a channel.

    ``coefficients``: [degree + 1, channels], in ascending powers of the gate.
    """

    def __init__(self, channels: int, degree: int):
        super().__init__()
        self.coefficients = nn.Parameter(torch.empty(degree + 1, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start from the Taylor series of SiLU at 0, cut at this degree."""
        with torch.no_grad():
            for power, row in enumerate(self.coefficients):
                row.fill_(SILU_SERIES[power])

    def forward(self, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """gate, up: [..., channels] -> [..., channels]."""
        value = self.coefficients[-1]
        for power in range(self.coefficients.shape[0] - 2, -1, -1):  # Horner
            value = value * gate + self.coefficients[power]
        return value * up


class PolynomialMLP(nn.Module):
    """Llama's MLP with a :class:`PolynomialGLU` in place of SiLU."""

    def __init__(self, config: PolyLlamaConfig):
        super().__init__()
        hidden, channels = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(hidden, channels, bias=config.mlp_bias)
        self.up_proj = nn.Linear(hidden, channels, bias=config.mlp_bias)
        self.down_proj = nn.Linear(channels, hidden, bias=config.mlp_bias)
        self.activation = PolynomialGLU(channels, config.polynomial_degree)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """[..., hidden] -> [..., hidden]."""
        return self.down_proj(self.activation(self.gate_proj(hidden_states), self.up_proj(hidden_states)))


class PolyLlamaForCausalLM(LlamaForCausalLM):
    """``LlamaForCausalLM`` whose layers in ``config.polynomial_layers`` have a polynomial MLP."""

    config_class = PolyLlamaConfig

    def __init__(self, config: PolyLlamaConfig):
        super().__init__(config)
        for layer in config.polynomial_layers:
            self.model.layers[layer].mlp = PolynomialMLP(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Transformers' hook for parameters that a checkpoint does not hold."""
        super()._init_weights(module)
        if isinstance(module, PolynomialGLU) and not getattr(
            module.coefficients, "_is_hf_initialized", False
        ):
            module.reset_parameters()


def with_polynomials(
    model: LlamaForCausalLM, coefficients: dict[int, torch.Tensor], degree: int
) -> PolyLlamaForCausalLM:
    """A PolyLlama that shares ``model``'s weights and has the given layers replaced.

    coefficients: layer -> [degree + 1, intermediate_size], ascending powers. ``model`` is not changed;
    its tensors are shared, not copied. Raises UserError as :class:`PolyLlamaConfig` does.
    """
    settings = model.config.to_dict()
    for key in ("model_type", "architectures", "polynomial_layers", "polynomial_degree"):
        settings.pop(key, None)
    config = PolyLlamaConfig(polynomial_layers=list(coefficients), polynomial_degree=degree, **settings)
    config._attn_implementation = model.config._attn_implementation
    state = dict(model.state_dict())
    for layer, values in coefficients.items():
        state[f"model.layers.{layer}.mlp.activation.coefficients"] = values.to(model.dtype)
    with torch.device("meta"):
        poly = PolyLlamaForCausalLM(config)
    poly.load_state_dict(state, strict=True, assign=True)
    poly.tie_weights()
    # Non-persistent buffers (RoPE frequencies) are in no state dict.
    poly.model.rotary_emb = model.model.rotary_emb
    poly.generation_config = model.generation_config
    return poly.eval()


AutoConfig.register(PolyLlamaConfig.model_type, PolyLlamaConfig, exist_ok=True)
AutoModelForCausalLM.register(PolyLlamaConfig, PolyLlamaForCausalLM, exist_ok=True)

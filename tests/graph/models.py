"""Random models of the Llama family, and random polynomial layers, for tests of the graph."""

from __future__ import annotations

import torch

from mpcbench.checkpoints import PolyLlamaForCausalLM, with_polynomials
from tests.tiny import tiny_llama

# isort: split

from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

SHAPE = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "initializer_range": 0.3, "pad_token_id": 0,
}  # fmt: skip

CONFIGS = {
    "mistral": lambda: MistralConfig(**SHAPE, sliding_window=None),
    "qwen2": lambda: Qwen2Config(**SHAPE),
    "qwen3": lambda: Qwen3Config(**SHAPE, head_dim=8),
    "gelu": lambda: LlamaConfig(**SHAPE, hidden_act="gelu"),
    "gemma": lambda: GemmaConfig(**SHAPE, head_dim=4),
}


def random_model(kind: str) -> PreTrainedModel:
    """``llama``, ``untied`` (a Llama with an LM head of its own) or a key of :data:`CONFIGS`."""
    if kind in ("llama", "untied"):
        model = tiny_llama(tied=kind == "llama")
    else:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(CONFIGS[kind]()).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):  # ones and zeros would hide mistakes
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def polynomial_model(
    degree: int, layers: tuple[int, ...] = (1,), leading: float = 0.2
) -> PolyLlamaForCausalLM:
    """A tiny Llama whose given layers have random polynomials; ``leading``: size of the leading terms."""
    model = random_model("llama")
    generator = torch.Generator().manual_seed(3)
    coefficients = {}
    for layer in layers:
        rows = 0.3 * torch.randn(degree + 1, 24, generator=generator)
        rows[-1] = leading * torch.where(torch.arange(24) % 3 == 0, -1.0, 1.0)
        coefficients[layer] = rows
    return with_polynomials(model, coefficients, degree)


def tokens(length: int, seed: int = 0) -> torch.Tensor:
    """Random token ids, (1, length)."""
    return torch.randint(3, 64, (1, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def last_logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """What Transformers computes at the last position, (1, 1, V)."""
    return model(ids).logits[:, -1:]

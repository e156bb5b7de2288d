"""Which architectures are Llama in all but name, and how each becomes a ``LlamaForCausalLM``.

All rooms after this one see one class only. Every conversion here is exact: the same float operations
in the same order, checked bit for bit by the tests.
"""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel

from mpcbench.errors import UserError

SUPPORTED = ("llama", "poly_llama", "mistral", "qwen2")

_SHARED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "hidden_act", "attention_bias", "mlp_bias", "attention_dropout"),
    *("rms_norm_eps", "rope_parameters", "max_position_embeddings", "initializer_range", "use_cache"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "tie_word_embeddings"),
)


def check_family(config: PretrainedConfig, name: str) -> None:
    """UserError unless the configuration is of a supported architecture with SiLU-gated MLPs."""
    if config.model_type not in SUPPORTED:
        raise UserError(
            f"{name} is a {config.model_type} model, which is not supported: "
            f"give one of the Llama family ({', '.join(SUPPORTED)})."
        )
    if config.hidden_act not in ("silu", "swish"):
        raise UserError(
            f"{name} uses the activation {config.hidden_act}: give a model with SwiGLU (silu) layers."
        )


def as_llama(model: PreTrainedModel, name: str) -> LlamaForCausalLM:
    """The same function as a ``LlamaForCausalLM`` with a plain configuration (no quantisation marks).

    ``poly_llama`` passes unchanged. Raises UserError for an architecture that is not supported.
    """
    check_family(model.config, name)
    if model.config.model_type == "poly_llama":
        return model
    config = plain_config(model.config)
    state = dict(model.state_dict())
    if model.config.model_type == "qwen2":
        # Qwen2 has biases on q, k and v only; Llama's attention_bias adds one on o, which is zero here.
        for layer in range(config.num_hidden_layers):
            state[f"model.layers.{layer}.self_attn.o_proj.bias"] = torch.zeros(config.hidden_size)
    with torch.device("meta"):
        llama = LlamaForCausalLM(config)
    llama.load_state_dict(state, strict=True, assign=True)
    llama.tie_weights()
    llama.model.rotary_emb = type(llama.model.rotary_emb)(config)  # its buffers are in no state dict
    llama.generation_config = model.generation_config
    return llama.eval()


def plain_config(config: PretrainedConfig) -> LlamaConfig:
    """A ``LlamaConfig`` with the fields that Llama knows, and nothing else.

    A sliding window shortens ``max_position_embeddings`` instead: up to there attention is the full one.
    """
    fields = {key: getattr(config, key) for key in _SHARED if getattr(config, key, None) is not None}
    if config.model_type == "qwen2":
        fields["attention_bias"] = True
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True):
        fields["max_position_embeddings"] = min(window, config.max_position_embeddings)
    plain = LlamaConfig(**fields)
    plain.dtype = config.dtype
    return plain

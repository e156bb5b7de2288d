"""What a training run holds in memory, worked out before it starts."""

from __future__ import annotations

import os
from dataclasses import dataclass

import psutil
import torch
from transformers import LlamaConfig

from mpcbench.checkpoints.configuration import read_architecture
from mpcbench.distill.data import HELD_OUT_TOKENS
from mpcbench.distill.objective import CACHED_BYTES
from mpcbench.distill.recipe import Recipe
from mpcbench.errors import UserError

GIB = 1 << 30
HOST, GPU = "memory", "GPU memory"
ORIGINAL = "the original, float32"
BYTES = {"float32": 4.0, "bfloat16": 2.0, "nf4": 0.5 + 4 / 64}
"""A weight with its share of a block's scale; double quantisation would save 0.05 of it."""
PER_HIDDEN, PER_CHANNEL, PER_DEGREE = 36, 14, 4
"""Bytes kept for the backward pass, a token and layer: for each hidden channel, for each MLP channel of a
quadratic, and for each of these and each degree more. Counted with torch's hooks for saved tensors."""
PYTHON = GIB // 2


@dataclass(frozen=True)
class Need:
    """``size`` bytes of ``where`` for ``what``."""

    what: str
    where: str
    size: int


def memory_plan(config: LlamaConfig, recipe: Recipe, device: str | None = None) -> list[Need]:
    """Everything that a run of one process holds at its peak.

    device: ``cpu`` or ``cuda``; by default what this machine has.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    place = GPU if device == "cuda" else HOST
    projections, rest = _weights(config)
    trained = _trained(config, recipe)
    layers, tokens = config.num_hidden_layers, recipe.optimiser.tokens
    a_channel = PER_CHANNEL + PER_DEGREE * (recipe.polynomials.degree - 2)
    a_token = PER_HIDDEN * config.hidden_size + a_channel * config.intermediate_size
    cast = 2 * projections if device == "cpu" and recipe.compute == "bfloat16" else 0
    base = _copy(recipe.student.precision, device, projections, rest)
    answers = HELD_OUT_TOKENS * 4 * (config.vocab_size + layers * config.hidden_size)
    return [
        Need("Python and its libraries", HOST, PYTHON),
        Need(ORIGINAL, HOST, 4 * (projections + rest)),
        Need("the teacher", place, _copy(recipe.teacher.precision, device, projections, rest)),
        Need("the student's frozen weights", place, base),
        Need("what is trained, its gradients and AdamW's means", place, 16 * trained),
        Need("saved states on their way to disk", HOST, 16 * trained),
        Need("projections in bfloat16 for the backward pass", place, cast),
        Need(f"activations of {tokens} tokens", place, tokens * layers * a_token),
        Need("the teacher's answers to the held-out text", HOST, answers),
        Need("the teacher's answers of earlier epochs, at most", HOST, CACHED_BYTES),
        Need("the finished checkpoint", HOST, 4 * projections),
    ]


def config_alone(model: str) -> LlamaConfig | None:
    """A model's configuration without its weights; None where only loading it tells, as with GGUF."""
    try:
        return read_architecture(model).config
    except UserError:
        return None


def refuse_too_little(needs: list[Need], loaded: bool = False) -> None:
    """UserError when a machine's free memory, or its GPU's, is less than what is needed.

    Every process that a launcher has started on this machine needs as much. loaded: whether the original is
    in memory already.
    """
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    there = {HOST: psutil.virtual_memory().available // processes}
    if torch.cuda.is_available():
        there[GPU] = torch.cuda.mem_get_info()[0]
    each = f" in each of {processes} processes" if processes > 1 else ""
    for where, free in there.items():
        needed = sum(n.size for n in needs if n.where == where and not (loaded and n.what == ORIGINAL))
        if needed > free:
            raise UserError(
                f"This training needs about {needed / GIB:.1f} GiB of {where}{each} and {free / GIB:.1f} GiB "
                "are free: lower optimiser.tokens, choose --precision nf4, or take a smaller model."
            )


def _weights(config: LlamaConfig) -> tuple[int, int]:
    """Weights in the decoder's projections, and all others."""
    hidden, channels = config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    layer = hidden * (2 * queries + 2 * keys + 3 * channels)
    tables = 1 if config.tie_word_embeddings else 2
    return config.num_hidden_layers * layer, tables * config.vocab_size * hidden


def _copy(precision: str, device: str, projections: int, rest: int) -> int:
    """Bytes of a frozen copy; on a CPU it shares what it can with the original, else it is float32."""
    if device == "cuda":
        return round(BYTES[precision] * projections + 4 * rest)
    return 0 if precision == "float32" else 4 * projections


def _trained(config: LlamaConfig, recipe: Recipe) -> int:
    hidden, channels, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    keys = hidden * config.num_key_value_heads // config.num_attention_heads
    widths = {
        "q_proj": 2 * hidden, "o_proj": 2 * hidden, "k_proj": hidden + keys, "v_proj": hidden + keys,
        "gate_proj": hidden + channels, "up_proj": hidden + channels, "down_proj": hidden + channels,
    }  # fmt: skip
    low_rank = recipe.student.lora_rank * sum(widths[name] for name in recipe.student.lora_on)
    coefficients = (recipe.polynomials.degree + 1) * (1 if recipe.polynomials.shared else channels)
    return layers * (low_rank + coefficients + 2 * hidden)

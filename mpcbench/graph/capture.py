"""Capture a Hugging Face model once, with ``torch.export``, for any number of tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import nn
from torch.fx import Node as FxNode

from mpcbench.errors import UserError

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)(?:\.|$)")


class _LastLogits(nn.Module):
    """The computation to be captured: token ids to the logits of the last position."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=tokens, use_cache=False, logits_to_keep=1).logits


@dataclass(frozen=True)
class Origin:
    """Where a captured node comes from: its module's class name and path, and its decoder layer."""

    class_name: str
    path: str
    layer: int | None


@dataclass
class Captured:
    """An exported program's graph with its parameters and buffers by placeholder name."""

    graph: torch.fx.Graph
    tensors: dict[str, torch.Tensor]
    names: dict[str, str]
    tokens: FxNode

    def origin(self, node: FxNode) -> Origin:
        """The innermost module that a node was traced in."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        path, kind = stack[-1] if stack else ("", "")
        layer = _LAYER.search(path)
        kind_name = kind if isinstance(kind, str) else kind.__name__
        return Origin(kind_name.rsplit(".", 1)[-1], _short(path), int(layer.group(1)) if layer else None)


def capture(model: nn.Module) -> Captured:
    """Export ``model`` (a causal language model of Transformers) for any number of tokens from 2.

    A model on the meta device, without weights, will do.
    Raises UserError when ``torch.export`` cannot capture it.
    """
    implementation = model.config._attn_implementation
    # One fused attention node is easier to lower than Transformers' eager arithmetic.
    model.config._attn_implementation = "sdpa"
    limit = int(getattr(model.config, "max_position_embeddings", 4096))
    tokens = torch.zeros(1, min(7, limit), dtype=torch.long, device=model.device)
    dynamic = ({1: torch.export.Dim("tokens", min=2, max=limit)},)
    try:
        with torch.no_grad():
            program = torch.export.export(_LastLogits(model), (tokens,), dynamic_shapes=dynamic, strict=False)
    except Exception as error:  # torch.export raises whatever the traced code trips over
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        kind = type(model).__name__
        raise UserError(
            f"torch.export cannot capture {kind} ({reason}): use a Llama-family model."
        ) from error
    finally:
        model.config._attn_implementation = implementation
    return _captured(program)


def _captured(program: torch.export.ExportedProgram) -> Captured:
    signature = program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    tensors = {}
    for placeholder, name in names.items():
        value = program.state_dict.get(name)
        tensors[placeholder] = program.constants[name] if value is None else value
    lifted = {
        name: program.constants[target]
        for name, target in signature.inputs_to_lifted_tensor_constants.items()
    }
    tensors.update(lifted)
    inputs = set(signature.user_inputs)
    tokens = next(n for n in program.graph.nodes if n.op == "placeholder" and n.name in inputs)
    short = {placeholder: _short(name) for placeholder, name in names.items()}
    return Captured(program.graph, tensors, short, tokens)


def _short(path: str) -> str:
    """Drop the wrapper's and Transformers' own prefixes: ``layers.3.mlp.gate_proj``."""
    while path.startswith("model."):
        path = path[len("model.") :]
    return "" if path == "model" else path

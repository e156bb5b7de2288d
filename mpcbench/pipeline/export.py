"""From a checkpoint to one share folder a party."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from mpcbench.checkpoints import Checkpoint, read_provenance
from mpcbench.distill import Texts
from mpcbench.errors import UserError
from mpcbench.graph.lower import lower
from mpcbench.graph.prefix import prefixed
from mpcbench.graph.ranges import Observer, observe
from mpcbench.graph.shares import write_shares
from mpcbench.parties.tokenizer import TOKENIZER
from mpcbench.progress import Progress, silent
from mpcbench.records.schema import ModelInfo

RANGE_TEXTS = 48
"""How many calibration passages the ranges are measured on."""
RANGE_TOKENS = 128


def export(
    checkpoint: Checkpoint, out: Path, embedding: str, fraction_bits: int, texts: Texts,
    progress: Progress = silent, prefix: torch.Tensor | None = None,
) -> ModelInfo:  # fmt: skip
    """Capture, calibrate ranges, cut into shares: writes ``out/party0`` and ``out/party1``.

    ``prefix``: tokens (1, P) in front of every prompt, as constants of the model.

    Raises UserError for what cannot be captured, for text too short to calibrate on, and for an ``out``
    that holds shares already.
    """
    progress("capturing", 0, 1)
    lowered = lower(checkpoint.model, embedding)
    progress("capturing", 1, 1)
    passages = _passages(checkpoint.tokenizer, texts, lowered.graph.max_tokens, prefix)
    ranged = Observer(lowered.graph, lowered.weights)
    with torch.no_grad():
        for done, tokens in enumerate(passages):
            progress("calibrating ranges", done, len(passages))
            ranged.run(tokens)
    progress("calibrating ranges", len(passages), len(passages))
    info = model_info(checkpoint)
    lowered = replace(lowered, graph=replace(observe(lowered.graph, ranged), model=info.model_dump()))
    if prefix is not None:
        lowered = prefixed(lowered, prefix)
    total = sum(tensor.numel() for tensor in lowered.weights.values())
    write_shares(
        lowered.graph,
        lowered.weights,
        out,
        fraction_bits,
        lambda done: progress("cutting shares", done, total),
    )
    # The client turns its prompt into tokens by itself.
    checkpoint.tokenizer.save_pretrained(out / "party1" / TOKENIZER)
    return info


def _passages(
    tokenizer: PreTrainedTokenizerBase, texts: Texts, limit: int, prefix: torch.Tensor | None
) -> list[torch.Tensor]:
    rows = []
    for text in texts.texts:
        tokens = tokenizer(text, return_tensors="pt", add_special_tokens=prefix is None).input_ids
        tokens = tokens[:, :RANGE_TOKENS]
        if tokens.shape[1] >= 2:
            rows.append((tokens if prefix is None else torch.cat([prefix, tokens], 1))[:, :limit])
    if not rows:
        raise UserError("The calibration text has no passage of two tokens: give a longer one.")
    step = max(1, len(rows) // RANGE_TEXTS)
    return rows[::step][:RANGE_TEXTS]


def model_info(checkpoint: Checkpoint) -> ModelInfo:
    """The public facts of a checkpoint that a record holds."""
    config = checkpoint.model.config
    provenance = read_provenance(checkpoint.folder) if checkpoint.folder is not None else None
    return ModelInfo(
        name=provenance.original if provenance else checkpoint.name,
        source=provenance.original_source if provenance else checkpoint.source,
        sha256=provenance.original_sha256 if provenance else checkpoint.sha256,
        parameters=sum(p.numel() for p in checkpoint.model.parameters()),
        layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size,
        polynomial_layers=list(getattr(config, "polynomial_layers", [])),
        degree=getattr(config, "polynomial_degree", None),
        placement=provenance.placement if provenance else "none",
        training=provenance.training if provenance else "original weights",
        calibration=provenance.calibration if provenance else "none",
        checkpoint_sha256=checkpoint.sha256,
    )

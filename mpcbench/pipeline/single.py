"""One run of one checkpoint, with shares cut now or before."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mpcbench.accuracy import cached_evaluate
from mpcbench.checkpoints import Checkpoint, load, read_provenance
from mpcbench.distill import Texts
from mpcbench.errors import UserError
from mpcbench.graph.decoding import prefix_length
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.pipeline.export import export, model_info
from mpcbench.pipeline.measure import Settings, measure
from mpcbench.progress import Progress
from mpcbench.records.schema import Record


def check_shares(shares: Path, checkpoint: Checkpoint, settings: Settings) -> Settings:
    """The settings with the export's own embedding; raises UserError when it is of another model."""
    graph = SecureGraph.read(shares / "party0" / "graph.json")
    if graph.model.get("checkpoint_sha256") != checkpoint.sha256:
        name = graph.model.get("name", "another model")
        raise UserError(
            f"{shares} was exported from other weights ({name}): name that checkpoint, or export again."
        )
    count, asked = prefix_length(graph), settings.context.shape[1] - settings.tokens.shape[1]
    if count != asked:
        raise UserError(
            f"{shares} was exported with a prefix of {count} tokens, and --prefix has {asked}: give the same."
        )
    return replace(settings, embedding=graph.embedding)


def export_and_run(
    shares: Path | None, checkpoint: Checkpoint, settings: Settings, texts: Texts,
    scored: tuple[Path | None, int | None] | None, progress: Progress, stage: Callable[[str], None],
) -> Record:  # fmt: skip
    """:func:`run_single` of an export, or without one (``shares`` None) of shares that are cut for it.

    texts: what such shares calibrate their ranges on. Raises UserError for an export of another model.
    """
    with tempfile.TemporaryDirectory(prefix="mpcbench-shares-") as scratch:
        if shares is None:
            shares = Path(scratch)
            bits = settings.protocol.fixed_point.fraction_bits
            export(checkpoint, shares, settings.embedding, bits, texts, progress, settings.front)
        else:
            settings = check_shares(shares, checkpoint, settings)
        stage("two parties, secret-shared")
        return run_single(shares, checkpoint, settings, scored, progress)


def run_single(
    shares: Path, checkpoint: Checkpoint, settings: Settings, scored: tuple[Path | None, int | None] | None,
    progress: Progress,
) -> Record:  # fmt: skip
    """Measure once. ``scored`` names the questions for plaintext accuracy, None for none."""
    original = _original(checkpoint)
    evaluation = None
    if scored is not None:
        evaluation = cached_evaluate(checkpoint, original, *scored, progress)
    key = settings.key(checkpoint.sha256, [str(part) for part in scored or ()])
    return measure(shares, model_info(checkpoint), checkpoint, original, settings, evaluation, key, progress)


def _original(checkpoint: Checkpoint) -> Checkpoint:
    """The model that a polynomial checkpoint was made from, where it is at hand; else itself."""
    provenance = read_provenance(checkpoint.folder) if checkpoint.folder is not None else None
    if provenance is None:
        return checkpoint
    original = load(provenance.original)
    if original.sha256 != provenance.original_sha256:
        raise UserError(f"{provenance.original} has changed since {checkpoint.name} was made: make it again.")
    return original

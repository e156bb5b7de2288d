"""The main job: one model with several numbers of polynomial layers, each measured and recorded.

Every finished measurement is a record on disk before the next one starts, and a comparison that is
called again skips what it finds there; checkpoints, rankings and scores are cached by content.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mpcbench.accuracy import cached_evaluate
from mpcbench.accuracy.questions import QuestionSet, load_questions
from mpcbench.checkpoints import Checkpoint, load
from mpcbench.checkpoints.polyllama import check_degree
from mpcbench.distill import Texts, calibrate
from mpcbench.distill.placement import place
from mpcbench.distill.published import find_adapter
from mpcbench.distill.result import trained_checkpoint
from mpcbench.errors import UserError
from mpcbench.paths import cache_dir
from mpcbench.pipeline.export import export, model_info
from mpcbench.pipeline.measure import Settings, measure
from mpcbench.progress import Progress
from mpcbench.records.schema import Record
from mpcbench.records.store import read, write

Stage = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """What to compare: numbers of polynomial layers of one model, and how each is made and measured.

    ``others``: settings with the same embedding, under which every checkpoint is measured as well.
    ``adapters``: a folder of trained adapters, which are taken where they fit; None to fit all polynomials.
    """

    model: str
    layers: list[int]
    degree: int
    placement: str
    texts: Texts
    settings: Settings
    task_data: Path | None
    limit: int | None
    results: Path
    others: tuple[Settings, ...] = ()
    adapters: Path | None = None


def compare(
    plan: Comparison, original: Checkpoint, progress: Progress, stage: Stage = lambda text: None,
    done: Callable[[Record], None] = lambda record: None,
) -> list[Record]:  # fmt: skip
    """Measure every number of layers that has no record yet; returns all records of this comparison.

    ``progress`` hears of steps within a stage, ``stage`` of each stage's name, ``done`` of each record as
    soon as it is there. Raises UserError before
    anything long starts when the plan is impossible.
    """
    total = original.model.config.num_hidden_layers
    check_counts(plan.layers, total)
    check_degree(plan.degree)
    for count in plan.layers:
        if count:
            place(plan.placement, count, total, lambda: list(range(total)))
    questions = load_questions(plan.task_data).head(plan.limit)
    records = []
    for index, count in enumerate(plan.layers):
        where = f"{count} polynomial layers ({index + 1} of {len(plan.layers)})"
        stage(f"{where}: checkpoint")
        checkpoint = polynomial_checkpoint(
            original, count, plan.degree, plan.placement, plan.texts, plan.adapters, progress
        )
        records += _all(
            plan, original, checkpoint, questions, progress, lambda text, w=where: stage(f"{w}: {text}"), done
        )
    return records


def check_counts(counts: list[int], total: int) -> None:
    """Raise UserError unless the counts are distinct and between 0 and the number of layers."""
    for count in counts:
        if not 0 <= count <= total:
            raise UserError(
                f"--layers {count} is out of range: the model has {total} layers, give 0 to {total}."
            )
        if counts.count(count) > 1:
            raise UserError(f"--layers names {count} more than once: name each number once.")


def polynomial_checkpoint(
    original: Checkpoint, count: int, degree: int, placement: str, texts: Texts, adapters: Path | None,
    progress: Progress,
) -> Checkpoint:  # fmt: skip
    """The model with ``count`` polynomial layers: trained where an adapter is found, else fitted."""
    if count == 0:
        return original
    if adapters is not None:
        adapter = find_adapter(adapters, original.sha256, count, degree, placement)
        if adapter is not None:
            return load(str(trained_checkpoint(original, adapter)))
    return load(str(calibrate(original, count, degree, placement, texts, progress)))


def _all(
    plan: Comparison, original: Checkpoint, checkpoint: Checkpoint, questions: QuestionSet,
    progress: Progress, stage: Stage, done: Callable[[Record], None],
) -> list[Record]:  # fmt: skip
    """One checkpoint under every protocol; shares are cut once for all that agree on the fixed point."""
    task = [questions.task, questions.sha256, plan.limit]
    found: dict[str, Record] = {}
    missing: dict[int, list[Settings]] = {}
    for settings in (plan.settings, *plan.others):
        key = settings.key(checkpoint.sha256, task)
        record = _existing(plan.results, key, stage)
        if record is not None:
            stage(f"recorded before: {settings.in_words()}")
            found[key] = record
            done(record)
        else:
            missing.setdefault(settings.protocol.fixed_point.fraction_bits, []).append(settings)
    if missing:
        stage("accuracy in plaintext")
        evaluation = cached_evaluate(checkpoint, original, plan.task_data, plan.limit, progress)
    for bits, group in missing.items():
        stage("cutting shares")
        with tempfile.TemporaryDirectory(prefix="shares-", dir=cache_dir()) as scratch:
            first = plan.settings
            export(checkpoint, Path(scratch), first.embedding, bits, plan.texts, progress, first.front)
            for settings in group:
                stage(f"two parties under {settings.in_words()}")
                key = settings.key(checkpoint.sha256, task)
                record = measure(
                    Path(scratch), model_info(checkpoint), checkpoint, original, settings, evaluation, key,
                    progress,
                )  # fmt: skip
                write(record, plan.results)
                found[key] = record
                done(record)
    return [found[settings.key(checkpoint.sha256, task)] for settings in (plan.settings, *plan.others)]


def _existing(results: Path, key: str, stage: Stage) -> Record | None:
    """The record of a run with this key, if one is there and whole; ``stage`` hears of one that is not."""
    for path in sorted(results.glob(f"*_{key[:8]}.json")):
        try:
            record = read(path)
        except UserError:
            stage(f"{path} is no whole record: measured again")
            continue
        if record.key == key:
            return record
    return None

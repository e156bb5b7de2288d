"""A grid of measurements: every combination of model, layers, protocol, tokens, link and seed.

A cell is a comparison of one, so that its record is on disk before the next cell starts, and a sweep that
is called again goes on where it stopped.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mpcbench.checkpoints import Checkpoint, load
from mpcbench.distill import Texts, calibration_texts
from mpcbench.distill.published import published
from mpcbench.documents import parse_yaml
from mpcbench.errors import UserError
from mpcbench.parties.network import load_link
from mpcbench.pipeline.compare import Comparison, Stage, check_counts, compare
from mpcbench.pipeline.measure import Settings
from mpcbench.progress import Progress
from mpcbench.records.schema import Record
from mpcbench.records.store import CannotWrite, readable
from mpcbench.secure.protocol import load_protocol

AXES = ("model", "layers", "protocol", "tokens", "link", "seed")


class Options(BaseModel):
    """What all cells share; named as the options of ``mpcbench compare``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    degree: int = 2
    placement: str = "least-sensitive"
    provider: str = "dealer"
    embedding: str = Field("client", pattern="^(client|private)$")
    repetitions: int = Field(3, ge=1)
    warmups: int = Field(1, ge=0)
    threads: int | None = Field(None, ge=1)
    link_backend: str = Field("transport", pattern="^(transport|netem|namespaces)$")
    limit: int = Field(600, ge=1)
    task_data: Path | None = None
    calibration_data: str | None = None


@dataclass(frozen=True)
class Cell:
    """One point of the grid; ``seed`` None takes the usual prompt."""

    model: str
    layers: int
    protocol: str
    tokens: int
    link: str
    seed: int | None

    def __str__(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        return (
            f"{self.model} with {self.layers} polynomial layers, {self.protocol}, {self.tokens} tokens, "
            f"{self.link}{seed}"
        )


MakeSettings = Callable[..., Settings]
"""From a checkpoint and options, named as on the command line, to a measurement."""


@dataclass(frozen=True)
class Sweep:
    """Cells in the order in which they run, and what they share."""

    cells: tuple[Cell, ...]
    options: Options
    results: Path
    settings: MakeSettings


class _Grid(BaseModel):
    model_config = ConfigDict(extra="forbid")

    model: list[str] = Field(["smollm2-135m"], min_length=1)
    layers: list[int] = Field([0], min_length=1)
    protocol: list[str] = Field(["crypten"], min_length=1)
    tokens: list[int] = Field([32], min_length=1)
    link: list[str] = Field(["loopback"], min_length=1)
    seed: list[int | None] = Field([None], min_length=1)
    options: Options = Options()


def example() -> str:
    """The text of a sweep's file, with comments."""
    return resources.files("mpcbench.pipeline").joinpath("sweep.yaml").read_text(encoding="utf-8")


def read_sweep(file: Path, results: Path, settings: MakeSettings) -> Sweep:
    """The sweep that a YAML file describes.

    Raises UserError with one sentence for a file that is missing or no YAML, a misspelt axis or option, a
    value of the wrong kind, and an unknown protocol or link.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"Cannot read {file} ({reason}): name a sweep's YAML file.") from None
    body = parse_yaml(text, str(file))
    if not isinstance(body, dict):
        raise UserError(f"{file} describes no sweep: write one or more of {', '.join(AXES)}.")
    for key in body:
        if key not in (*AXES, "options"):
            raise UserError(f"{file}: {key!r} is no axis: choose {', '.join(AXES)}, or options.")
    lists = {k: v if isinstance(v, list) or k == "options" else [v] for k, v in body.items()}
    try:
        grid = _Grid.model_validate(lists)
    except ValidationError as error:
        raise UserError(_sentence(file, error)) from None
    for name in grid.protocol:
        load_protocol(name, grid.options.provider)
    for name in grid.link:
        load_link(name)
    cells = itertools.product(*(dict.fromkeys(getattr(grid, axis)) for axis in AXES))
    return Sweep(tuple(Cell(*values) for values in cells), grid.options, results, settings)


def unmeasured(plan: Sweep) -> list[Cell]:
    """Cells without a whole record in the results folder that says of itself what they say."""
    there = {_what(record) for record in readable(plan.results)[0]}
    provider = plan.options.provider
    return [
        cell
        for cell in plan.cells
        if (cell.model, cell.layers, load_protocol(cell.protocol, provider).name, cell.tokens,
            load_link(cell.link).name, cell.seed) not in there
    ]  # fmt: skip


def _what(record: Record) -> tuple[str, int, str, int, str, int | None]:
    workload = record.workload
    return (record.model.name, len(record.model.polynomial_layers), record.protocol.name, workload.tokens,
            record.link.profile, workload.seed)  # fmt: skip


def _sentence(file: Path, error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{file}: {where} is unknown: options are {', '.join(Options.model_fields)}."
    return f"{file}: {where}: {first['msg']} (found {first['input']!r})."


def run(plan: Sweep, progress: Progress, stage: Stage, done: Callable[[Record], None]) -> list[str]:
    """Measure every cell that has no record yet; ``done`` hears every record, also those that were there.

    Cells of one checkpoint are measured together, so that its shares are cut once. A checkpoint whose
    cells fail does not keep the others from being measured: returned are the sentences of the failures.
    Raises CannotWrite when a record cannot be kept.
    """
    failures = []
    for (model, layers), cells in _by_checkpoint(plan.cells):
        try:
            _measure(plan, model, layers, cells, progress, stage, done)
        except CannotWrite:
            raise  # whatever is measured next would be lost as well
        except UserError as error:
            failures.append(f"{model} with {layers} polynomial layers: {error}")
            stage(f"failed: {failures[-1]}")
    return failures


def _by_checkpoint(cells: tuple[Cell, ...]) -> Iterator[tuple[tuple[str, int], list[Cell]]]:
    for which, group in itertools.groupby(cells, key=lambda cell: (cell.model, cell.layers)):
        yield which, list(group)


def _measure(
    plan: Sweep, model: str, layers: int, cells: list[Cell], progress: Progress, stage: Stage,
    done: Callable[[Record], None],
) -> None:  # fmt: skip
    options = plan.options
    texts = calibration_texts(options.calibration_data)
    stage(f"loading {model}")
    original = load(model)
    check_counts([layers], original.model.config.num_hidden_layers)
    first, *others = [_settings(plan, original, texts, cell) for cell in cells]
    comparison = Comparison(
        model, [layers], options.degree, options.placement, texts, first, options.task_data, options.limit,
        plan.results, tuple(others), None if options.calibration_data else published(),
    )  # fmt: skip
    compare(comparison, original, progress, stage, done)


def _settings(plan: Sweep, original: Checkpoint, texts: Texts, cell: Cell) -> Settings:
    options = plan.options
    usual: dict[str, Any] = {} if cell.seed is None else {"prompt": prompt(texts, cell.seed, cell.tokens)}
    made = plan.settings(
        original, protocol=cell.protocol, provider=options.provider, tokens=cell.tokens, network=cell.link,
        backend=options.link_backend, embedding=options.embedding, repetitions=options.repetitions,
        warmups=options.warmups, threads=options.threads, **usual,
    )  # fmt: skip
    return replace(made, seed=cell.seed)


def prompt(texts: Texts, seed: int, tokens: int) -> str:
    """Passages drawn with ``seed``, with at least ``tokens`` words, so that they need not be repeated."""
    passages = random.Random(seed).sample(texts.texts, len(texts.texts))
    chosen: list[str] = []
    while passages and sum(len(text.split()) for text in chosen) < tokens:
        chosen.append(passages.pop())
    return " ".join(chosen)

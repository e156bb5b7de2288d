"""The record of a study: what each recipe made of one model, row by row, with how it got there."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mpcbench.errors import UserError
from mpcbench.paths import whole_file
from mpcbench.records.schema import Accuracy, Environment, Fidelity


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Training(_Part):
    """How one stage of one run went: held-out numbers are against the run's own teacher, before and after.

    ``layer_mse`` is None without polynomial layers, ``largest_gradient_norm`` is before clipping and None
    where no step was finite. ``adapter_bytes`` counts what training has to keep.
    """

    recipe: str
    recipe_sha256: str
    teacher: str
    base: str
    shared: bool
    start: str
    data: str
    steps: int
    seconds: float
    kl: tuple[float, float]
    layer_mse: tuple[float, float] | None
    largest_gradient_norm: float | None
    largest_gate: float | None
    warnings: int
    adapter_bytes: int


class Cell(_Part):
    """One model of the study. ``published`` is the accuracy that the study reports for Llama 2, if it does.

    ``arc`` and ``other`` are distances to the original: on evaluation questions, and on text of another
    kind than was trained on. ``key`` makes a cell that is computed again recognise itself.
    """

    key: str
    row: str
    title: str
    published: float | None
    seed: int
    layers: int
    degree: int | None
    accuracy: list[Accuracy]
    arc: Fidelity
    other: Fidelity
    training: Training | None


class Study(_Part):
    """All cells of a study of one model on one machine, in the order of the table."""

    schema_version: Literal[1] = 1
    created: str
    command: str
    model: str
    model_source: str
    model_sha256: str
    quick: bool
    cells: list[Cell]
    environment: Environment


def write_study(study: Study, path: Path) -> None:
    """Replace the file as a whole."""
    with whole_file(path) as part:
        part.write_text(study.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_study(path: Path) -> Study:
    """Raises UserError when the file is missing, damaged, or not a study."""
    try:
        return Study.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): run `mpcbench study` first.") from None
    except (ValidationError, UnicodeDecodeError):
        raise UserError(f"{path} is not the record of a study: remove it and run the study again.") from None

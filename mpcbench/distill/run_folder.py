"""The folder of a training run: whose it is, and where it stands.

run.json                what is trained, on what, by which recipe: a folder belongs to one run
log.jsonl               see mpcbench.distill.log
state.safetensors       the student and its optimiser at the last save, from which a killed run goes on
best.safetensors        the student at the best held-out KL of the stage
adapter-8.safetensors   the result of a stage
checkpoint/             the result of the last stage as a PolyLlama checkpoint
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from mpcbench.errors import UserError
from mpcbench.paths import whole_file

STATE, BEST = "state.safetensors", "best.safetensors"
Tensors = dict[str, torch.Tensor]


@dataclass
class State:
    """Where a run stands: ``step`` steps of ``stage`` are done. ``best``: lowest held-out KL of the stage.

    ``moments``: AdamW's running means by parameter and name; ``losses``: the watchdog's memory.
    """

    stage: int = 0
    step: int = 0
    best: float | None = None
    best_step: int = 0
    losses: list[float] = field(default_factory=list)
    total_steps: int = 0
    student: Tensors = field(default_factory=dict)
    moments: Tensors = field(default_factory=dict)

    @property
    def numbers(self) -> dict[str, Any]:
        names = ("stage", "step", "best", "best_step", "losses", "total_steps")
        return {name: getattr(self, name) for name in names}


class RunFolder:
    """Opens the folder for a run; UserError if it is another run's, or not a run's at all."""

    def __init__(self, path: Path, identity: dict[str, Any]):
        self.path = path
        self._claim(identity)

    def _claim(self, identity: dict[str, Any]) -> None:
        file = self.path / "run.json"
        if file.is_file():
            try:
                found = json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                raise UserError(f"{file} is damaged: remove {self.path} or name another folder.") from None
            for key, value in json.loads(json.dumps(identity)).items():
                if found.get(key) != value:
                    raise UserError(
                        f"{self.path} holds a run with another {key}: name another folder with --out, or go "
                        "on with what run.json there says."
                    )
            return
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise UserError(
                f"{self.path} is neither empty nor a training run: name another folder with --out."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as part:
            part.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    def adapter(self, count: int) -> Path:
        """The result of the stage with ``count`` polynomial layers."""
        return self.path / f"adapter-{count}.safetensors"

    def save(self, state: State) -> None:
        """Replace the saved state as a whole."""
        tensors = {f"student.{name}": value for name, value in state.student.items()}
        tensors |= {f"moments.{name}": value for name, value in state.moments.items()}
        with whole_file(self.path / STATE) as part:
            save_file(tensors, part, metadata={"state": json.dumps(state.numbers)})

    def load(self) -> State:
        """The saved state, or a fresh one; UserError if it is damaged."""
        file = self.path / STATE
        if not file.is_file():
            return State()
        try:
            with safe_open(file, framework="pt") as opened:
                numbers = json.loads(opened.metadata()["state"])
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return State(**numbers, student=_under("student.", tensors), moments=_under("moments.", tensors))
        except (SafetensorError, KeyError, ValueError, TypeError):
            raise UserError(f"{file} is damaged: remove it to train from the start.") from None

    def save_best(self, student: Tensors) -> None:
        with whole_file(self.path / BEST) as part:
            save_file(student, part)

    def load_best(self) -> Tensors:
        return load_file(self.path / BEST)


def _under(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

"""A study of made-up numbers, and logs of runs that never ran."""

from __future__ import annotations

import math
from typing import Any

from mpcbench.records.schema import Accuracy, Fidelity
from mpcbench.records.study import Cell, Study, Training
from tests.records.factory import make_record


def score(value: float) -> list[Accuracy]:
    return [
        Accuracy(task="arc_easy", source="a file", setting="plaintext", metric="acc", n=570, score=value,
                 stderr=0.021)
    ]  # fmt: skip


def distance(kl: float) -> Fidelity:
    return Fidelity(text="some text", tokens=6000, kl=kl, argmax_agreement=0.9)


def training(**changes: Any) -> Training:
    content = {
        "recipe": "naive", "recipe_sha256": "0" * 64, "teacher": "tiny", "base": "nf4", "shared": True,
        "start": "random", "data": "words", "steps": 30, "seconds": 60.0, "kl": (4.76, 0.26),
        "layer_mse": (11.25, 3.38), "largest_gradient_norm": 93.0, "largest_gate": 12.0, "warnings": 0,
        "adapter_bytes": 1000,
    }  # fmt: skip
    return Training(**(content | changes))


def cell(row: str, layers: int, accuracy: float, kl: float, seed: int = 0, **changes: Any) -> Cell:
    content = {
        "key": f"{row}{layers}{seed}", "row": row, "title": row.title(), "published": None, "seed": seed,
        "layers": layers, "degree": 2 if layers else None, "accuracy": score(accuracy), "arc": distance(kl),
        "other": distance(2 * kl), "training": training() if layers else None,
    }  # fmt: skip
    return Cell(**(content | changes))


def make_study(quick: bool = False) -> Study:
    """A baseline, one row of two seeds, and one row of two numbers of layers."""
    cells = [
        cell("original", 0, 0.52, 0.0, published=0.75),
        cell("naive", 8, 0.24, 9.0, seed=0, published=0.246),
        cell("naive", 8, 0.26, 11.0, seed=1, published=0.246),
        cell("mpcbench", 8, 0.525, 0.003),
        cell("mpcbench", 30, 0.51, 0.03),
    ]
    return Study(
        created="2026-01-01T00:00:00+00:00", command="mpcbench study", model="tiny", model_source="a test",
        model_sha256="0" * 64, quick=quick, cells=cells, environment=make_record(0).environment,
    )  # fmt: skip


def log_lines(stages: int = 2, steps: int = 10, grows: float = 0.9) -> list[dict[str, Any]]:
    """Lines as a run writes them; ``grows``: by how much each step multiplies the loss."""
    lines: list[dict[str, Any]] = []
    for stage in range(stages):
        for step in range(steps + 1):
            loss = 5.0 * grows**step
            if step:
                lines.append(
                    {"event": "step", "stage": stage, "step": step, "loss": loss, "kl": loss / 2,
                     "layer_mse": loss / 2, "grad_norm": None if step == 3 else math.sqrt(loss),
                     "seconds": 1.0, "largest_gate": {"3": 4.0 + step, "7": 2.0}}
                )  # fmt: skip
            if step % 5 == 0:
                lines.append(
                    {"event": "held_out", "stage": stage, "step": step, "kl": loss / 3, "layer_mse": loss}
                )
    return lines

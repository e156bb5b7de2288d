"""A tiny comparison: a three-layer Llama, twelve questions, random text; and a run that starts no parties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mpcbench.checkpoints import Checkpoint, load
from mpcbench.distill import Texts
from mpcbench.pipeline.compare import Comparison
from mpcbench.pipeline.measure import Settings
from mpcbench.secure.protocol import load_protocol
from tests.accuracy.questions import tiny_rows, write_rows
from tests.records.factory import make_record
from tests.tiny import tiny_folder, tiny_texts

PROMPT = "w5 w9 w33 w60 w3 w17 w17"
TOKENS = torch.tensor([[5, 9, 33, 60, 3, 17, 17]])


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """A tiny Llama; the cache is a folder of the test's own."""
    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path / "cache"))
    return load(str(tiny_folder(tmp_path / "tiny", layers=3)))


@pytest.fixture
def plan(original: Checkpoint, tmp_path: Path) -> Comparison:
    """Compare 0 and 2 polynomial layers, each run once."""
    settings = Settings("crypten", load_protocol("crypten"), PROMPT, TOKENS, "client", 1, 0, 1)
    return Comparison(
        original.name, [0, 2], 2, "least-sensitive", Texts(tiny_texts(), "random words", "0"), settings,
        write_rows(tmp_path / "tiny.jsonl", tiny_rows()), None, tmp_path / "results",
    )  # fmt: skip


class Runs:
    """Stands in for ``measure``: makes a record without any party, and remembers being asked."""

    def __init__(self) -> None:
        self.layers: list[list[int]] = []
        self.before: Callable[[int], None] = lambda count: None

    def __call__(self, shares, info, checkpoint, original, settings, evaluation, key, progress):
        assert (shares / "party0" / "graph.json").is_file() and (shares / "party1").is_dir()
        self.before(len(info.polynomial_layers))
        self.layers.append(info.polynomial_layers)
        made = make_record(0)
        return made.model_copy(update={"key": key, "model": info, "accuracy": evaluation.accuracy})


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Every comparison of the test runs with this instead of two parties."""
    stand_in = Runs()
    monkeypatch.setattr("mpcbench.pipeline.compare.measure", stand_in)
    return stand_in


def changed(plan: Comparison, **settings: object) -> Comparison:
    """The same plan with other settings."""
    return replace(plan, settings=replace(plan.settings, **settings))

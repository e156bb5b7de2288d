"""``mpcbench sweep`` as a user calls it: estimates first, refusals in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mpcbench.cli import main
from mpcbench.cli.sweep import progress


def _sweep(tmp_path: Path, text: str, *options: str) -> Result:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return CliRunner().invoke(main, ["sweep", str(file), "--results", str(tmp_path / "results"), *options])


GRID = "model: tinyllama-1.1b\nlayers: [0, 22]\nprotocol: [crypten, frontier]\ntokens: 8\nlink: [lan, wan]\n"


def test_estimates_of_every_cell_without_running_one(tmp_path: Path) -> None:
    result = _sweep(tmp_path, GRID, "--estimate", "--json")
    assert result.exit_code == 0, result.stderr
    records = json.loads(result.stdout)
    assert len(records) == 8
    assert {record["kind"] for record in records} == {"estimated"}
    assert {(r["link"]["profile"], r["workload"]["tokens"]) for r in records} == {("lan", 8), ("wan", 8)}
    assert not (tmp_path / "results").exists()


def test_the_table_of_estimates(tmp_path: Path) -> None:
    result = _sweep(tmp_path, GRID, "--estimate")
    assert "latency is the link's share alone" in result.stderr
    assert result.stderr.count("tinyllama-1.1b") == 8
    assert "accuracy" not in result.stderr
    assert "they are assumed to be the medians over SmolLM2-135M's layers" in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("modell: x", "'modell' is no axis: choose model, layers, protocol, tokens, link, seed, or options."),
        ("model: llama-2-7b\nlayers: 33", "--layers 33 is out of range: the model has 32 layers"),
        ("model: llama-2-13b", "llama-2-13b has 13,016 million parameters, which take 1,068.8 GB"),
    ],
)
def test_a_refusal_is_one_sentence_before_anything_runs(text: str, sentence: str, tmp_path: Path) -> None:
    result = _sweep(tmp_path, text)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("mpcbench: ")]
    assert sentence in line
    assert not (tmp_path / "results").exists()


def test_example_is_a_file_that_can_be_run(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["sweep", "--example"])
    assert shown.exit_code == 0
    result = _sweep(tmp_path, shown.stdout, "--estimate", "--json")
    assert result.exit_code == 0, result.stderr
    assert len(json.loads(result.stdout)) == 16


@pytest.mark.parametrize(
    ("there", "measured", "words"),
    [(3, 0, "3 of 12 cells are there"), (4, 1, "4 of 12 cells are there, about 80 s left"),
     (6, 3, "6 of 12 cells are there, about 20 s left"), (12, 9, "12 of 12 cells are there")],
)  # fmt: skip
def test_time_left_is_told_from_cells_that_took_time(there: int, measured: int, words: str) -> None:
    assert progress(there, measured, 12, 10.0) == words

"""``distill`` and ``study`` as a user calls them, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mpcbench.pipeline import study as study_module
from tests.accuracy.questions import tiny_rows, write_rows
from tests.cli.test_commands import mpcbench, refused
from tests.tiny import tiny_folder, tiny_texts

SMALL = ("optimiser.tokens=100", "student.lora_rank=2", "own_text.passages=0")
FAST = ("--steps", 2, *(word for change in SMALL for word in ("--set", change)))
TINY = ("distill", "--model", "tiny", "--data", "words.txt", *FAST)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distill")
    tiny_folder(folder / "tiny", layers=3)
    tiny_folder(folder / "other", layers=3, vocab=40)
    (folder / "words.txt").write_text("\n".join(tiny_texts(40)))
    write_rows(folder / "questions.jsonl", tiny_rows())
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPCBENCH_CACHE", str(place / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(place)


def distill(*arguments: object):
    return mpcbench(*TINY, *arguments)


def test_a_checkpoint_that_export_takes_comes_out(place: Path) -> None:
    done = distill("--layers", "1,all", "--out", "run")
    assert done.exit_code == 0, done.output
    names = {path.name for path in (place / "run").iterdir()}
    assert {
        "adapter-1.safetensors",
        "adapter-3.safetensors",
        "checkpoint",
        "log.jsonl",
        "training.pdf",
    } <= names
    shown = mpcbench("export", "run/checkpoint", "--out", "shares", "--calibration-data", "words.txt")
    assert shown.exit_code == 0, shown.output
    assert (place / "shares" / "party0" / "graph.json").is_file()


def test_own_text_that_does_not_fit_is_refused_before_anything_is_trained(place: Path) -> None:
    changes = ("--set", "own_text.passages=8", "--set", "own_text.examples=30")
    assert "set own_text.examples to fewer" in refused(*TINY, *changes, "--layers", "1", "--out", "long")
    assert not (place / "long").exists()


def test_json_holds_the_adapters_and_nothing_else() -> None:
    done = distill("--layers", "1", "--json")
    (row,) = json.loads(done.stdout)
    assert row["polynomial_layers"] and row["steps"] <= 2 and row["recipe"] == "mpcbench"


def test_options_change_the_recipe_of_the_run(place: Path) -> None:
    options = ("--layers", "2", "--degree", 3, "--no-clip", "--seed", 5, "--precision", "nf4",
               "--double-quantisation", "--out", "changed")  # fmt: skip
    assert distill(*options).exit_code == 0
    recipe = json.loads((place / "changed" / "run.json").read_text())["recipe"]
    assert recipe["polynomials"]["layers"] == [2] and recipe["polynomials"]["degree"] == 3
    assert recipe["optimiser"]["clip"] is None and recipe["optimiser"]["steps"] == 2
    assert recipe["student"]["precision"] == "nf4" and recipe["student"]["double_quantisation"]
    assert recipe["seed"] == 5 and recipe["optimiser"]["tokens"] == 100
    assert "holds a run with another recipe" in refused(
        "distill", "--model", "tiny", "--data", "words.txt", *FAST, "--layers", "2", "--out", "changed"
    )


def test_memory_is_told_without_training(place: Path) -> None:
    done = mpcbench("distill", "--model", "tiny", "--memory", "--json")
    needs = json.loads(done.stdout)
    assert {"the original, float32", "the teacher"} <= {need["what"] for need in needs}
    assert not (place / "memory").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--recipe", "nothing"), "There is no recipe nothing"),
        (("--set", "optimiser.rat=1"), "unknown key optimiser.rat"),
        (("--layers", "9"), "9 polynomial layers are out of range: the model has 3 layers"),
        (("--layers", "two"), "give numbers with commas"),
        (("--teacher", "other"), "different vocabularies"),
        (("--data", "missing.txt"), "missing.txt"),
        (("--set", "optimiser.tokens=1000000000000"), "GiB of memory"),
    ],
)
def test_bad_input_is_one_sentence(arguments: tuple[str, ...], words: str) -> None:
    common = ("--model", "tiny", "--data", "words.txt", *FAST, "--layers", "1")
    assert words in refused("distill", *common, *arguments)


def test_data_without_text_is_refused(place: Path) -> None:
    (place / "empty.txt").write_text("\n \n")
    assert "empty.txt" in refused("distill", "--model", "tiny", "--data", "empty.txt")


def test_a_study_prints_its_table_and_leaves_its_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = {
        "run": "mpcbench",
        "title": "ours",
        "recipe": "mpcbench",
        "changes": {"polynomials.layers": [1, 3]},
    }
    table = {"published_baseline": 0.75, "runs": [run], "quick_questions": 5,
             "quick": {"optimiser.steps": 2, "optimiser.tokens": 100, "own_text": {}}}  # fmt: skip
    monkeypatch.setattr(study_module, "_table", lambda: table)
    arguments = (
        "study",
        "--model",
        "tiny",
        "--data",
        "words.txt",
        "--task-data",
        "questions.jsonl",
        "--quick",
    )
    done = mpcbench(*arguments)
    assert done.exit_code == 0, done.output
    assert "ours" in done.stdout and "not a result" in done.stdout
    names = {path.name for path in (place / "results" / "study-quick").iterdir()}
    assert names == {"study.json", "study.md", "study.tex", "study.csv", "logs"}
    again = mpcbench(*arguments, "--json")
    assert [cell["layers"] for cell in json.loads(again.stdout)["cells"]] == [0, 0, 1, 3]
    assert "no run x" in refused(*arguments, "--run", "x")

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mpcbench.distill import Texts
from mpcbench.distill.recipe import load_recipe
from mpcbench.errors import UserError
from mpcbench.pipeline import study as module
from mpcbench.pipeline.study import StudyPlan, run_names, study
from mpcbench.records.study import read_study
from mpcbench.report.study import CLIPPING
from tests.accuracy.questions import tiny_rows, write_rows
from tests.tiny import tiny_texts

SMALL = {"student.lora_rank": 2, "optimiser.steps": 4, "optimiser.tokens": 100, "evaluate_every": 2,
         "own_text": {}}  # fmt: skip
TABLE = {
    "published_baseline": 0.75,
    "runs": [
        {"run": "deep-unclipped", "title": "one", "published": 0.281, "recipe": "deep-unclipped",
         "changes": SMALL | {"polynomials.layers": [2], "student.precision": "float32"}},
        {"run": "mpcbench", "title": "two", "recipe": "mpcbench",
         "changes": SMALL | {"polynomials.layers": [1, "all"]}},
    ],
    "quick": {"optimiser.steps": 1},
    "quick_questions": 5,
}  # fmt: skip


@pytest.fixture
def plan(original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudyPlan:
    """Two runs of a tiny Llama, one in two stages."""
    monkeypatch.setattr(module, "_table", lambda: TABLE)
    questions = write_rows(tmp_path / "tiny.jsonl", tiny_rows())
    return StudyPlan(
        original, Texts(tiny_texts(40), "random words", "0"), questions, None, tmp_path / "study"
    )


def test_a_cell_for_every_stage_of_every_run(plan):
    done = study(plan)
    rows = [(cell.row, cell.layers, cell.seed) for cell in done.cells]
    assert rows == [
        ("original", 0, 0), ("nf4", 0, 0), ("deep-unclipped", 2, 0), ("mpcbench", 1, 0), ("mpcbench", 3, 0)
    ]  # fmt: skip
    assert read_study(plan.results / "study.json").cells == done.cells
    assert all(cell.accuracy[0].n == 12 for cell in done.cells)
    assert done.cells[0].arc.kl == pytest.approx(0, abs=1e-6) and done.cells[1].arc.kl > 1e-4
    assert [cell.published for cell in done.cells] == [0.75, None, 0.281, None, None]


def test_training_is_told_with_its_pathologies(plan):
    cell = study(plan).cells[2]
    training = cell.training
    assert (training.recipe, training.steps, training.shared) == ("deep-unclipped", 4, True)
    assert training.largest_gradient_norm > 0 and training.largest_gate > 0
    assert len(training.kl) == len(training.layer_mse) == 2 and training.adapter_bytes > 1000
    assert (plan.results / "logs" / "deep-unclipped-seed0.jsonl").read_text().count('"step"') >= 4


def test_what_is_there_is_not_trained_again(plan, monkeypatch):
    first = study(replace(plan, only=("mpcbench",)))
    assert {cell.row for cell in first.cells} == {"original", "nf4", "mpcbench"}
    monkeypatch.setattr(module, "score", None)
    monkeypatch.setattr(module, "distill", None)
    assert study(replace(plan, only=("mpcbench",))).cells == first.cells


def test_an_interrupted_study_keeps_its_cells_and_goes_on(plan, monkeypatch):
    original = module.distill

    def stop(run, *arguments):
        if run.recipe_name == "mpcbench":
            raise KeyboardInterrupt
        return original(run, *arguments)

    monkeypatch.setattr(module, "distill", stop)
    with pytest.raises(KeyboardInterrupt):
        study(plan)
    kept = read_study(plan.results / "study.json").cells
    assert [cell.row for cell in kept] == ["original", "nf4", "deep-unclipped"]
    monkeypatch.setattr(module, "distill", original)
    assert study(plan).cells[:3] == kept


def test_two_seeds_are_two_cells(plan):
    done = study(replace(plan, seeds=2, only=("deep-unclipped",)))
    cells = [cell for cell in done.cells if cell.row == "deep-unclipped"]
    assert [cell.seed for cell in cells] == [0, 1]
    assert cells[0].arc.kl != cells[1].arc.kl


def test_a_changed_recipe_takes_the_place_of_the_one_before(plan, monkeypatch):
    first = study(replace(plan, only=("deep-unclipped",)))
    run = TABLE["runs"][0]
    changed = {**run, "changes": run["changes"] | {"optimiser.steps": 2}}
    monkeypatch.setattr(module, "_table", lambda: {**TABLE, "runs": [changed, TABLE["runs"][1]]})
    again = study(replace(plan, only=("deep-unclipped",)))
    assert [cell.row for cell in again.cells] == [cell.row for cell in first.cells]
    assert (first.cells[2].training.steps, again.cells[2].training.steps) == (4, 2)


def test_a_row_that_the_table_no_longer_has_stays_at_the_end(plan, monkeypatch):
    study(replace(plan, only=("deep-unclipped",)))
    monkeypatch.setattr(module, "_table", lambda: TABLE | {"runs": TABLE["runs"][1:]})
    rows = [cell.row for cell in study(plan).cells]
    assert rows == ["original", "nf4", "mpcbench", "mpcbench", "deep-unclipped"]


def test_a_quick_study_does_not_mix_with_a_full_one(plan):
    study(replace(plan, only=("deep-unclipped",)))
    with pytest.raises(UserError, match="is a full study: name another folder"):
        study(replace(plan, quick=True, only=("deep-unclipped",)))


def test_a_quick_study_takes_fewer_steps_and_questions(plan):
    done = study(replace(plan, quick=True, only=("deep-unclipped",)))
    assert done.quick and done.cells[-1].training.steps == 1 and done.cells[-1].accuracy[0].n == 5


def test_an_unknown_run_and_a_study_of_another_model_are_refused(plan, tmp_path):
    with pytest.raises(UserError, match="no run x: choose from deep-unclipped, mpcbench"):
        study(replace(plan, only=("x",)))
    done = study(replace(plan, only=("deep-unclipped",), quick=True))
    foreign = done.model_copy(update={"model_sha256": "1" * 64, "model": "another"})
    (plan.results / "study.json").write_text(foreign.model_dump_json())
    with pytest.raises(UserError, match="study of another: name another folder"):
        study(plan)


def test_training_on_the_questions_is_refused(plan):
    questions = [f"Question: {row['question']}\nAnswer: w3" for row in tiny_rows()]
    with pytest.raises(UserError, match="train on one split and score on another"):
        study(replace(plan, texts=Texts(questions, "the questions", "1")))
    monkey = Texts([*questions[:2], *plan.texts.texts], "a mixture", "2")
    kept = module.without_questions(monkey, module.load_questions(plan.task_data))
    assert kept.texts == plan.texts.texts and "without 2 questions" in kept.description


def test_the_packaged_table_names_recipes_that_exist(monkeypatch):
    monkeypatch.undo()
    assert run_names()[:6] == [
        "naive", "same-precision", "cross-precision", "deep-unclipped", "deep-clip-alone", "deep-clipped"
    ]  # fmt: skip
    assert {run["run"] for run in module._table()["runs"]} >= CLIPPING.keys()
    table = module._table()
    for run in table["runs"]:
        changes = run.get("changes", {})
        assert load_recipe(run["recipe"], changes).stages >= 1
        quick = load_recipe(run["recipe"], changes | table["quick"])
        assert (quick.polynomials.fit_tokens, quick.optimiser.steps) == (2000, 4)


def test_published_results_are_those_of_the_recipes_as_they_are():
    published = {}
    for cell in read_study(Path(__file__).parents[2] / "results" / "study" / "study.json").cells:
        if cell.training:
            published.setdefault(cell.row, {})[cell.seed] = cell.training.recipe_sha256
    assert list(published) == run_names()
    for entry in module._table()["runs"]:
        for seed, sha256 in published[entry["run"]].items():
            recipe = load_recipe(entry["recipe"], entry.get("changes", {}) | {"seed": seed})
            assert recipe.sha256 == sha256, f"{entry['run']} was published before its recipe changed"

"""The study's table: every recipe trained on one model, scored, and written down cell by cell.

A cell that is in ``study.json`` is not computed again, and a run that was cut off goes on where it
stopped: the same command resumes the study.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml

from mpcbench.accuracy.distance import question_texts
from mpcbench.accuracy.harness import score
from mpcbench.accuracy.questions import QuestionSet, load_questions
from mpcbench.checkpoints import Checkpoint, PolyLlamaForCausalLM
from mpcbench.distill import Texts, calibration_texts
from mpcbench.distill.adapter import Adapter, AdapterInfo, load_adapter, merged
from mpcbench.distill.data import without_questions
from mpcbench.distill.distill import Plan, distill, with_folder
from mpcbench.distill.judge import Judge
from mpcbench.distill.log import read_log
from mpcbench.distill.memory import config_alone, memory_plan, refuse_too_little
from mpcbench.distill.recipe import Recipe, load_recipe
from mpcbench.errors import UserError
from mpcbench.progress import Progress, silent
from mpcbench.records.environment import environment
from mpcbench.records.schema import Accuracy, Fidelity
from mpcbench.records.study import Cell, Study, Training, read_study, write_study

COMPARED_QUESTIONS = 100
COMPARED_TOKENS = 3_000
"""How much text of each kind the models' distributions are compared on."""
QUESTIONS = 600
"""So many evaluation questions at most, unless told otherwise: more than ARC-Easy's validation split has."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class StudyPlan:
    """What to study and where to write. ``only``: names of runs, all if empty; ``seeds``: first few seeds."""

    original: Checkpoint
    texts: Texts
    task_data: Path | None
    limit: int | None
    results: Path
    seeds: int = 1
    only: tuple[str, ...] = ()
    quick: bool = False


@dataclass(frozen=True)
class _Run:
    """One run of the table at one seed."""

    name: str
    title: str
    published: float | None
    recipe_name: str
    recipe: Recipe


def study(plan: StudyPlan, progress: Progress = silent, say: Say = lambda text: None) -> Study:
    """Compute the cells that are missing; returns all of them, those of earlier calls included.

    Evaluation questions are left out of the training text. Raises UserError before anything long for a run
    that does not exist, for training text that is mostly such questions, and for a study.json of another
    model or, with ``quick``, of a study that is not.
    """
    asked = load_questions(plan.task_data)
    plan = replace(plan, texts=without_questions(plan.texts, asked))
    return _Study(plan, asked, progress, say).run()


def run_names() -> list[str]:
    """Names of the study's runs, in order."""
    return [run["run"] for run in _table()["runs"]]


def check_memory(model: str, only: Sequence[str] = (), quick: bool = False) -> None:
    """UserError when a run of the study would not fit into this machine's memory, or does not exist.

    To be called before the model is loaded; one whose configuration is not at hand without it is not checked.
    """
    config = config_alone(model)
    for run in _runs(only, 1, quick):
        if config is not None:
            refuse_too_little(memory_plan(config, run.recipe))


def _runs(only: Sequence[str], seeds: int, quick: bool) -> Iterator[_Run]:
    """The runs of these names, or all, at the first seed, then at the second."""
    table = _table()
    unknown = [name for name in only if name not in run_names()]
    if unknown:
        raise UserError(f"The study has no run {unknown[0]}: choose from {', '.join(run_names())}.")
    for seed in range(seeds):
        for entry in table["runs"]:
            if only and entry["run"] not in only:
                continue
            changes = entry.get("changes", {}) | (table["quick"] if quick else {})
            recipe = load_recipe(entry["recipe"], changes | {"seed": seed})
            yield _Run(entry["run"], entry["title"], entry.get("published"), entry["recipe"], recipe)


class _Study:
    def __init__(self, plan: StudyPlan, asked: QuestionSet, progress: Progress, say: Say):
        self.plan, self.asked, self.progress, self.say = plan, asked, progress, say
        self.file = plan.results / "study.json"
        self.table = _table()
        self.runs = list(_runs(plan.only, plan.seeds, plan.quick))
        self.limit = plan.limit or (self.table["quick_questions"] if plan.quick else QUESTIONS)
        self.questions = asked.head(self.limit)
        self.others = calibration_texts()
        self.cells = self._earlier()

    def run(self) -> Study:
        self._untrained("original", "original in full precision", self.table["published_baseline"], "float32")
        self._untrained("nf4", "NF4, no polynomials, untrained", None, "nf4")
        for place, run in enumerate(self.runs, 1):
            self.say(f"run {place} of {len(self.runs)}: {run.name}, seed {run.recipe.seed}")
            self._trained(run)
        done = self._record()  # written as well where nothing was left to do: tables name its command
        write_study(done, self.file)
        return done

    def _untrained(self, row: str, title: str, published: float | None, precision: str) -> None:
        key = self._key("untrained", precision, 0)
        if key in self.cells:
            return
        self.say(title)
        info = AdapterInfo.untrained(self.plan.original.name, precision)
        accuracy, arc, other = self._score(Adapter({}, {}, {}), info)
        self._keep(
            Cell(key=key, row=row, title=title, published=published, seed=0, layers=0, degree=None,
                 accuracy=accuracy, arc=arc, other=other, training=None)
        )  # fmt: skip

    def _trained(self, run: _Run) -> None:
        original, texts = self.plan.original, self.plan.texts
        plan = with_folder(
            Plan(original, run.recipe, run.name, texts, Path(), checkpoint=False, questions=self.asked)
        )
        keys = [self._key(run.recipe.sha256, texts.sha256, stage) for stage in range(run.recipe.stages)]
        if all(key in self.cells for key in keys):
            return
        adapters = distill(plan, self.progress, self.say)
        log = self.plan.results / "logs" / f"{run.name}-seed{run.recipe.seed}.jsonl"
        log.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(plan.folder / "log.jsonl", log)
        for stage, (key, path) in enumerate(zip(keys, adapters, strict=True)):
            if key in self.cells:
                continue
            adapter, info = load_adapter(path)
            count = len(info.polynomial_layers)
            self.say(f"scoring {run.name} with {count} polynomial layers")
            accuracy, arc, other = self._score(adapter, info)
            training = training_of(read_log(log), stage, info, path.stat().st_size)
            self._keep(
                Cell(key=key, row=run.name, title=run.title, published=run.published, seed=run.recipe.seed,
                     layers=count, degree=info.degree if count else None, accuracy=accuracy, arc=arc,
                     other=other, training=training)
            )  # fmt: skip

    def _score(self, adapter: Adapter, info: AdapterInfo) -> tuple[list[Accuracy], Fidelity, Fidelity]:
        """Accuracy, distance on the questions, distance on other text; all to the original in float32."""
        original = self.plan.original
        model = merged(original.model, adapter, info)
        # As lm-eval runs most models; on a CPU float32 takes three times as long. Distances stay float32.
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            accuracy = score(model, original.tokenizer, self.questions, self.progress)
        accuracy = [item.model_copy(update={"source": f"{item.source}, bfloat16"}) for item in accuracy]
        arc, other = (self._distance(text, model) for text in self._comparisons)
        return accuracy, arc, other

    @cached_property
    def _comparisons(self) -> list[tuple[str, Judge]]:
        """Two texts in words, and judges that remember what the original says to them."""
        passages, words = question_texts(self.questions.head(COMPARED_QUESTIONS))
        others = self.others.texts, f"{self.others.description}, from its start"
        return [self._comparison(passages, words), self._comparison(*others)]

    def _comparison(self, passages: Sequence[str], words: str) -> tuple[str, Judge]:
        original, rows, room = self.plan.original, [], COMPARED_TOKENS
        limit = original.model.config.max_position_embeddings
        for tokens in original.tokenizer(list(passages)).input_ids:
            tokens = tokens[: min(limit, room)]
            if len(tokens) > 1:
                rows.append(tokens)
                room -= len(tokens)
        return words, Judge(original.model, rows)

    def _distance(self, comparison: tuple[str, Judge], model: PolyLlamaForCausalLM) -> Fidelity:
        words, judge = comparison
        verdict = judge.judge(model, [])
        return Fidelity(
            text=words, tokens=verdict.tokens, kl=max(verdict.kl, 0.0),
            argmax_agreement=verdict.argmax_agreement,
        )  # fmt: skip

    def _key(self, *parts: Any) -> str:
        content = [*parts, self.plan.original.sha256, self.questions.sha256, self.limit]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def _earlier(self) -> dict[str, Cell]:
        if not self.file.is_file():
            return {}
        found = read_study(self.file)
        if found.model_sha256 != self.plan.original.sha256:
            raise UserError(f"{self.file} is a study of {found.model}: name another folder with --results.")
        if found.quick != self.plan.quick:
            kind = "quick" if found.quick else "full"
            raise UserError(f"{self.file} is a {kind} study: name another folder with --results.")
        return {cell.key: cell for cell in found.cells}

    def _keep(self, cell: Cell) -> None:
        """Keep a cell; one of the same run with another recipe, text or questions gives it its place."""
        place = (cell.row, cell.seed, cell.layers)
        old = [key for key, own in self.cells.items() if (own.row, own.seed, own.layers) == place]
        for key in old:
            del self.cells[key]
        self.cells[cell.key] = cell
        write_study(self._record(), self.file)

    def _record(self) -> Study:
        order = {row: place for place, row in enumerate(["original", "nf4", *run_names()])}
        cells = sorted(  # a row of another version's study stays, at the end
            self.cells.values(), key=lambda cell: (order.get(cell.row, len(order)), cell.seed, cell.layers)
        )
        original = self.plan.original
        return Study(
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            command="mpcbench " + shlex.join(sys.argv[1:]), model=original.name,
            model_source=original.source, model_sha256=original.sha256, quick=self.plan.quick, cells=cells,
            environment=environment(),
        )  # fmt: skip


def training_of(lines: list[dict[str, Any]], stage: int, info: AdapterInfo, size: int) -> Training:
    """What a run's log says of one stage; size: of the adapter file, in bytes."""
    own = [line for line in lines if line["stage"] == stage]
    steps = [line for line in own if line["event"] == "step"]
    checks = [line for line in own if line["event"] == "held_out" and line["kl"] is not None]
    best = min(checks, key=lambda line: line["kl"]) if info.keep == "best" else checks[-1]
    norms = [line["grad_norm"] for line in steps if line["grad_norm"] is not None]
    gates = [max(line["largest_gate"].values()) for line in steps if line["largest_gate"]]
    measured = checks[0]["layer_mse"] is not None
    return Training(
        recipe=info.recipe, recipe_sha256=info.recipe_sha256, teacher=info.teacher, base=info.base,
        shared=info.shared, start=info.start, data=info.data, steps=info.steps,
        seconds=round(sum(line["seconds"] for line in steps), 1), kl=(checks[0]["kl"], best["kl"]),
        layer_mse=(checks[0]["layer_mse"], best["layer_mse"]) if measured else None,
        largest_gradient_norm=max(norms, default=None), largest_gate=max(gates, default=None),
        warnings=sum(line["event"] == "warning" for line in own), adapter_bytes=size,
    )  # fmt: skip


def _table() -> dict[str, Any]:
    text = resources.files("mpcbench.pipeline").joinpath("study.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)

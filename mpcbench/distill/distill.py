"""Distillation: from a Llama to a trained PolyLlama, stage by stage; every step of the way can be resumed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from mpcbench import __version__
from mpcbench.accuracy.questions import QuestionSet
from mpcbench.checkpoints import Checkpoint, PolyLlamaForCausalLM
from mpcbench.checkpoints.provenance import HeldOut
from mpcbench.distill.adapter import AdapterInfo, merged, save_adapter
from mpcbench.distill.calibrate import METHODS, cached_ranking
from mpcbench.distill.compensation import compensate
from mpcbench.distill.data import Batches, beginning, for_calibration, training_split, without_questions
from mpcbench.distill.judge import Judge
from mpcbench.distill.objective import Distillation, Teacher
from mpcbench.distill.own_text import Alike, check_room, self_texts
from mpcbench.distill.placement import place
from mpcbench.distill.precision import with_precision
from mpcbench.distill.recipe import Recipe
from mpcbench.distill.result import write_checkpoint
from mpcbench.distill.run_folder import RunFolder, State
from mpcbench.distill.sharding import accelerator
from mpcbench.distill.start import add_polynomials
from mpcbench.distill.student import Student
from mpcbench.distill.texts import Texts
from mpcbench.distill.train import Say, Trainer
from mpcbench.errors import UserError
from mpcbench.paths import cache_dir
from mpcbench.progress import Progress, silent


@dataclass(frozen=True)
class Plan:
    """What to train: ``teacher`` is None where the original itself teaches.

    ``checkpoint``: whether the last stage is also written as a checkpoint. ``questions``: those that the
    model is to be scored on, which what it writes itself must not hold either.
    """

    original: Checkpoint
    recipe: Recipe
    recipe_name: str
    texts: Texts
    folder: Path
    teacher: Checkpoint | None = None
    checkpoint: bool = True
    questions: QuestionSet | None = None


def distill(plan: Plan, progress: Progress = silent, say: Say = lambda text: None) -> list[Path]:
    """Train all stages that are not done yet; returns the adapter of every stage.

    The last stage is also written as a checkpoint that export takes. Raises UserError for a plan that is
    impossible, before anything long starts.
    """
    return _Run(plan, progress, say).run()


def with_folder(plan: Plan) -> Plan:
    """The plan with a folder of its own in the cache, the same one whenever the same thing is trained."""
    digest = hashlib.sha256(json.dumps(_identity(plan), sort_keys=True).encode()).hexdigest()[:12]
    name = f"{Path(plan.recipe_name).stem}-{Path(plan.original.name).name}-{digest}"
    return replace(plan, folder=cache_dir() / "runs" / name)


def stage_counts(recipe: Recipe, total: int) -> list[int]:
    """Numbers of polynomial layers of the stages; UserError unless they grow and fit the model."""
    counts = [total if count == "all" else count for count in recipe.polynomials.layers]
    for count in counts:
        if not 0 <= count <= total:
            raise UserError(f"{count} polynomial layers are out of range: the model has {total} layers.")
    if any(later <= earlier for earlier, later in pairwise(counts)):
        raise UserError(f"The stages {counts} do not grow: give numbers of layers in rising order.")
    return counts


class _Run:
    def __init__(self, plan: Plan, progress: Progress, say: Say):
        self.plan, self.progress, self.say = plan, progress, say
        self.recipe, original = plan.recipe, plan.original
        _check_models(plan)
        self.counts = stage_counts(self.recipe, original.model.config.num_hidden_layers)
        self.parts = training_split(plan.texts, original.tokenizer, self.recipe.wrong_answers)
        self.own: list[list[int]] = []
        if self._alike is not None:
            check_room(self._alike, original)
        self.accelerator = accelerator(self.recipe)
        with self.accelerator.main_process_first():  # it makes the folder, the others find theirs there
            self.folder = RunFolder(plan.folder, _identity(plan))
        if not self.accelerator.is_main_process:
            self.progress, self.say = silent, lambda text: None

    def run(self) -> list[Path]:
        adapters = [self.folder.adapter(count) for count in self.counts]
        written = self.folder.checkpoint.is_dir() or not self.plan.checkpoint
        if written and all(path.is_file() for path in adapters):
            self.say(f"{self.folder.path} is complete: nothing is left to train.")
            return adapters
        placed = self._placements()
        state = self.folder.load()
        if state.student:
            self.say(f"going on at step {state.step} of stage {state.stage + 1} of {len(self.counts)}")
        teacher = self._teacher()
        judge = Judge(teacher.model, self.parts.held_out)
        for stage in range(state.stage, len(self.counts)):
            student = self._student(placed[-1], state)
            self._stage(student, teacher, judge, placed[stage], state)
            self._write(student, judge, placed[stage], self.counts[stage], state)
            state = State(stage + 1, total_steps=self._kept(state), student=student.trained_state())
        return adapters

    def _stage(self, student: Student, teacher: Teacher, judge: Judge, layers: list[int], state: State):
        recipe, accelerator = self.recipe, self.accelerator
        again = recipe.polynomials.refit and state.step == 0
        new = [layer for layer in layers if again or layer not in student.polynomials]
        own = self._own_text(state.stage)
        fitted, weights = self._fitted(own)
        add_polynomials(student, new, recipe.polynomials, fitted, recipe.seed, self.progress, weights)
        for texts in (self.parts.fit, own, self.parts.wrong):
            teacher.keep(texts)
        head = None if self.plan.teacher is None else teacher.model.lm_head
        module = Distillation(student, recipe.objective, head, recipe.compute == "bfloat16")
        share = max(1, recipe.optimiser.tokens // accelerator.num_processes)
        sequences = self.parts.fit + own * recipe.own_text.times + self.parts.wrong
        batches = Batches(sequences, share, recipe.seed)
        trainer = Trainer(
            accelerator, recipe, module, teacher, judge, batches, self.folder, state, self.progress, self.say
        )
        trainer.run()
        accelerator.free_memory()

    def _fitted(self, own: list[list[int]]) -> tuple[list[list[int]], list[float]]:
        """What polynomials are fitted on, and what the tokens of each passage count."""
        tokens, weight = self.recipe.polynomials.fit_tokens, self.recipe.own_text.fit_weight
        given = beginning(self.parts.fit, tokens)
        beside = beginning(own, tokens) if weight else []
        return given + beside, [1.0] * len(given) + [weight] * len(beside)

    @property
    def _alike(self) -> Alike | None:
        """What the original's own text is to be like, if there is any and it is to be like something."""
        wanted = self.recipe.own_text
        return Alike(self.parts.fit, wanted.examples) if wanted.passages and wanted.examples else None

    def _own_text(self, stage: int) -> list[list[int]]:
        """What the original writes itself, where the recipe asks for it; the same for all processes."""
        wanted, original = self.recipe.own_text, self.plan.original
        if wanted.last_stage and stage < len(self.counts) - 1:
            return []
        if wanted.passages and not self.own:
            with self.accelerator.main_process_first():  # it samples, the others find the text in the cache
                device = self.accelerator.device
                texts = self_texts(original, self.progress, wanted.passages, self._alike, device)
            if self.plan.questions:
                texts = without_questions(texts, self.plan.questions)
            self.own = [original.tokenizer(text)["input_ids"] for text in texts.texts]
        return self.own

    def _placements(self) -> list[list[int]]:
        """Layers of every stage; a later stage holds those of the earlier ones.

        The ranking is that of quadratics, one a channel, whatever the recipe trains: recipes that replace
        as many layers replace the same ones, and can be compared.
        """
        original, placement = self.plan.original, self.recipe.polynomials.placement
        self.ranking: list[int] | None = None

        def ranking() -> list[int]:
            if self.ranking is None:
                basis = [METHODS[2], original.sha256, self.plan.texts.sha256, 2, True, "training split"]
                parts = for_calibration(self.parts)
                self.ranking = cached_ranking(original, parts, 2, True, self.progress, basis)
            return self.ranking

        total = original.model.config.num_hidden_layers
        return [place(placement, count, total, ranking) if count else [] for count in self.counts]

    def _student(self, layers: list[int], state: State) -> Student:
        settings, original = self.recipe.student, self.plan.original.model
        where = list(range(original.config.num_hidden_layers)) if settings.lora_layers == "all" else layers
        student = Student(original, settings, where, self.recipe.seed, self.accelerator.device)
        if settings.lora_start == "error" and not state.student:
            compensate(student.model, original, for_calibration(self.parts).fit, self.progress)
        student.load_trained_state(state.student, self.recipe.polynomials.shared)
        return student.eval()  # nothing here behaves otherwise in training, and dropout is none

    def _teacher(self) -> Teacher:
        precision = self.recipe.teacher.precision
        model = (self.plan.teacher or self.plan.original).model
        double = self.recipe.student.double_quantisation  # a four-bit teacher's are the student's four bits
        model = with_precision(model, precision, self.accelerator.device, double)
        return Teacher(model.requires_grad_(False).eval(), autocast=precision != "float32")

    def _original_judge(self, judge: Judge) -> Judge:
        """One that holds against the original: the run's own where that is its teacher."""
        if self.plan.teacher is None and self.recipe.teacher.precision == "float32":
            return judge
        return Judge(self.plan.original.model, self.parts.held_out)

    def _write(self, student: Student, judge: Judge, layers: list[int], count: int, state: State) -> None:
        """The stage's adapter, and after the last stage the checkpoint; judged against the original."""
        adapter = student.adapter()  # by all processes: FSDP gathers it
        if self.recipe.eight_bits:
            adapter = adapter.rounded()
        if self.accelerator.is_main_process:
            original = self.plan.original
            final = count == self.counts[-1]
            info = self._info(layers, self._kept(state))
            model = merged(original.model, adapter, info)
            verdict = self._original_judge(judge).judge(model, [])
            info.held_out = HeldOut(
                tokens=verdict.tokens, kl=verdict.kl, argmax_agreement=verdict.argmax_agreement
            )
            save_adapter(adapter, info, self.folder.adapter(count))
            if final and self.plan.checkpoint:
                write_checkpoint(model, original, info, self.folder.checkpoint)
        self.accelerator.wait_for_everyone()

    def _kept(self, state: State) -> int:
        """How many steps, over all stages, led to what the stage ends with."""
        best = self.recipe.keep == "best"
        return state.total_steps - state.step + (state.best_step if best else state.step)

    def _info(self, layers: list[int], steps: int) -> AdapterInfo:
        plan, recipe, original = self.plan, self.recipe, self.plan.original
        teacher = (plan.teacher or original).name
        own = f" and {len(self.own)} passages that {original.name} wrote" if self.own else ""
        return AdapterInfo(
            original=original.name, original_source=original.source, original_sha256=original.sha256,
            degree=recipe.polynomials.degree, polynomial_layers=layers,
            placement=recipe.polynomials.placement, shared=recipe.polynomials.shared, ranking=self.ranking,
            base=recipe.student.precision, double_quantisation=recipe.student.double_quantisation,
            recipe=plan.recipe_name, recipe_sha256=recipe.sha256, keep=recipe.keep,
            start=recipe.polynomials.start,
            teacher=f"{teacher}, {recipe.teacher.precision}", steps=steps, seed=recipe.seed,
            data=plan.texts.description + own, data_sha256=plan.texts.sha256,
            data_tokens=sum(map(len, self.parts.fit + self.own + self.parts.wrong)),
            held_out=HeldOut(tokens=0, kl=0.0, argmax_agreement=0.0), mpcbench_version=__version__,
        )  # fmt: skip


def _identity(plan: Plan) -> dict[str, Any]:
    """What makes a run this run and no other."""
    further = {}
    if plan.questions and plan.recipe.own_text.passages:
        further["questions"] = plan.questions.sha256
    if plan.recipe.wrong_answers:
        further["wrong"] = hashlib.sha256(json.dumps(plan.texts.wrong).encode()).hexdigest()
    return {
        "model": {"name": plan.original.name, "sha256": plan.original.sha256},
        "teacher": plan.teacher.sha256 if plan.teacher else "the model itself",
        "data": {"description": plan.texts.description, "sha256": plan.texts.sha256, **further},
        "recipe": plan.recipe.model_dump(mode="json", exclude={"description": True, **plan.recipe.newer}),
    }


def _check_models(plan: Plan) -> None:
    original, teacher = plan.original.model, (plan.teacher or plan.original).model
    if isinstance(original, PolyLlamaForCausalLM) and original.config.polynomial_layers:
        raise UserError(f"{plan.original.name} has polynomial layers already: distill its original.")
    if teacher.config.vocab_size != original.config.vocab_size or (
        plan.teacher is not None and plan.teacher.tokenizer.get_vocab() != plan.original.tokenizer.get_vocab()
    ):
        raise UserError(
            f"{plan.teacher.name} and {plan.original.name} have different vocabularies, so that one cannot "
            "teach the other: choose a teacher with the same tokenizer."
        )
    shapes = [(model.config.hidden_size, model.config.num_hidden_layers) for model in (original, teacher)]
    if plan.recipe.objective.layer_mse and shapes[0] != shapes[1]:
        raise UserError(
            "layer_mse compares layers of one shape, which this teacher does not have: set it to 0."
        )

"""The training loop of one stage: steps, held-out checks, saves, and the watch over both."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from mpcbench.distill.data import Batches
from mpcbench.distill.judge import Judge, Verdict
from mpcbench.distill.log import Log, Watchdog
from mpcbench.distill.objective import Distillation, Teacher
from mpcbench.distill.recipe import Optimiser, Recipe
from mpcbench.distill.run_folder import RunFolder, State, Tensors
from mpcbench.distill.sharding import spread, whole
from mpcbench.errors import UserError
from mpcbench.progress import Progress

Say = Callable[[str], None]

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def rate_factor(settings: Optimiser, step: int, steps: int) -> float:
    """What a rate is multiplied by at a step, 0-based: linear warm-up, and a cosine to ``final_rate``."""
    warm = min(1.0, (step + 1) / settings.warm_up) if settings.warm_up else 1.0
    through = min(1.0, step / steps)
    cosine = 0.5 * (1 + math.cos(math.pi * through))
    return warm * (settings.final_rate + (1 - settings.final_rate) * cosine)


class Trainer:
    """Trains one stage of a student, from ``state`` on.

    accelerator: Accelerate's view of the processes; every process calls :meth:`run`, the main one writes.
    """

    def __init__(
        self, accelerator: Any, recipe: Recipe, module: Distillation, teacher: Teacher, judge: Judge,
        batches: Batches, folder: RunFolder, state: State, progress: Progress, say: Say,
    ):  # fmt: skip
        self.accelerator, self.recipe, self.teacher, self.judge = accelerator, recipe, teacher, judge
        self.batches, self.folder, self.state, self.say = batches, folder, state, say
        self.student = module.student
        self.progress = progress
        settings = recipe.optimiser
        self.steps = settings.steps_of(state.stage)
        self.objective = module
        optimiser = torch.optim.AdamW(
            self.student.groups(settings), betas=settings.betas, weight_decay=settings.weight_decay
        )
        self.rates = [group["lr"] * settings.rates_of(state.stage) for group in optimiser.param_groups]
        self.module, self.optimiser = accelerator.prepare(module, optimiser)
        self.names = {p: name for name, p in self.student.named_parameters() if p.requires_grad}
        if state.moments:
            _load_moments(self.optimiser, self.names, state.moments)
        self.watchdog = Watchdog(settings.clip is not None, state.losses, recipe.objective.layer_mse > 0)
        done = -1 if self._starts else state.step  # a start that is judged again is logged again
        self.log = Log(folder.log, state.stage, done) if accelerator.is_main_process else None

    @property
    def _starts(self) -> bool:
        """Whether the student as it starts is still to be judged."""
        return self.state.step == 0 and self.state.best is None

    def run(self) -> None:
        """All steps that are left; then the student is the stage's result by ``recipe.keep``."""
        steps, state = self.steps, self.state
        label = f"training {len(self.student.polynomial_layers)} polynomial layers"
        if self._starts:
            self._save()  # before the best: from here on a resumed run is in this stage, not the last one
            self._check()
            self._save()
        for step in range(state.step, steps):
            self.progress(label, step, steps)
            self._step(step)
            if self.watchdog.hopeless:
                self.say("The stage ends here: step after step is not finite. Its last good state is kept.")
                break
            last = step + 1 == steps
            if (step + 1) % self.recipe.evaluate_every == 0 or last:
                self._check()
            if (step + 1) % self.recipe.save_every == 0 or last:
                self._save()
        self.progress(label, steps, steps)
        self._settle()

    def _step(self, step: int) -> None:
        accelerator, started = self.accelerator, time.monotonic()
        factor = rate_factor(self.recipe.optimiser, step, self.steps)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        batch = self.batches[step * accelerator.num_processes + accelerator.process_index]
        batch = batch.to(accelerator.device)
        goal = self.recipe.objective
        needed = goal.kl or goal.likelihood or goal.layer_mse
        targets = self.teacher.answer(batch, self.objective.compared_layers) if needed else None
        parts = self.module(batch, targets)
        accelerator.backward(parts["loss"])
        clip = self.recipe.optimiser.clip
        norm = accelerator.clip_grad_norm_(list(self.names), clip if clip is not None else math.inf)
        norm = float(whole(norm))
        values = self._mean(parts)
        complaint = self.watchdog.look(values["loss"], norm)
        if math.isfinite(norm):
            self.optimiser.step()
        self.optimiser.zero_grad()
        self.state.step = step + 1
        self.state.total_steps += 1
        self.state.losses = list(self.watchdog.losses)
        self._record(values, norm, factor, int(batch.real.sum()), time.monotonic() - started, complaint)

    def _mean(self, parts: dict[str, torch.Tensor]) -> dict[str, float]:
        """Over all processes, so that each of them comes to the same decisions."""
        stacked = torch.stack([value.detach().float() for value in parts.values()])
        means = self.accelerator.reduce(stacked, reduction="mean")
        return dict(zip(parts, means.tolist(), strict=True))

    def _record(
        self, values: dict[str, float], norm: float, factor: float, tokens: int, seconds: float,
        complaint: str | None,
    ) -> None:  # fmt: skip
        if self.log is None:
            return
        stage, step, watch = self.state.stage, self.state.step, self.student.watch
        self.log.write(
            "step", stage, step, **values, grad_norm=norm, rate_factor=factor, tokens=tokens,
            seconds=round(seconds, 3),
            largest_gate={layer: round(float(size), 4) for layer, size in watch.largest.items()},
            largest_gate_first={layer: round(float(size), 4) for layer, size in watch.largest_first.items()},
        )  # fmt: skip
        if complaint:
            self.log.write("warning", stage, step, text=complaint)
            self.say(f"step {step}: {complaint}")

    def _check(self) -> None:
        """Held-out distance to the teacher; keeps the student if it is the best so far."""
        verdict = self.verdict()
        state = self.state
        if state.best is None and not math.isfinite(verdict.kl):
            raise UserError(
                "The student's answers are not finite before its first step: start the polynomials "
                "calibrated, or replace fewer layers a stage."
            )
        better = state.best is None or verdict.kl < state.best
        if better:
            state.best, state.best_step = verdict.kl, state.step
            self._on_main(self.folder.save_best)
        if self.log is not None:
            self.log.write(
                "held_out", state.stage, state.step, kl=verdict.kl, best=better, layer_mse=verdict.layer_mse,
                argmax_agreement=verdict.argmax_agreement, tokens=verdict.tokens,
            )  # fmt: skip
        self.say(
            f"step {state.step} of {self.steps}: held-out KL {verdict.kl:.4f} nats a token, "
            f"{verdict.argmax_agreement:.1%} same next token{', best so far' if better else ''}"
        )

    def verdict(self) -> Verdict:
        """Of the student as it is, against the run's own teacher."""
        return self.judge.verdict(
            lambda batch, layers: self.module(batch, answer=layers), self.student.polynomial_layers
        )

    def _save(self) -> None:
        moments = _moments(self.optimiser, self.names)

        def write(student: Tensors) -> None:
            self.state.student, self.state.moments = student, moments
            self.folder.save(self.state)

        self._on_main(write)

    def _on_main(self, write: Callable[[Tensors], None]) -> None:
        student = self.student.trained_state()
        if self.accelerator.is_main_process:
            write(student)
        self.accelerator.wait_for_everyone()

    def _settle(self) -> None:
        """Give the student the weights that the stage is to end with."""
        finite = all(bool(torch.isfinite(value).all()) for value in self.student.trained_state().values())
        if self.recipe.keep == "best" or not finite or self.watchdog.hopeless:
            self.student.load_trained_state(self.folder.load_best(), self.recipe.polynomials.shared)


def _moments(optimiser: Any, names: dict[nn.Parameter, str]) -> Tensors:
    """AdamW's running means and step counts (steps left out do not count) as plain tensors by parameter."""
    moments = {}
    for parameter, name in names.items():
        held = optimiser.state.get(parameter, {})
        for key in MOMENTS:
            if key in held:
                moments[f"{key}.{name}"] = whole(held[key].detach()).cpu().clone()
    return moments


def _load_moments(optimiser: Any, names: dict[nn.Parameter, str], moments: Tensors) -> None:
    for parameter, name in names.items():
        if f"exp_avg.{name}" in moments:
            optimiser.state[parameter] = {
                "step": moments[f"step.{name}"],
                "exp_avg": spread(moments[f"exp_avg.{name}"], parameter),
                "exp_avg_sq": spread(moments[f"exp_avg_sq.{name}"], parameter),
            }

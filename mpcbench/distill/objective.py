"""The loss, part by part, and what the teacher has to say for it.

loss = kl * T^2 KL(teacher/T || student/T)     mean over tokens (Hinton et al., 2015, section 2)
     + layer_mse * mean squared error of the outputs of the polynomial layers, mostly without first tokens
     + cross_entropy * cross-entropy of the next token of the text
     + likelihood * T^2 (log-likelihood of the next token, student - teacher)^2      mean over tokens
     + gate_range * mean squared relative excess of |gate| over the range the polynomial was fitted on
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaForCausalLM

from mpcbench.distill.data import Batch, Sequences, padded
from mpcbench.distill.divergence import Divergence
from mpcbench.distill.recipe import Objective
from mpcbench.distill.student import Student

CACHED_BYTES = 2 << 30
"""How much of the teacher's answers is kept for the next epoch."""
GROUP_ROWS = 16
"""Texts that the teacher answers together to keep what it says."""

Row = tuple[int, ...]


@dataclass(frozen=True)
class Targets:
    """The teacher's final hidden states and outputs of layers, each [real tokens, hidden]."""

    hidden: torch.Tensor
    layers: dict[int, torch.Tensor]


@dataclass(frozen=True)
class Answer:
    """A model's logits [real tokens, vocabulary] and outputs of layers [real tokens, hidden], in float32."""

    logits: torch.Tensor
    layers: dict[int, torch.Tensor]


@torch.no_grad()
def ask(model: LlamaForCausalLM, batch: Batch, layers: list[int]) -> Answer:
    """What a model says to a batch, without autocast."""
    with outputs_of(model, layers) as seen:
        hidden = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    outputs = {layer: output[batch.real].float() for layer, output in seen.items()}
    return Answer(model.lm_head(hidden[batch.real]).float(), outputs)


class Teacher:
    """A frozen model that answers batches; final hidden states are kept by text, since epochs repeat.

    autocast: whether its matrix products are in bfloat16.
    """

    def __init__(self, model: LlamaForCausalLM, autocast: bool = False):
        self.model = model
        self.autocast = autocast
        self._group: dict[Row, Batch] = {}
        self._kept: dict[Row, torch.Tensor] = {}
        self._room = CACHED_BYTES // (4 * model.config.hidden_size)  # in tokens

    def keep(self, sequences: Sequences) -> None:
        """Answer these texts once, each when it first comes, together with the same others of like length.

        What rounding makes of an answer depends on the batch. With groups of its own a text has one answer,
        whatever batch it comes in first: a run that is resumed trains on the same as one that was not.
        """
        chosen = []
        for sequence in dict.fromkeys(map(tuple, sequences)):
            if sequence not in self._group and len(sequence) <= self._room:
                self._room -= len(sequence)
                chosen.append(sequence)
        for group in padded(chosen, GROUP_ROWS):
            self._group |= dict.fromkeys(_rows(group), group)

    @torch.no_grad()
    def answer(self, batch: Batch, layers: list[int]) -> Targets:
        """Targets for a batch; where outputs of ``layers`` are wanted, nothing is taken from memory."""
        rows = _rows(batch)
        if layers or not all(row in self._group for row in rows):
            hidden, outputs = self._ask(batch, layers)
            return Targets(hidden[batch.real], {layer: outputs[layer][batch.real] for layer in layers})
        for row in rows:
            if row not in self._kept:
                group = self._group[row]
                states = self._ask(group.to(batch.ids.device), [])[0].cpu()
                parts = zip(_rows(group), states, strict=True)
                self._kept |= {text: own[: len(text)].clone() for text, own in parts}
        hidden = torch.cat([self._kept[row] for row in rows])
        return Targets(hidden.to(batch.ids.device), {})

    def _ask(self, batch: Batch, layers: list[int]) -> tuple[torch.Tensor, dict[int, torch.Tensor]]:
        with outputs_of(self.model, layers) as seen, _autocast(self.model, self.autocast):
            hidden = self.model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
        return hidden.float(), {layer: output.float() for layer, output in seen.items()}


def _rows(batch: Batch) -> list[Row]:
    """The texts of a batch."""
    return [tuple(ids[real].tolist()) for ids, real in zip(batch.ids, batch.real, strict=True)]


class Distillation(nn.Module):
    """The student with its objective as one module, which is what data parallelism wants.

    head: the teacher's output layer, or None if it is the student's own.
    """

    def __init__(self, student: Student, objective: Objective, head: nn.Module | None, autocast: bool):
        super().__init__()
        self.student = student
        self.objective = objective
        self.autocast = autocast
        self._head = [head]  # in a list: not a part of this module, whose parameters are the student's
        student.watch.penalise = objective.gate_range > 0

    @property
    def compared_layers(self) -> list[int]:
        """Layers whose outputs the objective compares."""
        return self.student.polynomial_layers if self.objective.layer_mse else []

    def forward(
        self, batch: Batch, targets: Targets | None = None, answer: list[int] | None = None
    ) -> dict[str, torch.Tensor] | Answer:
        """``loss`` and its parts, unweighted, as scalars; targets may be None without kl and layer_mse.

        With ``answer`` no loss but the student's :class:`Answer`, with the outputs of these layers: all
        that is asked of the student goes through here, where FSDP gathers its parameters.
        """
        if answer is not None:
            return ask(self.student.model, batch, answer)
        goal, watch = self.objective, self.student.watch
        watch.see(batch.real)
        layers = self.compared_layers
        with _autocast(self.student.model, self.autocast), _plain_attention(self.student.model):
            with outputs_of(self.student.model, layers) as seen:
                hidden = self.student.model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
            hidden = hidden[batch.real]
            parts: dict[str, torch.Tensor] = {}
            if goal.kl or goal.likelihood:
                parts |= self.divergence(hidden, targets.hidden, batch.labels)
            if goal.cross_entropy:
                logits = self.student.model.lm_head(hidden).float()
                parts["cross_entropy"] = functional.cross_entropy(logits, batch.labels)
        if layers:
            counted = watch.counted | (watch.first & goal.layer_mse_first)
            outputs = {layer: seen[layer][batch.real] for layer in layers}
            parts["layer_mse"] = layer_error(
                outputs, targets.layers, counted[batch.real], goal.layer_mse_relative
            )
        if goal.gate_range and watch.excess:
            parts["gate_range"] = torch.stack(list(watch.excess.values())).mean()
        watch.counted = None
        loss = sum(getattr(goal, name) * value for name, value in parts.items())
        return {"loss": loss, **parts}

    def divergence(
        self, student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """``kl`` and, if the objective has it, ``likelihood``; hidden states [tokens, hidden].

        labels: [tokens] the text's own next tokens, -100 where a row ends.
        """
        goal = self.objective
        other = None if self._head[0] is None else self._head[0].weight
        own, dtype = self.student.model.lm_head.weight, torch.bfloat16 if self.autocast else torch.float32
        with torch.autocast(student.device.type, enabled=False):
            kl, likelihood = Divergence.apply(
                student, teacher, own, other, dtype, goal.temperature, labels if goal.likelihood else None
            )
        return {"kl": kl, "likelihood": likelihood} if goal.likelihood else {"kl": kl}


def layer_error(
    student: dict[int, torch.Tensor], teacher: dict[int, torch.Tensor], counted: torch.Tensor, relative: bool
) -> torch.Tensor:
    """Mean over layers of the mean squared error of their outputs at the tokens that are counted.

    student, teacher: layer -> [tokens, hidden]; counted: [tokens] bool. relative: each layer in units of
    the teacher's mean square. The outputs are those of the whole layer, on the residual stream.
    """
    errors = []
    for layer, output in student.items():
        goal = teacher[layer][counted]
        error = (output[counted].float() - goal).square().mean()
        errors.append(error / goal.square().mean() if relative else error)
    return torch.stack(errors).mean()


@contextmanager
def outputs_of(model: LlamaForCausalLM, layers: list[int]) -> Iterator[dict[int, torch.Tensor]]:
    """For the block, keep what the given decoder layers return, [rows, length, hidden]."""
    seen: dict[int, torch.Tensor] = {}

    def hook(layer: int):
        def keep(module: nn.Module, inputs: tuple, output: torch.Tensor | tuple) -> None:
            seen[layer] = output[0] if isinstance(output, tuple) else output

        return keep

    handles = [model.model.layers[layer].register_forward_hook(hook(layer)) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _autocast(model: nn.Module, enabled: bool) -> torch.autocast:
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=enabled)


@contextmanager
def _plain_attention(model: LlamaForCausalLM) -> Iterator[None]:
    """For the block, on a CPU, attention as matrix products: fused, it takes ten times as long backwards.

    Training passages are short; the fused kernel's blocks are not.
    """
    config = model.config
    usual = config._attn_implementation
    if model.device.type == "cpu":
        config._attn_implementation = "eager"
    try:
        yield
    finally:
        config._attn_implementation = usual

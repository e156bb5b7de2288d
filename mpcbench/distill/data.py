"""What a student is trained on: where the text is from, what is held out, and in which order it comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from mpcbench import hub
from mpcbench.accuracy.questions import QuestionSet
from mpcbench.checkpoints import Checkpoint
from mpcbench.distill.own_text import self_texts
from mpcbench.distill.recipe import FIT_TOKENS
from mpcbench.distill.texts import HOLD_OUT_EVERY, WINDOW, Split, Texts, calibration_texts
from mpcbench.errors import UserError
from mpcbench.progress import Progress, silent

HELD_OUT_TOKENS = 2_000
POOL = 16
"""Steps whose passages are drawn together and then batched with others of like length."""

Sequences = list[list[int]]


def training_texts(source: str, original: Checkpoint, progress: Progress = silent) -> Texts:
    """``arc`` (the train split from the Hub), ``self`` (sampled from the original), or a file.

    Files are those of :func:`mpcbench.distill.texts.calibration_texts`. Raises UserError for a source that is
    out of reach, malformed or without text.
    """
    if source == "arc":
        return _arc_from_hub()
    if source == "self":
        return self_texts(original, progress)
    return calibration_texts(source)


def without_questions(texts: Texts, questions: QuestionSet) -> Texts:
    """The texts without passages that hold an evaluation question: ARC's own splits share a few.

    UserError when most are such passages: then the text is what the model is to be scored on.
    """
    asked = {question.text.strip() for question in questions.questions}
    kept = [passage for passage in texts.texts if _question(passage) not in asked]
    dropped = len(texts.texts) - len(kept)
    if not dropped:
        return texts
    if dropped > len(kept):
        raise UserError(
            f"{texts.description} holds the questions of {questions.task}, which the model is to be scored "
            "on: train on one split and score on another."
        )
    description = f"{texts.description} without {dropped} questions of {questions.task}"
    return Texts.of(kept, description, {right: texts.wrong[right] for right in kept if right in texts.wrong})


def _question(passage: str) -> str:
    return passage.removeprefix("Question:").split("\nAnswer:")[0].strip()


def training_split(texts: Texts, tokenizer: PreTrainedTokenizerBase, wrong_answers: bool = False) -> Split:
    """Windows of at most ``WINDOW`` tokens; every eighth passage is held out up to ``HELD_OUT_TOKENS``.

    A passage is wholly in one part; ``wrong_answers``, if wanted, are of questions in the first. Raises
    UserError when a part would be empty.
    """
    fit: Sequences = []
    held_out: Sequences = []
    wrong: Sequences = []
    room = HELD_OUT_TOKENS
    for index, text in enumerate(texts.texts):
        windows = _windows(text, tokenizer)
        held = index % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1 and room > 0
        room -= sum(map(len, windows)) if held else 0
        (held_out if held else fit).extend(windows)
        if wrong_answers and not held:
            wrong += [window for other in texts.wrong.get(text, []) for window in _windows(other, tokenizer)]
    if not fit or not held_out:
        raise UserError(
            f"The {texts.description} has too little text to train on and hold out from: "
            f"give at least {HOLD_OUT_EVERY} passages of two tokens or more."
        )
    return Split(fit, held_out, wrong)


def _windows(text: str, tokenizer: PreTrainedTokenizerBase) -> Sequences:
    tokens = tokenizer(text)["input_ids"]
    windows = [tokens[start : start + WINDOW] for start in range(0, len(tokens), WINDOW)]
    return [window for window in windows if len(window) > 1]


def for_calibration(parts: Split, tokens: int = FIT_TOKENS) -> Split:
    """The :func:`beginning` of what is trained on, and the same held-out part."""
    return Split(beginning(parts.fit, tokens), parts.held_out)


def beginning(sequences: Sequences, tokens: int) -> Sequences:
    """The first so many tokens, and the rest of the last passage of them."""
    kept, count = [], 0
    for passage in sequences:
        if count >= tokens:
            break
        kept.append(passage)
        count += len(passage)
    return kept


@dataclass(frozen=True)
class Batch:
    """Token ids [rows, longest], padded on the right, and which of them are ``real``."""

    ids: torch.Tensor
    real: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(self.ids.to(device), self.real.to(device))

    @property
    def labels(self) -> torch.Tensor:
        """The next token at every real position, -100 where a row ends; [real tokens]."""
        following = torch.roll(self.ids, -1, dims=1)
        last = self.real & ~torch.roll(self.real, -1, dims=1)
        last[:, -1] = self.real[:, -1]
        return following.masked_fill(last, -100)[self.real]


def pad(rows: Sequence[Sequence[int]]) -> Batch:
    """Rows of tokens as one batch."""
    longest = max(map(len, rows))
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    real = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        real[row, : len(tokens)] = True
    return Batch(ids, real)


def padded(sequences: Sequence[Sequence[int]], rows: int) -> list[Batch]:
    """All sequences once, those of like length together, at most so many rows a batch."""
    ordered = sorted(sequences, key=len)
    return [pad(ordered[start : start + rows]) for start in range(0, len(ordered), rows)]


class Batches:
    """An endless order of batches that depends on the seed alone, so that a resumed run sees the same.

    tokens: at most so many in a batch, padding included (a longer passage is a batch of its own).
    """

    def __init__(self, sequences: Sequences, tokens: int, seed: int):
        self.sequences = sequences
        self.tokens = tokens
        self.seed = seed
        self._order: list[list[int]] = []
        self._epochs = 0

    def __getitem__(self, index: int) -> Batch:
        while index >= len(self._order):
            self._order.extend(self._epoch(self._epochs))
            self._epochs += 1
        return pad([self.sequences[place] for place in self._order[index]])

    def _epoch(self, epoch: int) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.sequences), generator=generator).tolist()
        pool: list[int] = []
        held = 0
        for place in order:
            pool.append(place)
            held += len(self.sequences[place])
            if held >= POOL * self.tokens:
                yield from self._batched(pool, generator)
                pool, held = [], 0
        if pool:
            yield from self._batched(pool, generator)

    def _batched(self, pool: list[int], generator: torch.Generator) -> list[list[int]]:
        """The pool in batches of passages of like length, in random order."""
        batches: list[list[int]] = [[]]
        for place in sorted(pool, key=lambda place: len(self.sequences[place])):
            if batches[-1] and len(self.sequences[place]) * (len(batches[-1]) + 1) > self.tokens:
                batches.append([])
            batches[-1].append(place)
        return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def _arc_from_hub() -> Texts:
    hub.require("ARC-Easy's train split")
    import datasets

    from mpcbench.accuracy.harness import arc_easy_config, quiet

    config = arc_easy_config()
    with quiet():
        rows = datasets.load_dataset(config["dataset_path"], config["dataset_name"], split="train")
    return Texts.asked(rows, f"{config['dataset_name']}, train split, from the Hub")

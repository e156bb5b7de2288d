"""The text that calibration looks at, and how it is cut into what is fitted and what is held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mpcbench.errors import UserError

PACKAGED = "calibration.txt"
WINDOW = 256
FIT_TOKENS = 10_000
HELD_OUT_TOKENS = 1_000
HOLD_OUT_EVERY = 8


@dataclass(frozen=True)
class Texts:
    """Passages, what they are in words, and the SHA-256 of their text.

    ``wrong``: of passages that are a question with its right answer, the question with each wrong one.
    """

    texts: list[str]
    description: str
    sha256: str
    wrong: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, passages: list[str], description: str, wrong: dict[str, list[str]] | None = None) -> Texts:
        """With their digest."""
        digest = hashlib.sha256("\0".join(passages).encode()).hexdigest()
        return cls(passages, description, digest, wrong or {})

    @classmethod
    def asked(cls, items: Iterable[Mapping[str, Any]], description: str) -> Texts:
        """Questions in ARC's format as passages."""
        questions = list(map(answered, items))
        return cls.of([right for right, _ in questions], description, dict(questions))


@dataclass(frozen=True)
class Split:
    """Token sequences of at most ``WINDOW`` tokens: those the fit sees, and those it never sees.

    ``wrong``: questions that are in ``fit`` with their right answers, with wrong ones.
    """

    fit: list[list[int]]
    held_out: list[list[int]]
    wrong: list[list[int]] = field(default_factory=list)

    @property
    def fit_tokens(self) -> int:
        """How many tokens the fit sees."""
        return sum(len(tokens) for tokens in self.fit)


def calibration_texts(source: str | None = None) -> Texts:
    """The packaged text (``None``), a text file with a passage a line, or a JSONL file.

    A line of JSONL is a question in ARC's format or an object with ``text``.
    In a text file ``\\n`` stands for a line break inside a passage.
    Of an ARC question the passage is the question with its correct answer, as lm-eval writes them.
    Raises UserError for a file that is missing, empty, not UTF-8, or not in such a format (naming the line).
    """
    if source is None:
        content = resources.files("mpcbench.distill").joinpath("data", PACKAGED).read_text(encoding="utf-8")
        return _texts(content.splitlines(), "packaged calibration text")
    path = Path(source).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"There is no calibration file {path}: give a text file or ARC's JSONL.") from None
    except (IsADirectoryError, UnicodeDecodeError):
        raise UserError(f"{path} is not a text file: give a UTF-8 text file or ARC's JSONL.") from None
    wrong: dict[str, list[str]] = {}
    if path.suffix in (".jsonl", ".json"):
        read = [_passage(line, f"{path}, line {n}") for n, line in enumerate(lines, 1) if line.strip()]
        lines = [passage for passage, _ in read]
        wrong = {_plain(passage): list(map(_plain, others)) for passage, others in read if others}
    return _texts(lines, path.name, wrong)


def _texts(lines: list[str], description: str, wrong: dict[str, list[str]] | None = None) -> Texts:
    passages = [_plain(line) for line in lines if line.strip()]
    if len(passages) < 2:
        raise UserError(f"The {description} holds {len(passages)} passages: give at least two, a line each.")
    return Texts.of(passages, description, wrong)


def _plain(line: str) -> str:
    return line.strip().replace("\\n", "\n")


def _passage(line: str, where: str) -> tuple[str, list[str]]:
    """The ``text`` of a JSON line, or what :func:`answered` makes of one line of ARC."""
    try:
        item = json.loads(line)
        if isinstance(item.get("text"), str):
            return item["text"], []
        return answered(item)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise UserError(
            f"{where}, is not a question in ARC's format (question, choices and answerKey) and has no text."
        ) from None


def answered(item: Mapping[str, Any]) -> tuple[str, list[str]]:
    """A question in ARC's format with its right answer, and with each wrong one, as lm-eval writes them."""
    choices = item["choices"]
    passages = [f"Question: {item['question']}\nAnswer: {answer}" for answer in choices["text"]]
    right = passages.pop(choices["label"].index(item["answerKey"]))
    return right, passages


def split(texts: Texts, tokenizer: PreTrainedTokenizerBase) -> Split:
    """Cut passages into windows; every eighth is held out until ``HELD_OUT_TOKENS`` are reached.

    What is past ``FIT_TOKENS`` is left out: the fit has 5 numbers a channel at most to find, and
    questions by the thousand would only take longer.
    """
    fit: list[list[int]] = []
    held_out: list[list[int]] = []
    room = {True: HELD_OUT_TOKENS, False: FIT_TOKENS}
    for index, text in enumerate(texts.texts):
        tokens = tokenizer(text)["input_ids"]
        held = index % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1 or (
            index == len(texts.texts) - 1 and not held_out
        )
        for start in range(0, len(tokens), WINDOW):
            if room[held] <= 0:
                break
            window = tokens[start : start + WINDOW]
            room[held] -= len(window)
            (held_out if held else fit).append(window)
    return Split(fit, held_out)

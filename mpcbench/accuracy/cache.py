"""Scores that were computed once are kept: keyed by content, so that a stale one cannot be found."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ValidationError

from mpcbench.accuracy.distance import fidelity, question_texts
from mpcbench.accuracy.harness import score
from mpcbench.accuracy.questions import QuestionSet, load_questions
from mpcbench.paths import cache_dir, whole_file
from mpcbench.progress import Progress, silent
from mpcbench.records.schema import Accuracy, Fidelity

COMPARED_QUESTIONS = 200
"""Questions whose text the models are compared on: 6,000 tokens of ARC. A mean over tokens needs no more,
and each costs two forward passes."""


class Loaded(Protocol):
    """What a checkpoint has to offer here: a Hugging Face model, its tokenizer, and the weights' hash."""

    @property
    def model(self) -> Any: ...
    @property
    def tokenizer(self) -> Any: ...
    @property
    def sha256(self) -> str: ...


class Evaluation(BaseModel):
    """The plaintext scores of one checkpoint, and its distance from the original model."""

    accuracy: list[Accuracy]
    fidelity: Fidelity


def cached_evaluate(
    checkpoint: Loaded,
    original: Loaded,
    task_data: Path | None = None,
    limit: int | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Accuracy of ``checkpoint``, and its fidelity to ``original`` on the first of the questions; cached.

    The key covers both checkpoints' hashes, the questions' content and names, their number and lm-eval's
    version. The models are not touched when the result is there. ``progress`` hears of both steps in
    turn: of answers scored, then of texts compared. Raises UserError for an unusable question file.
    """
    questions = load_questions(task_data).head(limit)
    file = cache_dir() / "accuracy" / f"{_key(checkpoint, original, questions, limit)}.json"
    found = _read(file)
    if found is not None:
        return found
    texts, description = question_texts(questions.head(COMPARED_QUESTIONS))
    result = Evaluation(
        accuracy=score(checkpoint.model, checkpoint.tokenizer, questions, progress),
        fidelity=fidelity(
            original.model, checkpoint.model, checkpoint.tokenizer, texts, description, progress
        ),
    )
    with whole_file(file) as part:
        part.write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return result


def _key(checkpoint: Loaded, original: Loaded, questions: QuestionSet, limit: int | None) -> str:
    content = [
        checkpoint.sha256,
        original.sha256,
        questions.sha256,
        questions.task,
        questions.source,
        limit,
        metadata.version("lm_eval"),
        "question by question",
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _read(file: Path) -> Evaluation | None:
    """The stored result; None if there is none or it cannot be read, in which case it is made again."""
    try:
        return Evaluation.model_validate_json(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError, UnicodeDecodeError):
        return None

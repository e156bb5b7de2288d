"""Multiple-choice questions: read from a file in ARC's JSONL format, from the Hub, or from the package.

One line of ARC's format (Clark et al., 2018, "Think you have Solved Question Answering?")::

    {"id": "…", "question": "…", "choices": {"text": ["…", …], "label": ["A", …]}, "answerKey": "A"}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from mpcbench import hub
from mpcbench.errors import UserError

PACKAGED_TASK = "mpcbench-science"
HUB_TASK = "arc_easy"


@dataclass(frozen=True)
class Question:
    """A question, its choices, and the place of the right one."""

    text: str
    choices: tuple[str, ...]
    right: int

    @property
    def answer(self) -> str:
        return self.choices[self.right]


@dataclass(frozen=True)
class QuestionSet:
    """Questions under the name they go by in records; ``source`` says in words where they are from."""

    task: str
    source: str
    questions: list[Question]

    @property
    def sha256(self) -> str:
        """Hash of the content: questions, choices and answers in their order."""
        content = [[question.text, *question.choices, question.right] for question in self.questions]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def head(self, limit: int | None) -> QuestionSet:
        """The first ``limit`` questions, all of them if None. UserError if it is not positive."""
        if limit is not None and limit < 1:
            raise UserError(f"The limit of evaluation questions is {limit}; give 1 or more, or none at all.")
        return QuestionSet(self.task, self.source, self.questions[:limit])


def load_questions(task_data: Path | None = None) -> QuestionSet:
    """The questions to evaluate on.

    From the file ``task_data`` if one is given; else ARC-Easy's test split from the Hub; else, where the
    Hub is out of reach, the science questions that come with mpcbench, under their own name. Raises
    UserError for an unreadable or malformed file.
    """
    if task_data is not None:
        return read_file(task_data)
    if hub.reachable():
        return _from_hub()
    return packaged()


def read_file(path: Path) -> QuestionSet:
    """Questions of a JSONL file in ARC's format; UserError names the file and the line at fault."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"The question file {path} cannot be read: {reason}.") from error
    questions = list(_parse(lines, str(path)))
    if not questions:
        raise UserError(f"The question file {path} has no questions; it needs one JSON object a line.")
    found = QuestionSet(path.name, "", questions)
    # The name alone, not the folders: records are published.
    return QuestionSet(path.name, f"file {path.name}, content {found.sha256[:12]}", questions)


def packaged() -> QuestionSet:
    """The four-choice grade-school science questions that come with mpcbench, written for it."""
    file = resources.files("mpcbench.accuracy") / "data" / "science.jsonl"
    questions = list(_parse(file.read_text(encoding="utf-8").splitlines(), "science.jsonl"))
    return QuestionSet(PACKAGED_TASK, "questions packaged with mpcbench (not ARC)", questions)


def _from_hub() -> QuestionSet:
    """ARC-Easy's test split, from where lm-eval's own task takes it."""
    import datasets

    from mpcbench.accuracy.harness import arc_easy_config, quiet

    config = arc_easy_config()
    path, name, split = config["dataset_path"], config["dataset_name"], config["test_split"]
    try:
        with quiet():
            rows = datasets.load_dataset(path, name, split=split)
    except Exception as error:  # a dozen kinds of network and Hub errors, all with the same remedy
        raise UserError(
            f"The questions of {path} could not be fetched from the Hub ({type(error).__name__}): try again, "
            "or name a file with --task-data."
        ) from error
    questions = [_question(row, f"question {number} of {path}") for number, row in enumerate(rows, start=1)]
    return QuestionSet(HUB_TASK, f"{name}, {split} split, from the Hub ({path})", questions)


def _parse(lines: Iterable[str], name: str) -> Iterable[Question]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not a JSON object ({error.msg}).") from error
        yield _question(row, where)


def _question(row: object, where: str) -> Question:
    """Check one row; every complaint is a UserError that begins with ``where``."""

    def complain(what: str) -> UserError:
        return UserError(
            f"{where}: {what}; ARC's format has question, choices.text, choices.label, answerKey."
        )

    if not isinstance(row, dict):
        raise complain("not a JSON object")
    text, choices, key = row.get("question"), row.get("choices"), row.get("answerKey")
    if not _is_text(text):
        raise complain("'question' is missing or empty")
    if not isinstance(choices, dict):
        raise complain("'choices' is missing or not an object")
    texts, labels = choices.get("text"), choices.get("label")
    if not isinstance(texts, list) or len(texts) < 2 or not all(map(_is_text, texts)):
        raise complain("'choices.text' is not a list of two or more texts")
    if not isinstance(labels, list) or len(labels) != len(texts) or len(set(map(str, labels))) != len(labels):
        raise complain(f"'choices.label' does not name each of the {len(texts)} choices once")
    if key is None or str(key) not in map(str, labels):
        raise complain(f"'answerKey' {key!r} is not one of the labels")
    return Question(text, tuple(texts), [str(label) for label in labels].index(str(key)))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())

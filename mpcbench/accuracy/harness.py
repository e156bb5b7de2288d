"""The score of a model on multiple-choice questions, by lm-eval's own ``arc_easy`` task.

lm-eval (Gao et al., "A framework for few-shot language model evaluation") is used as a library: its task
definition makes the prompt, its metrics make the score and the standard error. What is ours: the
questions come from memory, so that neither the Hub nor a dataset cache can stand between a file and its
score; the model's forward passes share each question's prefix; and it is quiet.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import mpcbench.compat  # noqa: F401  -- before transformers and lm_eval
from mpcbench.accuracy.prefix import log_likelihoods
from mpcbench.accuracy.questions import Question, QuestionSet, load_questions
from mpcbench.errors import UserError
from mpcbench.progress import Progress, silent
from mpcbench.records.schema import Accuracy

METRICS = ("acc", "acc_norm")


def evaluate(
    model,
    tokenizer,
    task_data: Path | None = None,
    limit: int | None = None,
    progress: Progress = silent,
) -> list[Accuracy]:
    """Zero-shot accuracy of ``model`` in plaintext: ``acc`` first, then ``acc_norm``.

    ``acc`` takes the answer with the highest log-likelihood, ``acc_norm`` the highest per character
    of the answer's text. The questions are those of :func:`mpcbench.accuracy.questions.load_questions`, the
    first ``limit`` of them. ``progress`` hears of every answer scored. Raises UserError for a question
    file that cannot be used.
    """
    return score(model, tokenizer, load_questions(task_data).head(limit), progress)


def score(model, tokenizer, questions: QuestionSet, progress: Progress = silent) -> list[Accuracy]:
    """:func:`evaluate` on questions that are in hand."""
    with quiet():
        import lm_eval

        # `evaluate`, not `simple_evaluate`: the latter reseeds every global generator, asks the Hub for
        # the model's revision, and describes the machine in subprocesses.
        task = _task(questions)
        results = lm_eval.evaluate(
            _language_model(model, tokenizer, progress), {questions.task: task}, log_samples=True
        )
    scores = results["results"][questions.task]
    samples = sorted(results["samples"][questions.task], key=lambda sample: sample["doc_id"])
    return [
        Accuracy(
            task=questions.task,
            source=f"{questions.source}; arc_easy of lm-eval {metadata.version('lm_eval')}, zero-shot",
            setting="plaintext",
            metric=metric,
            n=len(questions.questions),
            score=scores[f"{metric},none"],
            stderr=_stderr(scores[f"{metric}_stderr,none"]),
            answered="".join(str(int(sample[metric])) for sample in samples),
        )
        for metric in METRICS
    ]


def arc_easy_config() -> dict[str, Any]:
    """lm-eval's own definition of ``arc_easy``, read from its package (its index takes 15 s to build)."""
    import yaml
    from lm_eval import tasks

    file = Path(tasks.__file__).parent / "arc" / "arc_easy.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))


@contextmanager
def quiet() -> Iterator[None]:
    """No log lines below an error and no progress bars from lm-eval and datasets; restored afterwards."""
    import datasets
    from lm_eval.api import task

    def no_bar(items, *_, **__):
        return items

    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, datasets.utils.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    datasets.utils.disable_progress_bars()
    try:
        with mock.patch.object(task, "tqdm", no_bar):
            yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.utils.enable_progress_bars()


def _task(questions: QuestionSet):
    """The ``arc_easy`` task over these questions instead of its dataset; nothing is read or cached."""
    import datasets
    from lm_eval.api.task import ConfigurableTask

    rows = datasets.Dataset.from_list([_row(question) for question in questions.questions])

    class InMemoryTask(ConfigurableTask):
        def download(self, *_, **__) -> None:
            self.dataset = {"test": rows}

    config = arc_easy_config()
    for key in ("tag", "training_split", "validation_split"):
        config.pop(key, None)
    return InMemoryTask(config={**config, "task": questions.task, "test_split": "test", "num_fewshot": 0})


def _row(question: Question) -> dict[str, Any]:
    labels = [chr(ord("A") + place) for place in range(len(question.choices))]
    return {
        "question": question.text,
        "choices": {"text": list(question.choices), "label": labels},
        "answerKey": labels[question.right],
    }


def _language_model(model, tokenizer, progress: Progress):
    from lm_eval.models.huggingface import HFLM

    class SharedPrefixLM(HFLM):
        """lm-eval's Hugging Face model; answers to one question are scored in one row (see prefix.py)."""

        def loglikelihood(self, requests, disable_tqdm: bool = True):
            return super().loglikelihood(requests, disable_tqdm=True)

        def _loglikelihood_tokens(self, requests, disable_tqdm: bool = True, override_bs: int | None = None):
            pairs = [(context[-self._room(answer) :], answer) for _, context, answer in requests]
            done = 0

            def answered(index, answer) -> None:
                nonlocal done
                done += 1
                progress("scoring answers", done, len(requests))

            return log_likelihoods(self.model, pairs, answered)

        def _room(self, continuation) -> int:
            """Context tokens that fit before a continuation; the oldest are dropped, as lm-eval does."""
            room = self.max_length + 1 - len(continuation)
            if room < 1:
                raise UserError(
                    f"An answer of {len(continuation)} tokens is longer than the model's {self.max_length} "
                    "positions; shorten it in the question file."
                )
            return room

    return SharedPrefixLM(pretrained=model, tokenizer=tokenizer, batch_size=1)


def _stderr(value: float | str) -> float:
    """The standard error; lm-eval divides by n - 1 and so has none for a single question: report 0."""
    return value if isinstance(value, float) and math.isfinite(value) else 0.0

"""What one score lost of another, question by question."""

from __future__ import annotations

import math
from statistics import fmean, stdev

from mpcbench.records.schema import Accuracy


def lost(base: Accuracy, *scores: Accuracy) -> tuple[float, float] | None:
    """``base`` minus the mean of ``scores`` on the same questions, and its standard error, in [-1, 1].

    scores: of one model, or of what several seeds made of it. Two models that are alike mostly fail on the
    same questions, so that this error is far smaller than that of either score (Miller, "Adding Error Bars
    to Evals", 2024, section 4). None where the questions differ or what became of each is not known.
    """
    answers = [_answers(base, score) for score in scores]
    if not all(answers):
        return None
    means = map(fmean, zip(*answers, strict=True))
    differences = [int(b) - mean for b, mean in zip(base.answered or "", means, strict=True)]
    deviation = stdev(differences) if len(differences) > 1 else 0.0
    return fmean(differences), deviation / math.sqrt(len(differences))


def _answers(base: Accuracy, score: Accuracy) -> list[int]:
    """Whether each of ``base``'s questions was answered rightly; empty where that is not known."""
    same = (base.task, base.source, base.metric) == (score.task, score.source, score.metric)
    known = same and base.answered and score.answered and len(base.answered) == len(score.answered)
    return [int(digit) for digit in score.answered or ""] if known else []

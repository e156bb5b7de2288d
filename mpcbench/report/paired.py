"""What one score lost of another, question by question."""

from __future__ import annotations

import math
from statistics import fmean, stdev

from mpcbench.records.schema import Accuracy


def lost(base: Accuracy, score: Accuracy) -> tuple[float, float] | None:
    """``base`` minus ``score`` on the same questions and the difference's standard error, in [-1, 1].

    Two models that are alike mostly fail on the same questions, so that this error is far smaller than
    that of either score (Miller, "Adding Error Bars to Evals", 2024, section 4). None where the
    questions differ or what became of each is not known.
    """
    same = (base.task, base.source, base.metric) == (score.task, score.source, score.metric)
    if not same or not base.answered or not score.answered or len(base.answered) != len(score.answered):
        return None
    differences = [int(b) - int(s) for b, s in zip(base.answered, score.answered, strict=True)]
    deviation = stdev(differences) if len(differences) > 1 else 0.0
    return fmean(differences), deviation / math.sqrt(len(differences))

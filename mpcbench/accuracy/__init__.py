"""Scores of plaintext models on multiple-choice questions, and the distance between models.

``evaluate`` runs lm-eval's ``arc_easy`` on a model in memory; ``fidelity`` compares a checkpoint with the
model it was made from; ``agreement`` compares opened logits with plaintext; ``cached_evaluate`` does the
first two and remembers.
"""

from mpcbench.accuracy.cache import Evaluation, cached_evaluate
from mpcbench.accuracy.distance import agreement, fidelity, task_texts
from mpcbench.accuracy.harness import evaluate
from mpcbench.accuracy.questions import load_questions

__all__ = [
    "Evaluation",
    "agreement",
    "cached_evaluate",
    "evaluate",
    "fidelity",
    "load_questions",
    "task_texts",
]

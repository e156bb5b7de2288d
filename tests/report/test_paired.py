from __future__ import annotations

import numpy as np
import pytest

from mpcbench.records.schema import Accuracy
from mpcbench.report.paired import lost

SCORE = Accuracy(
    task="arc_easy", source="a file", setting="plaintext", metric="acc", n=8, score=0.5, stderr=0.19
)
BOTH = ("11101000", "11001100")


def test_a_difference_of_scores_has_the_error_of_its_differences() -> None:
    one, other = (SCORE.model_copy(update={"answered": answered}) for answered in BOTH)
    difference = np.array([int(digit) for digit in BOTH[0]]) - [int(digit) for digit in BOTH[1]]
    expected = (difference.mean(), difference.std(ddof=1) / np.sqrt(8))
    assert lost(one, other) == pytest.approx(expected) and expected[1] < SCORE.stderr
    assert lost(one, one) == (0.0, 0.0)


def test_several_seeds_count_as_their_mean_on_each_question() -> None:
    base, *seeds = (SCORE.model_copy(update={"answered": answered}) for answered in ("1110", "1100", "0110"))
    difference = np.array([0.5, 0.0, 0.5, 0.0])
    assert lost(base, *seeds) == pytest.approx((difference.mean(), difference.std(ddof=1) / 2))
    assert lost(base, seeds[0], SCORE) is None


@pytest.mark.parametrize("change", [{"answered": None}, {"source": "another"}, {"metric": "acc_norm"},
                                    {"answered": "1"}])  # fmt: skip
def test_scores_of_other_questions_have_no_difference(change: dict) -> None:
    one, other = (SCORE.model_copy(update={"answered": answered}) for answered in BOTH)
    assert lost(one, other.model_copy(update=change)) is None
    assert lost(other.model_copy(update=change), one) is None


def test_one_question_has_no_error() -> None:
    one = SCORE.model_copy(update={"answered": "1"})
    assert lost(one, one.model_copy(update={"answered": "0"})) == (1.0, 0.0)

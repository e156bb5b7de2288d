from __future__ import annotations

import pytest

from mpcbench.distill.placement import place
from mpcbench.errors import UserError

RANKING = [3, 0, 5, 1, 4, 2]


def never():
    raise AssertionError("this placement needs no ranking")


def test_the_least_sensitive_come_from_the_ranking():
    assert place("least-sensitive", 3, 6, lambda: RANKING) == [0, 3, 5]


@pytest.mark.parametrize(
    "placement, layers, expected",
    [
        ("first", 2, [0, 1]),
        ("last", 2, [4, 5]),
        ("least-sensitive", 6, [0, 1, 2, 3, 4, 5]),
        ("5,1", None, [1, 5]),
        (" 2 , 3", 2, [2, 3]),
        ("4", None, [4]),
    ],
)
def test_placements_that_need_no_ranking(placement, layers, expected):
    assert place(placement, layers, 6, never) == expected


@pytest.mark.parametrize(
    "placement, layers, sentence",
    [
        ("first", 7, "the model has 6"),
        ("first", 0, "choose 1 to 6"),
        ("last", None, "--layers 1 to 6"),
        ("1,6", None, "Layer 6 does not exist"),
        ("1,2,1", None, "Layer 1 is named more than once"),
        ("1,2", 3, "names 2 layers, but --layers says 3"),
        ("1,,2", None, "none of least-sensitive, first, last"),
        ("-1", None, "no list of layer numbers"),
        ("middle", 2, "'middle' is none of"),
        ("", 2, "is none of"),
    ],
)
def test_placements_that_are_refused(placement, layers, sentence):
    with pytest.raises(UserError, match=sentence):
        place(placement, layers, 6, never)

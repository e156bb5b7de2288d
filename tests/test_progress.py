"""Progress that is told seldom still tells what is new and what is last."""

from __future__ import annotations

from mpcbench.progress import seldom


def test_seldom_passes_on_what_is_new_and_what_is_last() -> None:
    told = []
    tell = seldom(lambda *step: told.append(step), seconds=1e9)
    for what in ("offline", "online"):
        for done in range(1, 101):
            tell(what, done, 100)
    assert told == [("offline", 1, 100), ("offline", 100, 100), ("online", 1, 100), ("online", 100, 100)]


def test_seldom_passes_on_everything_that_takes_long_enough() -> None:
    told = []
    tell = seldom(lambda *step: told.append(step), seconds=0.0)
    for done in range(5):
        tell("online", done, 100)
    assert len(told) == 5

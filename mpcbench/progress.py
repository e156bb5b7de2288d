"""How long work tells what it is doing: one small function type that every room accepts."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Told what is going on, how many steps of it are done, and how many there are."""


def silent(what: str, done: int, total: int) -> None:
    """A :data:`Progress` that shows nothing."""


def seldom(progress: Progress, seconds: float = 0.2) -> Progress:
    """One that passes on what is new or last at once, and the rest not more often than every ``seconds``.

    For steps so short, and timed, that telling of each would be part of what is measured.
    """
    told: tuple[str, float] = ("", 0.0)

    def tell(what: str, done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if what != told[0] or done == total or now - told[1] >= seconds:
            told = what, now
            progress(what, done, total)

    return tell

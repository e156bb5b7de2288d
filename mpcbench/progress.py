"""How long work tells what it is doing: one small function type that every room accepts."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Told what is going on, how many steps of it are done, and how many there are."""


def silent(what: str, done: int, total: int) -> None:
    """A :data:`Progress` that shows nothing."""

"""Progress for people: one bar a step, with the time left, on standard error; lines where that is a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

SILENCE = 30.0
"""Seconds between two lines about a step where there is no terminal to draw a bar on."""


@dataclass(frozen=True)
class Shown:
    """``step(what, done, total)`` moves a bar, ``stage(text)`` writes a line above the bars."""

    step: Callable[[str, int, int], None]
    stage: Callable[[str], None]


@contextmanager
def progress_bars() -> Iterator[Shown]:
    """Bars for the block. Where standard error is no terminal, a line for each stage, and one every
    ``SILENCE`` seconds about a step that takes longer."""
    from mpcbench.cli.output import messages

    console = messages()

    def stage(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if console.is_terminal:
        with _bars(console) as step:
            yield Shown(step, stage)
    else:
        yield Shown(Lines(stage).step, stage)


@contextmanager
def _bars(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("  {task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
        TextColumn("left"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bars:
        current: dict[str, int] = {}

        def step(what: str, done: int, total: int) -> None:
            if what not in current:
                for old in current.values():
                    bars.remove_task(old)
                current.clear()
                current[what] = bars.add_task(what, total=total)
            bars.update(current[what], completed=done, total=total)

        yield step


class Lines:
    """Steps told to ``say`` in lines, for a log: how much of a step is done, and how long the rest will take
    at the pace so far."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self.say, self.clock = say, clock
        self.what, self.done = "", 0
        self.began, self.at_first, self.told = 0.0, 0, 0.0

    def step(self, what: str, done: int, total: int) -> None:
        now = self.clock()
        if what != self.what or done < self.done:
            self.what, self.began, self.at_first, self.told = what, now, done, now
        self.done = done
        if now - self.told < SILENCE or done >= total:
            return
        self.told = now
        line = f"  {what}: {100 * done / total:.0f} %"
        if done > self.at_first:
            left = (now - self.began) / (done - self.at_first) * (total - done)
            line += f", about {in_words(left)} left"
        self.say(line)


def in_words(seconds: float) -> str:
    """A time that is to come, in seconds or minutes."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"

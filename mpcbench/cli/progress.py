"""Progress for people: one bar a step, with the time left, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Shown:
    """``step(what, done, total)`` moves a bar, ``stage(text)`` writes a line above the bars."""

    step: Callable[[str, int, int], None]
    stage: Callable[[str], None]


@contextmanager
def progress_bars() -> Iterator[Shown]:
    """Bars for the block. Where standard error is no terminal, a line is written for each stage only."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from mpcbench.cli.output import messages

    console = messages()
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

        def stage(text: str) -> None:
            console.print(text, highlight=False, markup=False)

        yield Shown(step, stage)

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mpcbench.cli import output
from mpcbench.cli.progress import SILENCE, Lines, in_words, progress_bars


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def told() -> tuple[list[str], Clock, Lines]:
    said, clock = [], Clock()
    return said, clock, Lines(said.append, clock)


def test_a_long_step_is_told_now_and_then_with_the_time_left(told) -> None:
    said, clock, lines = told
    for done in range(101):
        clock.now = done * 6.0
        lines.step("training", done, 100)
    assert len(said) == int(99 * 6.0 / SILENCE)
    assert said[0] == "  training: 5 %, about 10 min left"
    assert said[-1] == "  training: 95 %, about 30 s left"


def test_a_short_step_is_not_told(told) -> None:
    said, clock, lines = told
    for what in ("capturing", "cutting", "scoring"):
        for done in range(11):
            clock.now += 1.0
            lines.step(what, done, 10)
    assert said == []


def test_a_resumed_step_counts_its_own_pace_only(told) -> None:
    said, clock, lines = told
    lines.step("training", 80, 100)
    clock.now = SILENCE
    lines.step("training", 90, 100)
    assert said == ["  training: 90 %, about 30 s left"]


def test_a_step_that_begins_again_forgets_the_last(told) -> None:
    said, clock, lines = told
    lines.step("scoring", 0, 4)
    clock.now = 1e6
    lines.step("scoring", 4, 4)
    lines.step("scoring", 0, 4)
    assert said == []
    clock.now += SILENCE
    lines.step("scoring", 0, 4)
    assert said == ["  scoring: 0 %"]


def test_bars_are_drawn_on_a_terminal_and_lines_written_elsewhere(monkeypatch) -> None:
    for terminal in (True, False):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=80)
        monkeypatch.setattr(output, "messages", lambda console=console: console)
        with progress_bars() as shown:
            shown.stage("model 1 of 2")
            shown.step("scoring", 1, 2)
        assert "model 1 of 2" in file.getvalue()
        assert ("scoring" in file.getvalue()) == terminal


def test_times_in_words() -> None:
    assert (in_words(4.2), in_words(99), in_words(100), in_words(3600)) == ("4 s", "99 s", "2 min", "60 min")

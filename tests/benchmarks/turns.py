"""Two ways to do the same, timed in turns, so that another program's load meets both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def best_of_both(
    benchmark: Any, first: Callable[[], object], second: Callable[[], object], rounds: int
) -> tuple[float, float]:
    """The least processor seconds of each."""
    times: list[tuple[float, float]] = []
    benchmark.pedantic(
        lambda: times.append((_seconds(first), _seconds(second))), rounds=rounds, warmup_rounds=2
    )
    return min(one for one, _ in times), min(other for _, other in times)


def _seconds(how: Callable[[], object]) -> float:
    started = time.process_time()
    how()
    return time.process_time() - started

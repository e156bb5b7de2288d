"""The log of a run, a JSON object a line, and the watch for what goes wrong in deep polynomial students.

Three kinds of lines, told apart by ``event``: ``step`` (loss, its parts, the gradient's norm before
clipping, the largest |gate| of each polynomial layer), ``held_out`` and ``warning``.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from pathlib import Path
from typing import Any

WINDOW = 50
SPIKE = 3.0
"""A loss this many times what nine in ten of the last ``WINDOW`` steps stayed under is a spike; texts of two
kinds in turn, each with a loss of its own, are none."""
GIVE_UP = 5
"""Non-finite steps in a row after which a stage ends."""


class Log:
    """Appends to ``log.jsonl``; opened again after a step, it forgets what came later."""

    def __init__(self, path: Path, stage: int = 0, step: int = -1):
        self.path = path
        kept = [line for line in read_log(path) if (line["stage"], line["step"]) <= (stage, step)]
        path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def write(self, event: str, stage: int, step: int, **values: Any) -> None:
        """Add a line; numbers that are not finite become null, which JSON can hold."""
        line = {"event": event, "stage": stage, "step": step, **{k: _plain(v) for k, v in values.items()}}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a log; a last line cut short by a kill is left out."""
    lines = []
    try:
        for text in path.read_text(encoding="utf-8").splitlines():
            lines.append(json.loads(text))
    except (FileNotFoundError, json.JSONDecodeError):
        pass
    return lines


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Watchdog:
    """Says when a loss spikes or a step is not finite, and what to do about it.

    clipped: whether gradients are; layer_mse: whether the loss has that part; losses: of the steps before.
    """

    def __init__(self, clipped: bool, losses: list[float] | None = None, layer_mse: bool = False):
        self.clipped, self.layer_mse = clipped, layer_mse
        self.losses: deque[float] = deque(losses or [], maxlen=WINDOW)
        self.bad_in_a_row = 0

    def look(self, loss: float, norm: float) -> str | None:
        """A sentence if this step is out of order, else None."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self.bad_in_a_row += 1
            return (
                f"loss {loss} with gradient norm {norm} is not finite: the step is left out; {self._advice()}"
            )
        self.bad_in_a_row = 0
        enough = len(self.losses) >= WINDOW // 5
        high = statistics.quantiles(self.losses, n=10, method="inclusive")[-1] if enough else math.inf
        self.losses.append(loss)
        if loss > SPIKE * high:
            times = f"{loss / high:.1f} times what nine steps in ten before stayed under"
            return f"loss {loss:.3g} is {times}: {self._advice()}"
        return None

    @property
    def hopeless(self) -> bool:
        """Whether so many steps in a row were not finite that going on is pointless."""
        return self.bad_in_a_row >= GIVE_UP

    def _advice(self) -> str:
        if not self.clipped:
            return "clip the gradient (optimiser.clip: 1.0), whose norm grows with every polynomial layer"
        less = "give layer_mse less weight, " if self.layer_mse else ""
        return f"if that happens again and again, lower the rates, {less}or replace fewer layers a stage"

"""The guard: no value is opened unless a fresh mask covers it, or the plan says that it is an output.

Providers report the shape of every mask they hand out. An opening must be of masks that are outstanding,
which it then uses up; anything else (a tensor decrypted in the middle, a mask used twice) raises. The one
planned exception, the output, is announced by name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager


class UnexpectedOpening(RuntimeError):
    """Something was about to be opened that no mask covers: a defect, never a user's mistake."""


class Guard:
    """Counts masked openings and refuses unmasked ones that nobody announced."""

    def __init__(self) -> None:
        self.masked = 0
        self.unmasked: list[str] = []
        self._masks: deque[tuple[int, ...]] = deque()
        self._allowed: str | None = None

    def issue(self, shapes: Iterable[Sequence[int]]) -> None:
        """Fresh masks of these shapes have been handed out."""
        self._masks.extend(tuple(shape) for shape in shapes)

    def opening(self, shapes: Sequence[Sequence[int]]) -> None:
        """Tensors of these shapes are about to be opened together; raises UnexpectedOpening."""
        wanted = [tuple(shape) for shape in shapes]
        if self._allowed is not None and len(wanted) == 1:
            self.unmasked.append(self._allowed)
            self._allowed = None
            return
        for shape in wanted:
            if shape not in self._masks:
                raise UnexpectedOpening(f"opening {wanted} without masks (outstanding: {list(self._masks)})")
            self._masks.remove(shape)
        self.masked += len(wanted)

    def discard(self) -> None:
        """Forget masks that were handed out: what they were for is done again under fresh ones."""
        self._masks.clear()

    @contextmanager
    def output(self, name: str) -> Iterator[None]:
        """Allow one unmasked opening, the planned output ``name``, inside this block, and demand it."""
        if self._masks:
            raise UnexpectedOpening(f"masks were handed out and never used before the output {name}")
        self._allowed = name
        try:
            yield
            if self._allowed is not None:
                raise UnexpectedOpening(f"the output {name} was never opened")
        finally:
            self._allowed = None

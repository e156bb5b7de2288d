"""The guard: no value is opened unless a fresh mask covers it, or the plan says that it is an output.

Providers report every mask that they hand out. An opening of ours names the masks that it subtracts, as the
very tensors that the provider made: each must be outstanding, which it then is no more, and no more of a
value is sent than its mask hides. CrypTen's openings do not say what they subtract: its masks are known by
their shapes alone, apart from ours, and an opening uses up one of each shape. Anything else (a tensor
decrypted in the middle, a mask used twice) raises. The one planned exception, the output, is announced by
name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch


class UnexpectedOpening(RuntimeError):
    """Something was about to be opened that no mask covers: a defect, never a user's mistake."""


class Guard:
    """Counts masked openings and refuses unmasked ones that nobody announced."""

    def __init__(self) -> None:
        self.masked = 0
        self.unmasked: list[str] = []
        self._masks: dict[int, tuple[torch.Tensor, int]] = {}
        self._shapes: deque[tuple[int, ...]] = deque()
        self._allowed: str | None = None

    def issue(self, masks: Iterable[torch.Tensor], bits: int) -> None:
        """These fresh masks (a party's shares), uniform in their low ``bits`` bits, have been handed out."""
        # Each is held until it is used, so that no other tensor can come to have its identity.
        self._masks.update((id(mask), (mask, bits)) for mask in masks)

    def issue_shapes(self, shapes: Iterable[Sequence[int]]) -> None:
        """Fresh masks of these shapes have been handed out to CrypTen's protocols."""
        self._shapes.extend(tuple(shape) for shape in shapes)

    def opening_under(
        self, values: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], widths: Sequence[int]
    ) -> list[int]:
        """So many of the highest bits of each value are about to be opened together, each under its mask.

        Returns how many bits every mask has. Raises UnexpectedOpening where a mask is not outstanding, has
        another shape than its value, or has fewer bits than are to be sent.
        """
        found = []
        for value, mask, width in zip(values, masks, widths, strict=True):
            held, bits = self._masks.pop(id(mask), (None, 0))
            if held is None:
                raise UnexpectedOpening(f"opening {tuple(value.shape)} under a mask that is not outstanding")
            if value.shape != mask.shape or width > bits:
                raise UnexpectedOpening(
                    f"opening {width} bits of {tuple(value.shape)} under a mask of {bits} bits and shape "
                    f"{tuple(mask.shape)}"
                )
            found.append(bits)
        self.masked += len(found)
        return found

    def opening(self, shapes: Sequence[Sequence[int]]) -> None:
        """CrypTen is about to open tensors of these shapes together; raises UnexpectedOpening."""
        wanted = [tuple(shape) for shape in shapes]
        if self._allowed is not None and len(wanted) == 1:
            self.unmasked.append(self._allowed)
            self._allowed = None
            return
        for shape in wanted:
            if shape not in self._shapes:
                raise UnexpectedOpening(f"opening {wanted} without masks (outstanding: {list(self._shapes)})")
            self._shapes.remove(shape)
        self.masked += len(wanted)

    def discard(self) -> None:
        """Forget masks that were handed out: what they were for is done again under fresh ones."""
        self._masks.clear()
        self._shapes.clear()

    @contextmanager
    def output(self, name: str) -> Iterator[None]:
        """Allow one unmasked opening, the planned output ``name``, inside this block, and demand it."""
        if self._masks or self._shapes:
            raise UnexpectedOpening(f"masks were handed out and never used before the output {name}")
        self._allowed = name
        try:
            yield
            if self._allowed is not None:
                raise UnexpectedOpening(f"the output {name} was never opened")
        finally:
            self._allowed = None

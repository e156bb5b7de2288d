"""CrypTen's communicator interface over one full-duplex link, counted and guarded.

Stock CrypTen talks through ``torch.distributed``; this class takes its place behind the same interface
(``crypten.communicator.Communicator``). Byte and round counts of CrypTen's protocols do not change by
it: an opening is still one round in which each party sends its share. What changes is that a round is
one network trip, that everything is entered in a ledger where it is sent, and that every opening passes
a guard. Objects are never sent, so nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mpcbench.compat import import_crypten
from mpcbench.cost.declared import RING_BITS
from mpcbench.secure.guard import Guard
from mpcbench.secure.ledger import Ledger
from mpcbench.secure.packing import joined, packed, rounded_down
from mpcbench.secure.transport import Link

import_crypten()

from crypten.communicator import Communicator  # noqa: E402  (needs the compatibility module first)
from torch.distributed import ReduceOp  # noqa: E402

BYTES_PER_ELEMENT = 8


class LinkCommunicator(Communicator):
    """The communicator of party ``rank`` of two, or of a single party when there is no link.

    With one party the same code computes in fixed point on cleartext "shares": a quick oracle for what
    two parties would compute. It still counts rounds, and bytes as zero.
    """

    BYTES_PER_ELEMENT = BYTES_PER_ELEMENT

    def __init__(self, rank: int = 0, link: Link | None = None):
        self.rank = rank
        self.link = link
        self.ledger = Ledger()
        self.guard = Guard()
        self.common_seed = bytes(16)
        """A seed that both parties hold; exchanged when CrypTen is set up."""
        self.reset_communication_stats()

    # What CrypTen's protocols call for a two-party computation.

    def all_reduce(self, input: Any, op: Any = ReduceOp.SUM, batched: bool = False) -> Any:
        """Open shares to both parties: one exchange, one round, also for a batch of tensors."""
        tensors = input if batched else [input]
        self.guard.opening([tensor.shape for tensor in tensors])
        theirs = self._exchange(tensors)
        opened = [_combine(mine, other, op) for mine, other in zip(tensors, theirs, strict=True)]
        return opened if batched else opened[0]

    def open_high(
        self, values: Sequence[torch.Tensor], masks: Sequence[torch.Tensor], widths: Sequence[int]
    ) -> list[torch.Tensor]:
        """Open int64 shares, less their masks, in one round: so many of the highest bytes of each element.

        A mask of fewer bits than the ring is taken off the highest ones. Both parties' shares are rounded
        down to the bytes that are sent: each sum, modulo 2^64, is less by up to two of their units, and its
        other bytes are zero.
        """
        bits = self.guard.opening_under(values, masks, [8 * width for width in widths])
        hidden = [
            value - (mask << RING_BITS - held if held < RING_BITS else mask)
            for value, mask, held in zip(values, masks, bits, strict=True)
        ]
        pairs = list(zip(hidden, widths, strict=True))
        theirs = self._exchange([s if w == BYTES_PER_ELEMENT else packed(s, w) for s, w in pairs])
        return [
            _combine(share, other, ReduceOp.SUM) if width == BYTES_PER_ELEMENT
            else rounded_down(share, width) if other is None
            else joined(share, other)
            for (share, width), other in zip(pairs, theirs, strict=True)
        ]  # fmt: skip

    def reduce(self, input: Any, dst: int, op: Any = ReduceOp.SUM, batched: bool = False) -> Any:
        """Open shares to party ``dst`` alone: one message, one round. Other parties get None."""
        tensors = input if batched else [input]
        self.guard.opening([tensor.shape for tensor in tensors])
        if self.link is None:
            return [t.clone() for t in tensors] if batched else tensors[0].clone()
        if self.rank != dst:
            self._transmit(tensors, [])
            return None
        theirs = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]
        self._transmit([], theirs)
        opened = [_combine(mine, other, op) for mine, other in zip(tensors, theirs, strict=True)]
        return opened if batched else opened[0]

    def swap(self, mine: torch.Tensor) -> torch.Tensor:
        """Exchange public values of equal shape, such as seeds: one round, and not an opening."""
        return self._exchange([mine])[0] if self.link is not None else mine.clone()

    def barrier(self) -> None:
        """Nothing to do: rounds are exchanges, which keep two parties in step by themselves."""

    def get_world_size(self) -> int:
        """Number of computing parties."""
        return 1 if self.link is None else 2

    def get_rank(self) -> int:
        """This party's rank."""
        return self.rank

    def get_name(self) -> str:
        """This party's name in CrypTen's messages."""
        return f"party {self.rank}"

    def _exchange(self, tensors: list[torch.Tensor]) -> list[torch.Tensor | None]:
        if self.link is None:
            self.ledger.sent(0, 1, 0.0)
            return [None] * len(tensors)
        theirs = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]
        self._transmit(tensors, theirs)
        return theirs

    def _transmit(self, out: list[torch.Tensor], into: list[torch.Tensor]) -> None:
        views = [_view(tensor.contiguous()) for tensor in out]
        waited = self.link.exchange(views, [_view(tensor) for tensor in into])
        self.ledger.sent(sum(view.nbytes for view in views), 1, waited)


def _view(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).numpy()).cast("B") if tensor.numel() else memoryview(b"")


def _combine(mine: torch.Tensor, other: torch.Tensor | None, op: Any) -> torch.Tensor:
    """Sum of arithmetic shares, exclusive or of binary ones."""
    if other is None:
        return mine.clone()
    return other.bitwise_xor_(mine) if op == ReduceOp.BXOR else other.add_(mine)

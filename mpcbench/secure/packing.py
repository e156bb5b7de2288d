"""Ring elements of which only the highest bytes are sent, so that a sum is right to two of their units."""

from __future__ import annotations

import torch

from mpcbench.secure.trig import kernels

WORD = 8


def packed(values: torch.Tensor, width: int) -> torch.Tensor:
    """The ``width`` highest bytes of int64 ``values``: bytes (elements, width), the lowest of them first."""
    flat = values.reshape(-1)
    out = torch.empty(len(flat), width, dtype=torch.uint8)
    kernels().pack(flat.numpy(), out.numpy())
    return out


def rounded_down(values: torch.Tensor, width: int) -> torch.Tensor:
    """What is left of int64 values of which the other party gets ``width`` bytes."""
    rest = 8 * (WORD - width)
    return values >> rest << rest


def joined(mine: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """Modulo 2^64 the sum of what both have left: ``mine`` whole, ``theirs`` as bytes (elements, width)."""
    sums = torch.empty(mine.numel(), dtype=torch.int64)
    kernels().join(mine.reshape(-1).numpy(), theirs.numpy(), sums.numpy())
    return sums.reshape(mine.shape)

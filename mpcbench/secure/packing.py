"""Ring elements of which only the lowest bytes are sent."""

from __future__ import annotations

import torch

WORD = 8


def packed(values: torch.Tensor, width: int) -> torch.Tensor:
    """The lowest ``width`` bytes of int64 ``values`` (n,): bytes (n, width), on a little-endian machine."""
    return values.contiguous().view(torch.uint8).reshape(-1, WORD)[:, :width].contiguous()


def unpacked(sent: torch.Tensor) -> torch.Tensor:
    """Bytes (n, width) as int64 (n,) from 0 to 2^(8 width) - 1."""
    words = torch.zeros(sent.shape[0], WORD, dtype=torch.uint8)
    words[:, : sent.shape[1]] = sent
    return words.view(torch.int64).reshape(-1)

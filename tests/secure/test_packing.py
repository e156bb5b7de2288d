"""Low bytes of ring elements, there and back."""

from __future__ import annotations

import pytest
import torch

from mpcbench.secure.packing import packed, unpacked
from mpcbench.secure.randomness.prg import fresh_seed, words


@pytest.mark.parametrize("width", [1, 3, 5, 8])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_low_bytes_come_back(width: int, count: int) -> None:
    values = words(fresh_seed(), 0, count)
    sent = packed(values, width)
    assert (sent.dtype, sent.shape) == (torch.uint8, (count, width))
    mask = (1 << 8 * width) - 1 if width < 8 else -1
    assert unpacked(sent).equal(values & mask)


def test_a_view_with_gaps_is_packed_as_it_reads() -> None:
    values = torch.arange(20)[::2]
    assert unpacked(packed(values, 2)).equal(values)

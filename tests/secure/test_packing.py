"""High bytes of ring elements, there and back."""

from __future__ import annotations

import pytest
import torch

from mpcbench.secure.packing import joined, packed, rounded_down
from mpcbench.secure.randomness.prg import fresh_seed, words

WIDTHS = [1, 3, 6, 8]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("shape", [(0,), (1,), (1000,), (3, 5, 7)])
def test_high_bytes_add_up_modulo_the_ring(width: int, shape: tuple[int, ...]) -> None:
    count = torch.Size(shape).numel()
    mine, theirs = (words(fresh_seed(), n, count).reshape(shape) for n in (0, 1))
    sent = packed(theirs, width)
    assert (sent.dtype, sent.shape) == (torch.uint8, (count, width))
    assert joined(mine, sent).equal(rounded_down(mine, width) + rounded_down(theirs, width))


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_not_sent_is_rounded_down(width: int) -> None:
    values = words(fresh_seed(), 0, 1000)
    lost = values - rounded_down(values, width)
    assert int(lost.min()) >= 0
    assert int(lost.max()) < 1 << 8 * (8 - width)


def test_the_lowest_byte_that_is_sent_comes_first() -> None:
    assert packed(torch.tensor([0x0102030405060708]), 3).tolist() == [[3, 2, 1]]


def test_a_view_with_gaps_is_packed_as_it_reads() -> None:
    values = words(fresh_seed(), 0, 20)[::2]
    assert packed(values, 6).equal(packed(values.clone(), 6))

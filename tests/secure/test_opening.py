"""Truncation that comes with an opening: unbiased, within one unit, repeated where it might fail."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch

from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.guard import UnexpectedOpening
from mpcbench.secure.opening import Cut, Wrapped, may_have_wrapped, open_under, opened, repeated
from mpcbench.secure.packing import packed
from mpcbench.secure.randomness.linear import Linear
from mpcbench.secure.randomness.prg import fresh_seed, words
from mpcbench.secure.ring import truncated_locally
from tests.secure.single import one_party

SHIFT = 16
WIDTHS = (6, 7)
"""Bytes that the openings of frontier send of an element."""


class Peer:
    """Stands in for the link to party 1, which sends what its share ``hidden`` is rounded down to."""

    peer = "party 1"
    hidden: torch.Tensor

    def exchange(self, out: Sequence[memoryview], into: Sequence[memoryview]) -> float:
        (view,) = into
        width = view.nbytes // self.hidden.numel()
        sent = packed(self.hidden, width) if width < 8 else self.hidden.view(torch.uint8)
        torch.frombuffer(view, dtype=torch.uint8).copy_(sent.reshape(-1))
        return 0.0


class Two:
    """Party 0 as it runs, with a party 1 that is played here; ``opened`` is the latest opened difference."""

    def __init__(self, communicator: LinkCommunicator):
        self.communicator, self.peer = communicator, Peer()
        communicator.link = self.peer
        usual = communicator.open_high

        def recorded(*arguments: Any) -> list[torch.Tensor]:
            public = usual(*arguments)
            self.opened = public[0].clone()
            return public

        communicator.open_high = recorded

    def open_under(self, share: torch.Tensor, hidden: torch.Tensor, cut: Cut) -> torch.Tensor:
        """``share`` at party 0, whose share of the mask is zero, with what party 1 has after its own."""
        self.peer.hidden = hidden
        mask = torch.zeros_like(share)
        self.communicator.guard.issue([mask], 64)
        return open_under([share], [mask], [cut])[0]

    def truncated_locally(self, shares: Sequence[torch.Tensor], bits: int) -> torch.Tensor:
        """What both parties' shares add up to when each cuts its own."""
        total = 0
        for rank, share in enumerate(shares):
            self.communicator.rank = rank
            total = total + truncated_locally(share, bits, 0)
        self.communicator.rank = 0
        return total


@pytest.fixture
def two() -> Iterator[Two]:
    with one_party() as communicator:
        yield Two(communicator)


@pytest.mark.parametrize(("width", "deviation"), [(8, 0.41), (7, 0.41), (6, 0.5)])
def test_error_is_at_most_its_bound_and_zero_on_average(two: Two, width: int, deviation: float) -> None:
    count, cut = 1 << 18, Cut(SHIFT, 2.0**39, width=width)
    values, share = words(fresh_seed(), 0, count) >> 24, words(fresh_seed(), 0, count)
    while True:
        mask = words(fresh_seed(), 0, count)
        with suppress(Wrapped):  # one attempt in 64
            made = two.open_under(share, values - share - mask, cut) + (mask >> SHIFT)
            break
    error = made.double() - values.double() / 2.0**SHIFT
    assert error.abs().max() <= 1 + 1.5 * 2.0 ** (cut.unsent - SHIFT)
    assert abs(float(error.mean())) < 6 * deviation / math.sqrt(count)
    assert float(error.std()) == pytest.approx(deviation, abs=0.01)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on busy cores would take minutes for a sum of seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("elements", [10**8])
def test_checked_never_fails_and_local_fails_at_its_rate(two: Two, elements: int) -> None:
    """Values of 2^46 as integers: one in 2^18 wraps. In pieces, so that it takes little memory."""
    size, piece = 1 << 46, 1 << 14
    cuts = [Cut(SHIFT, float(size), width=width) for width in WIDTHS]
    values = torch.full((piece,), size - 1, dtype=torch.int64)
    values[::2] *= -1
    right = values >> SHIFT
    failures = asked = unnoticed = local = 0
    seed = fresh_seed()
    for number in range(-(-elements // piece)):
        count, cut = min(piece, elements - number * piece), cuts[number % 2]
        share, mask = words(seed, number, 2 * count).split(count)
        other = values[:count] - share
        raised = False
        try:
            two.open_under(share, other - mask, cut)
        except Wrapped:
            raised = True
        z = two.opened
        wrong = ((z >> SHIFT) + (mask >> SHIFT) - right[:count]).abs() > 3
        near_edge = (z > (1 << 63) - 1 - cut.reach()[2]) | (z < -((1 << 63) - 1 - cut.reach()[2]))
        assert raised == bool(near_edge.any())
        failures += int(wrong.sum())
        asked += int(near_edge.sum())
        unnoticed += int((wrong & ~near_edge).sum())
        local += int(((two.truncated_locally((share, other), SHIFT) - right[:count]).abs() > 1).sum())
    assert unnoticed == 0
    expected = elements * size / 2.0**64
    for count, mean in ((failures, expected), (asked, 2 * expected), (local, expected)):
        assert abs(count - mean) < 6 * math.sqrt(mean), (failures, asked, local, expected)


def _signed(number: int) -> torch.Tensor:
    return torch.tensor([(number + (1 << 63)) % (1 << 64) - (1 << 63)])


@pytest.mark.parametrize("width", [6, 7, 8])
def test_nothing_fails_unnoticed_at_the_edge_where_rounding_is_larger_than_the_bound(
    two: Two, width: int
) -> None:
    cut, noticed = Cut(19, 1.0, width=width), 0
    step = 1 << cut.unsent
    points = [
        side * ((1 << 63) - step * k) for side in (1, -1) for k in range(1, 2**21 // step, 2**15 // step or 1)
    ]
    for z, y, lows in itertools.product(points, (-1, 1), ((0, 0), (step - 1, step - 1))):
        hidden = [_signed(lows[0]), _signed(z + lows[1])]
        mask = _signed(y + cut.rounding - sum(lows) - z)
        try:
            made = two.open_under(hidden[0] - cut.rounding, hidden[1], cut) + (mask >> cut.shift)
        except Wrapped:
            noticed += 1
            continue
        assert abs(int(made)) <= 2, (z, y, lows)
    assert 0 < noticed < len(points) * 4


def _recipe() -> Linear:
    return Linear(size=(2, 3), weights=(), columns=(), shift=SHIFT)


def test_opening_is_repeated_under_a_fresh_mask_and_entered_apart() -> None:
    with one_party() as communicator:
        seen: list[torch.Tensor] = []

        def step(again: bool) -> torch.Tensor:
            from mpcbench.secure.substrate import provider

            shares = provider().request(_recipe(), again)
            seen.append(shares[0])
            (public,) = open_under([torch.zeros(2, 3, dtype=torch.int64)], shares, [Cut(SHIFT, 1.0)])
            if len(seen) < 3:
                raise Wrapped
            return public

        with communicator.ledger.scope("online", 0, "m", "o"):
            repeated(step)
        assert len({tuple(mask.flatten().tolist()) for mask in seen}) == 3
        rounds = {scope.operator: t.rounds for scope, t in communicator.ledger.tallies.items() if t.rounds}
        assert rounds == {"o": 1, "repetition": 2}


def test_attempt_that_fails_half_way_is_entered_apart_as_a_whole() -> None:
    """What an operator's scope holds must not depend on chance: the attempt that counts is the last."""
    with one_party() as communicator:
        attempts: list[bool] = []

        def step(again: bool) -> str:
            attempts.append(again)
            communicator.ledger.sent(8, 1, 0.0)
            with communicator.ledger.offline():
                communicator.ledger.tuples("norm", 5)
            if len(attempts) < 3:
                raise Wrapped
            communicator.ledger.sent(24, 2, 0.0)
            return "done"

        with communicator.ledger.scope("online", 0, "m", "o"):
            assert repeated(step) == "done"
        assert attempts == [False, True, True]
        found = {
            (scope.phase, scope.operator): (tally.bytes_sent, tally.rounds, tally.tuples["norm"])
            for scope, tally in communicator.ledger.tallies.items()
            if scope.module == "m"
        }
        assert found == {
            ("online", "o"): (32, 3, 0), ("offline", "o"): (0, 0, 5),
            ("online", "repetition"): (16, 2, 0), ("offline", "repetition"): (0, 0, 10),
        }  # fmt: skip


def test_opening_that_never_fits_is_a_defect_that_names_the_module() -> None:
    with one_party() as communicator, communicator.ledger.scope("online", 0, "layers.0.mlp", "linear"):
        cut = Cut(SHIFT, 2.0**62)  # every second mask lies that near to the edge
        values = [torch.zeros(64, 64, dtype=torch.int64)]
        recipe = Linear(size=(64, 64), weights=(), columns=(), shift=SHIFT)
        with pytest.raises(RuntimeError, match=r"layers\.0\.mlp .*again and again"):
            opened(recipe, values, [cut])


def test_mask_of_an_activation_is_used_once() -> None:
    with one_party() as communicator, communicator.ledger.scope("online", 0, "m", "o"):
        from mpcbench.secure.substrate import provider

        shares = provider().request(_recipe())
        values, cut = [torch.zeros(2, 3, dtype=torch.int64)], Cut(SHIFT, 1.0)  # no mask is near the edge
        open_under(values, shares, [cut])
        with pytest.raises(UnexpectedOpening):
            open_under(values, shares, [cut])


def test_unchecked_cut_asks_for_nothing() -> None:
    edge = torch.tensor([(1 << 63) - 1])
    assert may_have_wrapped(edge, Cut(SHIFT, 1.0))
    assert not may_have_wrapped(edge, Cut(SHIFT, 1.0, checked=False))
    assert not may_have_wrapped(edge, Cut(0))
    assert not may_have_wrapped(torch.empty(0, dtype=torch.int64), Cut(SHIFT))


def test_first_elements_have_a_bound_of_their_own() -> None:
    z = torch.tensor([(1 << 63) - (1 << 50), 0, 0])
    assert may_have_wrapped(z, Cut(SHIFT, 1.0, True, (1, 2.0**51)))
    assert not may_have_wrapped(z, Cut(SHIFT, 2.0**51, True, (1, 1.0)))

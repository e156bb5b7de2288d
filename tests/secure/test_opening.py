"""Truncation that comes with an opening: unbiased, within one unit, repeated where it might fail."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from mpcbench.secure.guard import UnexpectedOpening
from mpcbench.secure.opening import Cut, Wrapped, may_have_wrapped, open_under, opened, repeated
from mpcbench.secure.randomness.linear import Linear
from mpcbench.secure.randomness.prg import fresh_seed, words
from tests.secure.single import one_party

SHIFT = 16


def cut_opening(values: torch.Tensor, mask: torch.Tensor, shift: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The opened difference and what both halves of it add up to, as the protocol computes them."""
    z = values + ((1 << shift) - 1) - mask
    return z, (z >> shift) + (mask >> shift)


def test_error_is_at_most_one_unit_and_zero_on_average() -> None:
    count = 1 << 18
    values = words(fresh_seed(), 0, count) >> 24
    _, cut = cut_opening(values, words(fresh_seed(), 1, count), SHIFT)
    error = cut.double() - values.double() / 2.0**SHIFT
    assert error.abs().max() < 1
    assert abs(float(error.mean())) < 6 * 0.41 / math.sqrt(count)
    assert float(error.std()) == pytest.approx(0.41, abs=0.01)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on busy cores would take minutes for a sum of seconds."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("elements", [10**8])
def test_checked_never_fails_and_local_fails_at_its_rate(elements: int) -> None:
    """Values of 2^46 as integers: one in 2^18 wraps. In pieces, so that it takes little memory."""
    size, piece = 1 << 46, 1 << 17
    bound = float(size)
    values = torch.full((piece,), size - 1, dtype=torch.int64)
    values[::2] *= -1
    right = values >> SHIFT
    failures = asked = unnoticed = 0
    seed = fresh_seed()
    for number in range(-(-elements // piece)):
        count = min(piece, elements - number * piece)
        z, cut = cut_opening(values[:count], words(seed, number, count), SHIFT)
        wrong = (cut - right[:count]).abs() > 1
        near_edge = (z > (1 << 63) - 1 - size) | (z < -((1 << 63) - 1 - size))
        failures += int(wrong.sum())
        asked += int(near_edge.sum())
        unnoticed += int((wrong & ~near_edge).sum())
        assert may_have_wrapped(z, Cut(SHIFT, bound)) == bool(near_edge.any())
    assert unnoticed == 0
    expected = elements * size / 2.0**64
    for count, mean in ((failures, expected), (asked, 2 * expected)):
        assert abs(count - mean) < 6 * math.sqrt(mean), (failures, asked, expected)


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
        values = [torch.zeros(2, 3, dtype=torch.int64)]
        open_under(values, shares, [Cut(SHIFT)])
        with pytest.raises(UnexpectedOpening):
            open_under(values, shares, [Cut(SHIFT)])


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

"""The communicator: sums come out, bytes and rounds are counted where they are sent, objects never are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mpcbench.secure.communicator import LinkCommunicator
from tests.secure.single import one_party
from tests.secure.two import MOVES, mine

Both = tuple[dict, dict]


def _values(both: Both, move: str) -> list[list]:
    return [party["moves"][move]["values"] for party in both]


def _sum(*shape: int) -> np.ndarray:
    return (mine(0, *shape) + mine(1, *shape)).numpy()


def test_all_reduce_opens_to_both(both: Both) -> None:
    for (value,) in _values(both, "all_reduce"):
        assert (value == _sum(3, 4)).all()
    for (value,) in _values(both, "transposed"):
        assert (value == _sum(3, 4).T).all()


def test_all_reduce_of_binary_shares_is_exclusive_or(both: Both) -> None:
    for (value,) in _values(both, "xor"):
        assert (value == (mine(0, 3, 4) ^ mine(1, 3, 4)).numpy()).all()


def test_batch_is_opened_tensor_by_tensor_in_one_round(both: Both) -> None:
    for first, second in _values(both, "batch"):
        assert (first == _sum(2)).all()
        assert (second == _sum(5)).all()
    assert [party["moves"]["batch"]["rounds"] for party in both] == [1, 1]


def test_reduce_opens_to_one_party_alone(both: Both) -> None:
    (hidden,), (opened,) = _values(both, "reduce")
    assert hidden is None
    assert (opened == _sum(3, 4)).all()


def test_high_bytes_are_opened_alone(both: Both) -> None:
    for high, whole in _values(both, "high"):
        assert (whole == _sum(2, 3)).all()
        assert (high % 2**40 == 0).all()
        lost = _sum(12) - high
        assert (lost >= 0).all() and (lost < 2**41).all()


def test_swap_is_an_exchange_and_no_opening(both: Both) -> None:
    (first,), (second,) = _values(both, "swap")
    assert (first == mine(1, 6).numpy()).all()
    assert (second == mine(0, 6).numpy()).all()
    assert both[0]["moves"]["swap"]["masked"] == 0


def test_empty_tensor_can_be_opened(both: Both) -> None:
    assert [value.shape for (value,) in _values(both, "nothing")] == [(0, 4), (0, 4)]


@pytest.mark.parametrize(
    ("move", "sent", "rounds", "masked"),
    [
        ("all_reduce", (96, 96), 1, 1),
        ("transposed", (96, 96), 1, 1),
        ("xor", (96, 96), 1, 1),
        ("batch", (56, 56), 1, 2),
        ("reduce", (96, 0), 1, 1),
        ("high", (84, 84), 1, 2),
        ("nothing", (0, 0), 1, 1),
        ("swap", (48, 48), 1, 0),
        ("barrier", (0, 0), 0, 0),
        # Masked operands of 6x8 and 8x5 from each party, then party 1's share of the product alone.
        ("product", (8 * (48 + 40), 8 * (48 + 40 + 30)), 2, 2),
    ],
)
def test_bytes_rounds_and_masks(both: Both, move: str, sent: tuple, rounds: int, masked: int) -> None:
    assert tuple(party["moves"][move]["bytes"] for party in both) == sent
    assert [party["moves"][move]["rounds"] for party in both] == [rounds, rounds]
    assert [party["moves"][move]["masked"] for party in both] == [masked, masked]


@pytest.mark.parametrize("move", MOVES)
def test_ledger_agrees_with_the_wire(both: Both, move: str) -> None:
    for party in both:
        assert party["moves"][move]["wire"] == party["moves"][move]["bytes"]


def test_product_is_right(both: Both) -> None:
    (opened,), (nothing,) = _values(both, "product")
    generator = torch.Generator().manual_seed(1)
    expected = torch.randn(6, 8, generator=generator) @ torch.randn(8, 5, generator=generator)
    assert nothing is None
    assert np.abs(opened / 2.0**16 - expected.numpy()).max() < 1e-3


def test_parties_know_who_they_are(both: Both) -> None:
    assert [party["about"] for party in both] == [(0, 2, "party 0"), (1, 2, "party 1")]


def test_objects_cannot_be_sent(both: Both) -> None:
    for party in both:
        assert party["objects"] == ["not available"] * 3


def test_one_party_opens_to_itself_and_sends_nothing() -> None:
    with one_party() as communicator:
        communicator.guard.issue_shapes([(2,), (2,), (2,)])
        x = torch.tensor([3, -4])
        opened = [communicator.all_reduce(x), *communicator.all_reduce([x], batched=True)]
        opened.append(communicator.reduce(x, dst=0))
        before = communicator.ledger.total("online")
    assert all(value.equal(x) and value is not x for value in opened)
    assert (communicator.get_world_size(), communicator.get_rank()) == (1, 0)
    assert before.bytes_sent == 0
    assert before.rounds >= 2


def test_one_party_opens_high_bytes_to_itself() -> None:
    with one_party() as communicator:
        masks = [torch.zeros(3, dtype=torch.int64), torch.tensor([2])]
        communicator.guard.issue(masks, 64)
        values = [torch.tensor([3, -4, 5 << 48]), torch.tensor([7])]
        high, whole = communicator.open_high(values, masks, [2, 8])
    assert (high.tolist(), whole.tolist()) == ([0, -(1 << 48), 5 << 48], [5])


def test_a_narrow_mask_is_taken_off_the_highest_bits() -> None:
    with one_party() as communicator:
        masks = [torch.tensor([3, 5])]
        communicator.guard.issue(masks, 8)
        (opened,) = communicator.open_high([torch.tensor([9 << 56, 5 << 56 | 1 << 55])], masks, [1])
    assert opened.tolist() == [6 << 56, 0]


def test_opening_outside_every_scope_is_a_defect() -> None:
    communicator = LinkCommunicator()
    communicator.guard.issue_shapes([(1,)])
    with pytest.raises(RuntimeError, match="outside every scope"):
        communicator.all_reduce(torch.zeros(1, dtype=torch.int64))

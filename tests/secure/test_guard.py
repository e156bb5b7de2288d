"""The guard: nothing is opened without a fresh mask, but the one output that was announced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.guard import Guard, UnexpectedOpening
from mpcbench.secure.opening import EXACT, Cut, open_under
from mpcbench.secure.randomness.activations import Products
from mpcbench.secure.randomness.series import Trig
from mpcbench.secure.substrate import crypten, provider
from tests.secure.single import one_party


def test_masked_openings_pass_and_are_counted() -> None:
    guard = Guard()
    guard.issue_shapes([(2, 3), (3, 4)])
    guard.opening([(2, 3), (3, 4)])
    guard.issue_shapes([torch.Size([5])])
    guard.opening([torch.Size([5])])
    assert (guard.masked, guard.unmasked) == (3, [])


def test_masks_may_be_used_in_several_openings() -> None:
    guard = Guard()
    guard.issue_shapes([(2,), (3,)])
    guard.opening([(2,)])
    guard.opening([(3,)])
    assert guard.masked == 2


def test_opening_without_a_mask_raises() -> None:
    with pytest.raises(UnexpectedOpening, match=r"opening \[\(2, 3\)\] without masks"):
        Guard().opening([(2, 3)])


@pytest.mark.parametrize("opened", [[(3, 2)], [(6,)], [(2, 3), (2, 3)], [(2, 3), ()]])
def test_opening_of_another_shape_raises(opened: list) -> None:
    guard = Guard()
    guard.issue_shapes([(2, 3)])
    with pytest.raises(UnexpectedOpening):
        guard.opening(opened)
    assert guard.masked == 0


def test_mask_serves_once() -> None:
    guard = Guard()
    guard.issue_shapes([(4,)])
    guard.opening([(4,)])
    with pytest.raises(UnexpectedOpening):
        guard.opening([(4,)])


def _zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def test_masks_of_ours_are_known_by_identity_and_used_once() -> None:
    guard, masks, value = Guard(), [_zeros(4), _zeros(4)], _zeros(4)
    guard.issue(masks, 64)
    for other in (_zeros(4), masks[0].clone(), masks[0][:]):
        with pytest.raises(UnexpectedOpening, match="not outstanding"):
            guard.opening_under([value], [other], [64])
    assert guard.opening_under([value], masks[:1], [48]) == [64]
    with pytest.raises(UnexpectedOpening, match="not outstanding"):
        guard.opening_under([value], masks[:1], [64])
    with pytest.raises(UnexpectedOpening, match="not outstanding"):
        guard.opening_under([value, value], [masks[1], masks[1]], [64, 64])
    assert guard.masked == 1


def test_a_mask_that_is_gone_lends_its_identity_to_no_other() -> None:
    guard = Guard()
    guard.issue([_zeros(1)], 64)
    assert all(id(_zeros(1)) not in guard._masks for _ in range(100))


@pytest.mark.parametrize(("shape", "width"), [((4,), 25), ((4,), 64), ((2, 2), 24), ((1,), 24)])
def test_a_mask_that_does_not_cover_what_is_sent_is_refused(shape: tuple, width: int) -> None:
    guard, mask = Guard(), _zeros(4)
    guard.issue([mask], 24)
    with pytest.raises(UnexpectedOpening, match="under a mask of 24 bits"):
        guard.opening_under([_zeros(*shape)], [mask], [width])


def test_masks_of_ours_and_of_crypten_do_not_serve_for_each_other() -> None:
    guard, mask = Guard(), _zeros(4)
    guard.issue([mask], 64)
    with pytest.raises(UnexpectedOpening):
        guard.opening([(4,)])
    guard.discard()
    guard.issue_shapes([(4,)])
    with pytest.raises(UnexpectedOpening):
        guard.opening_under([_zeros(4)], [mask], [64])


def test_output_allows_one_unmasked_opening() -> None:
    guard = Guard()
    with guard.output("logits"):
        guard.opening([(1, 9)])
    assert (guard.masked, guard.unmasked) == (0, ["logits"])
    with pytest.raises(UnexpectedOpening):
        guard.opening([(1, 9)])


def test_second_opening_as_output_is_refused_before_it_happens() -> None:
    guard, reached = Guard(), []
    with pytest.raises(UnexpectedOpening), guard.output("logits"):
        guard.opening([(1, 9)])
        guard.opening([(1, 9)])
        reached.append("sent")
    assert not reached
    assert guard.unmasked == ["logits"]


def test_output_is_one_tensor() -> None:
    guard = Guard()
    with pytest.raises(UnexpectedOpening), guard.output("logits"):
        guard.opening([(1, 9), (1, 9)])
    assert guard.unmasked == []


def test_output_that_is_never_opened_raises() -> None:
    with pytest.raises(UnexpectedOpening, match="never opened"), Guard().output("logits"):
        pass


def test_masks_left_over_before_the_output_raise() -> None:
    guard = Guard()
    for issue in (lambda: guard.issue_shapes([(4,)]), lambda: guard.issue([_zeros(4)], 64)):
        issue()
        with pytest.raises(UnexpectedOpening, match="never used before"), guard.output("logits"):
            guard.opening([(1, 9)])
        guard.discard()


# Openings of ours, with a real provider.


@pytest.mark.parametrize("rounds", [1, 2])
def test_two_values_under_one_mask_are_refused(rounds: int) -> None:
    """In one opening, and in two."""
    values = [_zeros(2, 3) + 1, _zeros(2, 3) + 2]
    with one_party() as communicator:
        x_mask, y_mask, *_ = provider().request(Products(size=(2, 3), shifts=(0, 0)))
        with pytest.raises(UnexpectedOpening, match="not outstanding"):
            if rounds == 1:
                open_under(values, [x_mask, x_mask])
            else:
                open_under(values[:1], [x_mask])
                open_under(values[1:], [x_mask])
        assert communicator.ledger.total("online").rounds == rounds - 1
        with pytest.raises(UnexpectedOpening, match="outstanding"):
            open_under(values[1:], [y_mask + 0])


@pytest.mark.parametrize("cut", [EXACT, Cut(16, width=6)])
def test_a_whole_opening_under_a_narrow_mask_is_refused(cut: Cut) -> None:
    with one_party():
        mask, *_ = provider().request(Trig(size=(5,), harmonics=1, trig_bits=16))
        with pytest.raises(UnexpectedOpening, match="under a mask of 24 bits"):
            open_under([_zeros(5)], [mask], [cut])


# With real CrypTen.


@pytest.fixture
def party() -> Iterator[LinkCommunicator]:
    with one_party() as communicator:
        yield communicator


OPERATIONS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any, Any], torch.Tensor]]] = {
    "mul": (lambda x, y: x * y, lambda x, y: x * y),
    "matmul": (lambda x, y: x.matmul(y), lambda x, y: x @ y),
    "square": (lambda x, y: x.square(), lambda x, y: x.square()),
    "softmax": (lambda x, y: x.softmax(-1), lambda x, y: x.softmax(-1)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_crypten_operations_pass(party: LinkCommunicator, name: str) -> None:
    secure, plain = OPERATIONS[name]
    x, y = torch.linspace(-2, 2, 16).reshape(4, 4), torch.linspace(3, -1, 16).reshape(4, 4)
    result = secure(crypten.cryptensor(x), crypten.cryptensor(y))
    assert party.guard.masked > 0
    assert party.guard.unmasked == []
    with party.guard.output("result"):
        opened = result.get_plain_text()
    torch.testing.assert_close(opened, plain(x, y), atol=0.01, rtol=0)
    assert party.guard.unmasked == ["result"]


@pytest.mark.parametrize("how", ["get_plain_text", "reveal"])
def test_decrypting_in_the_middle_raises(party: LinkCommunicator, how: str) -> None:
    x = crypten.cryptensor(torch.randn(4, 4))
    y = x * x
    with pytest.raises(UnexpectedOpening):
        getattr(y, how)()
    with pytest.raises(UnexpectedOpening):
        y.reveal(dst=0)
    assert party.guard.unmasked == []


def test_comparison_reveals_nothing_unmasked(party: LinkCommunicator) -> None:
    x = crypten.cryptensor(torch.tensor([[-1.5, 2.0, 0.25]]))
    positive = x > 0
    with party.guard.output("signs"):
        assert positive.get_plain_text().tolist() == [[0, 1, 1]]

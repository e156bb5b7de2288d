"""The guard: nothing is opened without a fresh mask, but the one output that was announced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.guard import Guard, UnexpectedOpening
from mpcbench.secure.substrate import crypten
from tests.secure.single import one_party


def test_masked_openings_pass_and_are_counted() -> None:
    guard = Guard()
    guard.issue([(2, 3), (3, 4)])
    guard.opening([(2, 3), (3, 4)])
    guard.issue([torch.Size([5])])
    guard.opening([torch.Size([5])])
    assert (guard.masked, guard.unmasked) == (3, [])


def test_masks_may_be_used_in_several_openings() -> None:
    guard = Guard()
    guard.issue([(2,), (3,)])
    guard.opening([(2,)])
    guard.opening([(3,)])
    assert guard.masked == 2


def test_opening_without_a_mask_raises() -> None:
    with pytest.raises(UnexpectedOpening, match=r"opening \[\(2, 3\)\] without masks"):
        Guard().opening([(2, 3)])


@pytest.mark.parametrize("opened", [[(3, 2)], [(6,)], [(2, 3), (2, 3)], [(2, 3), ()]])
def test_opening_of_another_shape_raises(opened: list) -> None:
    guard = Guard()
    guard.issue([(2, 3)])
    with pytest.raises(UnexpectedOpening):
        guard.opening(opened)
    assert guard.masked == 0


def test_mask_serves_once() -> None:
    guard = Guard()
    guard.issue([(4,)])
    guard.opening([(4,)])
    with pytest.raises(UnexpectedOpening):
        guard.opening([(4,)])


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
    guard.issue([(4,)])
    with pytest.raises(UnexpectedOpening, match="never used before"), guard.output("logits"):
        guard.opening([(1, 9)])


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

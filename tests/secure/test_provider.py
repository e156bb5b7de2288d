"""The first-party provider: tuples are right, counted as offline, and party 1's shares say nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.guard import UnexpectedOpening
from mpcbench.secure.provider import FirstPartyProvider
from mpcbench.secure.randomness.stock import product_size
from tests.secure.two import REQUESTS, ROWS

Both = tuple[dict, dict]


def _open(both: Both, name: str) -> list[np.ndarray]:
    first, second = (party["tuples"][name]["shares"] for party in both)
    return [a + b for a, b in zip(first, second, strict=True)]


@pytest.mark.parametrize("name", ["mul", "broadcast", "many"])
def test_multiplication_triples(both: Both, name: str) -> None:
    a, b, c = _open(both, name)
    assert (a * b == c).all()  # modulo 2^64
    assert len(np.unique(a)) == a.size


@pytest.mark.parametrize("name", ["matmul", "batched"])
def test_matrix_triples(both: Both, name: str) -> None:
    a, b, c = _open(both, name)
    assert c.shape == np.matmul(a, b).shape
    assert (np.matmul(a, b) == c).all()


@pytest.mark.parametrize("name", ["square", "many squares"])
def test_squares(both: Both, name: str) -> None:
    r, r2 = _open(both, name)
    assert (r * r == r2).all()
    assert len(np.unique(r)) == r.size


@pytest.mark.parametrize("name", ["binary", "many words"])
def test_binary_triples(both: Both, name: str) -> None:
    first, second = (party["tuples"][name]["shares"] for party in both)
    a, b, c = (x ^ y for x, y in zip(first, second, strict=True))
    assert (a & b == c).all()
    assert len(np.unique(a)) == a.size


def test_bits_are_the_same_in_both_sharings(both: Both) -> None:
    (first, first_words), (second, second_words) = (party["tuples"]["bit"]["shares"] for party in both)
    bits = first + second
    assert set(bits.tolist()) == {0, 1}
    assert (first_words ^ second_words == bits).all()
    assert abs(bits.mean() - 0.5) < 6 * 0.5 / math.sqrt(ROWS)


SHARES = [("many", 3), ("many squares", 2), ("many words", 3), ("bit", 1)]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("name", "index"), [(name, i) for name, count in SHARES for i in range(count)])
def test_one_partys_shares_are_uniform(both: Both, rank: int, name: str, index: int) -> None:
    """All 64 bits of a share are fair coins, within six standard deviations."""
    words = both[rank]["tuples"][name]["shares"][index].view(np.uint64)
    ones = np.unpackbits(words.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert ones.shape == (64,)
    assert np.abs(ones - 0.5).max() < 6 * 0.5 / math.sqrt(ROWS)


@pytest.mark.parametrize(
    ("name", "tuples"),
    [
        ("mul", {"mul_triple": 12}),
        ("broadcast", {"mul_triple": 12}),
        ("matmul", {"matmul_triple": 10}),
        ("batched", {"matmul_triple": 20}),
        ("square", {"square": 10}),
        ("binary", {"binary_triple": 7}),
        ("bit", {"bit": ROWS}),
        ("many", {"mul_triple": ROWS}),
    ],
)
def test_requests_are_counted_offline_at_both(both: Both, name: str, tuples: dict) -> None:
    for party in both:
        answer = party["tuples"][name]
        assert answer["offline"] == {"bytes": 0, "rounds": 0, "tuples": tuples}
        assert (answer["bytes"], answer["rounds"], answer["online_tuples"]) == (0, 0, {})


@pytest.mark.parametrize("name", REQUESTS)
def test_tuples_need_no_communication(both: Both, name: str) -> None:
    assert [party["tuples"][name]["wire"] for party in both] == [0, 0]


@pytest.mark.parametrize("op", ["mul", "matmul"])
@pytest.mark.parametrize(
    ("left", "right"), [((3, 4, 4), (4, 4)), ((2, 1, 4, 4), (3, 4, 4)), ((5, 5), (5, 5))]
)
def test_product_size_is_torchs(op: str, left: tuple, right: tuple) -> None:
    assert product_size(left, right, op) == getattr(torch, op)(torch.zeros(left), torch.zeros(right)).shape


def test_product_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="conv1d"):
        product_size((1, 2), (2, 3), "conv1d")


def test_request_outside_every_scope_is_a_defect() -> None:
    communicator = LinkCommunicator()
    with pytest.raises(RuntimeError, match="outside every scope"):
        FirstPartyProvider(communicator).square((3,))
    with pytest.raises(UnexpectedOpening):
        communicator.guard.opening([(3,)])  # no mask has been handed out either


def test_provider_says_that_it_is_insecure() -> None:
    assert FirstPartyProvider.SECURE is False

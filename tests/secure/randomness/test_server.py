"""The dealer's conversation with two parties, over real connections in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import mpcbench
from mpcbench.errors import PeerError
from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.dealt import DealerProvider
from mpcbench.secure.randomness.server import serve, welcome
from mpcbench.secure.randomness.stock import Product, Square
from tests.secure.links import links, outcomes, together


@contextmanager
def dealer() -> Iterator[tuple[Any, Any, list]]:
    """Party 0's and party 1's links to a dealer that runs in a thread, and what became of it."""
    with links() as (first, dealer_first), links() as (second, dealer_second):
        ended: list = []

        def run() -> None:
            try:
                ended.append(serve(*welcome([dealer_second, dealer_first])))
            except PeerError as error:
                ended.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield first, second, ended
        first.close()
        second.close()
        thread.join(timeout=10)
        assert not thread.is_alive()


def _providers(first: Any, second: Any) -> tuple[DealerProvider, DealerProvider]:
    with links() as (left, right):
        pair = together(
            lambda: DealerProvider(LinkCommunicator(0, left), first),
            lambda: DealerProvider(LinkCommunicator(1, right), second),
        )
    return pair


def _ask(provider: DealerProvider, *recipes: Any) -> list[list[torch.Tensor]]:
    with provider.communicator.ledger.scope("online", 0, "m", "o"):
        return [provider.request(recipe) for recipe in recipes]


RECIPES = (Square(size=(3,)), Product(op="matmul", left=(2, 3), right=(3, 4)))


def test_parties_get_matching_shares_and_the_same_session() -> None:
    with dealer() as (first, second, ended):
        mine, theirs = _providers(first, second)
        assert mine.session == theirs.session
        (r0, s0), (a0, b0, c0) = _ask(mine, *RECIPES)
        (r1, s1), (a1, b1, c1) = _ask(theirs, *RECIPES)
        theirs.close()
    assert ((r0 + r1) ** 2).equal(s0 + s1)
    assert ((a0 + a1) @ (b0 + b1)).equal(c0 + c1)
    assert ended == [8 * (3 + 8)]  # bytes of corrections


def test_what_the_dealer_sends_is_offline_traffic_of_the_party_that_gets_it() -> None:
    with dealer() as (first, second, _):
        mine, theirs = _providers(first, second)
        _ask(mine, *RECIPES)
        _ask(theirs, *RECIPES)
        totals = [p.communicator.ledger.total("offline") for p in (mine, theirs)]
        assert [(t.bytes_sent, t.rounds) for t in totals] == [(0, 0), (88, 0)]
        assert totals[0].tuples == totals[1].tuples == {"square": 3, "matmul_triple": 8}
        assert theirs.communicator.ledger.total("online").bytes_sent == 0


def test_later_inferences_are_dealt_ahead_and_never_the_same() -> None:
    with dealer() as (first, second, _):
        mine, theirs = _providers(first, second)
        seen = []
        for _ in range(3):
            for provider in (mine, theirs):
                provider.prepare()
            (r0, s0), _ = _ask(mine, *RECIPES)
            (r1, s1), _ = _ask(theirs, *RECIPES)
            assert ((r0 + r1) ** 2).equal(s0 + s1)
            seen.append(tuple((r0 + r1).tolist()))
        assert len(set(seen)) == 3
        assert len(theirs._ahead) == 0


def test_request_beyond_the_plan_is_made_in_line() -> None:
    with dealer() as (first, second, _):
        pair = _providers(first, second)
        for _ in range(2):
            for provider in pair:
                provider.prepare()
                with provider.communicator.ledger.scope("online", 0, "m", "o"):
                    provider.request(RECIPES[0])
        again = []
        for provider in pair:
            provider.prepare()
            with provider.communicator.ledger.scope("online", 0, "m", "o"):
                again.append((provider.request(RECIPES[1], again=True), provider.request(RECIPES[0])))
        for (a0, b0, c0), (a1, b1, c1) in [(again[0][0], again[1][0])]:
            assert ((a0 + a1) @ (b0 + b1)).equal(c0 + c1)
        (r0, s0), (r1, s1) = again[0][1], again[1][1]
        assert ((r0 + r1) ** 2).equal(s0 + s1)


def test_inference_that_asks_for_something_else_is_a_defect() -> None:
    with dealer() as (first, second, _):
        mine, _ = _providers(first, second)
        for recipe in RECIPES:
            mine.prepare()
            if recipe is RECIPES[0]:
                _ask(mine, recipe)
        with pytest.raises(RuntimeError, match="earlier one asked"):
            _ask(mine, RECIPES[1])


def test_dealer_refuses_what_it_cannot_make() -> None:
    with dealer() as (first, second, ended):
        _, theirs = _providers(first, second)
        theirs.link.tell({"requests": [[0, "nothing", {}]]})
        with pytest.raises(PeerError, match="cannot follow a request"):
            theirs.link.exchange([], [memoryview(bytearray(8))])
    assert isinstance(ended[0], PeerError)


@pytest.mark.parametrize(
    ("hellos", "words"),
    [
        (({"rank": 0, "version": "0.0"}, {"rank": 1}), "install the same"),
        (({"rank": 1, "version": mpcbench.__version__},) * 2, "one party 0 and one party 1"),
        (({"rank": 7, "version": mpcbench.__version__},) * 2, "one party 0 and one party 1"),
    ],
)
def test_strangers_are_refused(hellos: tuple, words: str) -> None:
    with links() as (first, dealer_first), links() as (second, dealer_second):
        first.tell(hellos[0])
        second.tell(hellos[1])
        error, answer = outcomes(lambda: welcome([dealer_first, dealer_second]), first.hear)
    for failure in (error, answer):
        assert isinstance(failure, PeerError)
        assert words in str(failure)


@pytest.mark.parametrize("emulated", [None, (None, 0.01), (1e6, 0.02)])
def test_dealer_emulates_what_the_party_does(emulated: tuple | None) -> None:
    with links() as (first, dealer_first), links() as (second, dealer_second):
        if emulated is not None:
            second.emulate(*emulated)
        for rank, link in enumerate((first, second)):
            hello = {"rank": rank, "version": mpcbench.__version__, "emulated": link.emulated}
            link.tell(hello)
        together(lambda: welcome([dealer_first, dealer_second]), lambda: (first.hear(), second.hear()))
        assert (dealer_first.emulated, dealer_second.emulated) == (None, emulated)


def test_party_that_goes_away_ends_the_dealer() -> None:
    with dealer() as (first, second, ended):
        _providers(first, second)
    assert isinstance(ended[0], PeerError)

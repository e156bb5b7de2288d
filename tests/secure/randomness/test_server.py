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
from mpcbench.secure.randomness import server
from mpcbench.secure.randomness.linear import Linear, WeightMask
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


@contextmanager
def _providers(first: Any, second: Any) -> Iterator[tuple[DealerProvider, DealerProvider]]:
    with links() as (left, right):
        yield together(
            lambda: DealerProvider(LinkCommunicator(0, left), first),
            lambda: DealerProvider(LinkCommunicator(1, right), second),
        )


def _ask(provider: DealerProvider, *recipes: Any, again: bool = False) -> list[list[torch.Tensor]]:
    with provider.communicator.ledger.scope("online", 0, "m", "o"):
        return [provider.request(recipe, again) for recipe in recipes]


def _both(pair: tuple[DealerProvider, DealerProvider], *recipes: Any, again: bool = False) -> tuple:
    """What each party gets: asked at once, as what no plan foresees is handed out to both together."""
    return together(*(lambda provider=provider: _ask(provider, *recipes, again=again) for provider in pair))


RECIPES = (Square(size=(3,)), Product(op="matmul", left=(2, 3), right=(3, 4)))


def test_parties_get_matching_shares_and_the_same_session() -> None:
    with dealer() as (first, second, ended), _providers(first, second) as pair:
        assert pair[0].session == pair[1].session
        ((r0, s0), (a0, b0, c0)), ((r1, s1), (a1, b1, c1)) = _both(pair, *RECIPES)
        pair[1].close()
    assert ((r0 + r1) ** 2).equal(s0 + s1)
    assert ((a0 + a1) @ (b0 + b1)).equal(c0 + c1)
    assert ended == [8 * (3 + 8)]  # bytes of corrections


def test_what_the_dealer_sends_is_offline_traffic_of_the_party_that_gets_it() -> None:
    with dealer() as (first, second, _), _providers(first, second) as pair:
        _both(pair, *RECIPES)
        totals = [p.communicator.ledger.total("offline") for p in pair]
        assert [(t.bytes_sent, t.rounds) for t in totals] == [(0, 0), (88, 0)]
        assert totals[0].tuples == totals[1].tuples == {"square": 3, "matmul_triple": 8}
        assert pair[1].communicator.ledger.total("online").bytes_sent == 0


def test_later_inferences_are_dealt_ahead_and_never_the_same() -> None:
    with dealer() as (first, second, _), _providers(first, second) as pair:
        seen = []
        for _ in range(3):
            for provider in pair:
                provider.prepare()
            ((r0, s0), _), ((r1, s1), _) = _both(pair, *RECIPES)
            assert ((r0 + r1) ** 2).equal(s0 + s1)
            seen.append(tuple((r0 + r1).tolist()))
        assert len(set(seen)) == 3
        assert len(pair[1]._ahead) == 0


def test_what_was_dealt_ahead_is_expanded_ahead_and_handed_out_without_the_peer() -> None:
    with dealer() as (first, second, _), _providers(first, second) as pair:
        for provider in pair:
            provider.prepare()
        _both(pair, *RECIPES)
        for provider in pair:
            provider.prepare()
            assert all(dealt.shares is not None for dealt in provider._ahead)
        ((r0, s0), _), ((r1, s1), _) = (_ask(provider, *RECIPES) for provider in pair)
        assert ((r0 + r1) ** 2).equal(s0 + s1)


@pytest.mark.parametrize("shift", [0, 7])
def test_products_with_opened_weights_are_added_when_tuples_are_expanded(shift: int) -> None:
    """Ahead of time from the second inference on, in line for an opening that is made again."""
    product = Linear(size=(2, 3), weights=(0,), columns=(4,), shift=shift)
    difference = torch.arange(12).reshape(3, 4) << 40
    with dealer() as (first, second, _), _providers(first, second) as pair:
        ((mask0,),), ((mask1,),) = _both(pair, WeightMask(size=(3, 4)))
        for provider in pair:
            provider.weight_opened(difference)
        for ahead in (False, True):
            for provider in pair:
                provider.prepare()
            held = [dealt.shares[-1].clone() for provider in pair for dealt in provider._ahead]
            assert len(held) == 2 * ahead
            for again in (False, True):
                (mine,), (theirs,) = _both(pair, product, again=again)
                if ahead and not again:
                    assert torch.equal(mine[-1], held[0]) and torch.equal(theirs[-1], held[1])
                a = mine[bool(shift)] + theirs[bool(shift)]
                assert torch.equal(mine[-1] + theirs[-1], a @ (mask0 + mask1 + difference))


def test_request_beyond_the_plan_is_made_in_line() -> None:
    with dealer() as (first, second, _), _providers(first, second) as pair:
        for _ in range(2):
            for provider in pair:
                provider.prepare()
            _both(pair, RECIPES[0])
        for provider in pair:
            provider.prepare()
        ((a0, b0, c0),), ((a1, b1, c1),) = _both(pair, RECIPES[1], again=True)
        assert ((a0 + a1) @ (b0 + b1)).equal(c0 + c1)
        ((r0, s0),), ((r1, s1),) = _both(pair, RECIPES[0])
        assert ((r0 + r1) ** 2).equal(s0 + s1)


def test_nobody_goes_on_before_the_other_has_its_tuple() -> None:
    with dealer() as (first, second, _), _providers(first, second) as pair:
        for provider in pair:
            provider.prepare()
        early = threading.Thread(target=_ask, args=(pair[0], RECIPES[0]), daemon=True)
        early.start()
        early.join(timeout=0.3)
        assert early.is_alive()  # party 0 has all it needs in its seed, and waits nevertheless
        _ask(pair[1], RECIPES[0])
        early.join(timeout=10)
        assert not early.is_alive()


def test_parties_that_ask_for_different_tuples_notice() -> None:
    with dealer() as (first, second, _), _providers(first, second) as pair:
        pair[0].requests += 1
        for failure in outcomes(*(lambda p=provider: _ask(p, RECIPES[0]) for provider in pair)):
            assert isinstance(failure, PeerError)
            assert "asked its dealer for something else" in str(failure)


def test_inference_that_asks_for_something_else_is_a_defect() -> None:
    with dealer() as (first, second, _), _providers(first, second) as pair:
        for provider in pair:
            provider.prepare()
        _both(pair, RECIPES[0])
        pair[0].prepare()
        with pytest.raises(RuntimeError, match="earlier one asked"):
            _ask(pair[0], RECIPES[1])


def test_dealer_refuses_what_it_cannot_make() -> None:
    with dealer() as (first, second, ended), _providers(first, second) as (_, theirs):
        theirs.link.tell({"requests": [[0, "nothing", {}]]})
        with pytest.raises(PeerError, match="cannot follow a request"):
            theirs.link.exchange([], [memoryview(bytearray(8))])
    assert isinstance(ended[0], PeerError)


@pytest.mark.parametrize(
    ("hellos", "words"),
    [
        (({"rank": 0, "version": "0.0"}, {"rank": 1}), "install the same"),
        (({"rank": 0, "version": mpcbench.__version__, "fixed_seeds": 7},) * 2, "fix all seeds or none"),
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


@pytest.mark.parametrize(
    ("asked", "emulated"),
    [
        ([], None),
        (7, None),
        (["a", "b"], None),
        ([None, 0.25], (None, 0.25)),
        ([float("nan"), float("nan")], (1.0, 0.0)),
        ([10**400, 10**400], (server.MAX_BANDWIDTH, server.MAX_DELAY_SECONDS)),
        ([-1, -1], (1.0, 0.0)),
        ([0, 0], (1.0, 0.0)),
    ],
)
def test_dealer_emulates_no_line_that_there_cannot_be(asked: Any, emulated: tuple | None) -> None:
    class Seen:
        emulated = None

        def emulate(self, bandwidth: float | None, delay: float) -> None:
            self.emulated = (bandwidth, delay)

    server._emulate(seen := Seen(), asked)
    assert seen.emulated == emulated


def test_party_that_goes_away_ends_the_dealer() -> None:
    with dealer() as (first, second, ended), _providers(first, second):
        pass
    assert isinstance(ended[0], PeerError)

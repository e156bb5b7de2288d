"""The greeting: both parties mean the same run, or both say what differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest

from mpcbench.errors import PeerError, UserError
from mpcbench.parties.handshake import Hello, address, greet
from mpcbench.secure.transport import Link
from tests.secure.links import links, outcomes

OWNER = Hello("1.2", 0, "sharing", "graph", "protocol")
CLIENT = Hello("1.2", 1, "sharing", "graph", "protocol", tokens=16, repetitions=3, warmups=1)


def _greet(owner: Hello, client: Hello, max_tokens: int = 128) -> tuple[Any, Any]:
    with links(5) as (first, second):
        return outcomes(lambda: greet(first, owner, max_tokens), lambda: greet(second, client, max_tokens))


def test_both_learn_the_clients_workload() -> None:
    assert _greet(OWNER, CLIENT) == (CLIENT, CLIENT)


@pytest.mark.parametrize("tokens", [2, 128])
def test_limits_of_the_prompt_are_allowed(tokens: int) -> None:
    client = replace(CLIENT, tokens=tokens)
    assert _greet(OWNER, client) == (client, client)


DIFFERENT: dict[str, tuple[Callable[[Hello], Hello], str]] = {
    "version": (lambda hello: replace(hello, version="1.3"), "install the same version"),
    "rank": (lambda hello: replace(hello, rank=0), "both parties are party 0: give one --rank 0"),
    "graph": (lambda hello: replace(hello, graph_sha256="other"), "of different models"),
    "sharing": (lambda hello: replace(hello, sharing="other"), "of different exports"),
    "protocol": (lambda hello: replace(hello, protocol_sha256="other"), "give both the same --protocol"),
    "network": (lambda hello: replace(hello, network="1 Gbit/s"), "give both the same --network"),
    "seeds": (lambda hello: replace(hello, fixed_seeds=7), "fix all seeds or none"),
    "arithmetic": (lambda hello: replace(hello, arithmetic="other"), "the same version of numba on both"),
    "short": (lambda hello: replace(hello, tokens=1), "has 1 tokens, the model takes 2 to 128"),
    "long": (lambda hello: replace(hello, tokens=129), "has 129 tokens"),
    "no run": (lambda hello: replace(hello, repetitions=0), "repetitions must be 1 to 10000"),
    "many runs": (lambda hello: replace(hello, repetitions=10_001), "repetitions must be 1 to 10000"),
    "too much text": (
        lambda hello: replace(hello, tokens=120, new_tokens=10),
        "120 tokens and the model has 128 positions: ask for 1 to 9 new tokens, not 10",
    ),
    "less than no text": (lambda hello: replace(hello, new_tokens=-1), "new tokens, not -1"),
    "negative": (lambda hello: replace(hello, warmups=-1), "warm-ups 0 to 10000"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_is_said_at_both(case: str) -> None:
    change, words = DIFFERENT[case]
    for caught in _greet(OWNER, change(CLIENT)):
        assert isinstance(caught, PeerError)
        assert words in str(caught)
        assert "\n" not in str(caught)


def test_versions_are_named_with_whose_they_are() -> None:
    first, second = _greet(OWNER, replace(CLIENT, version="1.3"))
    assert str(first).startswith("party 1 runs mpcbench 1.3, this party 1.2")
    assert str(second).startswith("party 0 runs mpcbench 1.2, this party 1.3")


GREETING = asdict(CLIENT)
MALFORMED: dict[str, dict] = {
    "empty": {},
    "a field too few": {name: value for name, value in GREETING.items() if name != "rank"},
    "a field too many": {**GREETING, "more": 1},
    "text for a number": {**GREETING, "tokens": "16"},
    "truth for a number": {**GREETING, "rank": True},
    "number for a text": {**GREETING, "sharing": 3},
    "nothing": {**GREETING, "graph_sha256": None},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_greeting_is_refused(case: str) -> None:
    def stranger(link: Link) -> dict:
        return link.swap_control(MALFORMED[case])

    with links(5) as (first, second):
        caught, _ = outcomes(lambda: greet(first, OWNER, 128), lambda: stranger(second))
    assert isinstance(caught, PeerError)
    assert "greets in another format" in str(caught)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:29500", ("127.0.0.1", 29500)),
        ("a.host.example:1", ("a.host.example", 1)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_address(text: str, expected: tuple[str, int]) -> None:
    assert address(text) == expected


NO_ADDRESSES = ["", "host", "host:", ":29500", "host:port", "host:65536", "host:-1", "host:1.5", "host:²"]


@pytest.mark.parametrize("text", [*NO_ADDRESSES, "host:" + "9" * 9999])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UserError, match="is not an address: write HOST:PORT"):
        address(text)

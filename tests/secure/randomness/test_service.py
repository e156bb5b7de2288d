"""A dealer that stays: one run after another, as long as the model owner holds its line."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

import mpcbench
from mpcbench.errors import PeerError
from mpcbench.secure.meeting import accept, connect, listen
from mpcbench.secure.randomness.dealing import as_request
from mpcbench.secure.randomness.server import ask, enrol
from mpcbench.secure.randomness.service import Service, attend, dismiss
from mpcbench.secure.randomness.stock import Square
from mpcbench.secure.transport import Link
from tests.secure.links import together

WORDS = 3


class _Running:
    """A service in a thread; ``ended`` is what became of it."""

    def __init__(self, server: socket.socket, wait: float):
        self.port = server.getsockname()[1]
        self.said: list[str] = []
        self.ended: object = None
        service = Service(server, lambda: accept(server, "a party", 5, 20), self.said.append)
        self.thread = threading.Thread(target=self._run, args=(service, wait), daemon=True)
        self.thread.start()

    def _run(self, service: Service, wait: float) -> None:
        try:
            self.ended = service.run(wait)
        except PeerError as error:
            self.ended = error

    def visit(self) -> Link:
        return connect("127.0.0.1", self.port, "the dealer", 5, 20)

    def outcome(self) -> object:
        self.thread.join(20)
        assert not self.thread.is_alive()
        return self.ended


@pytest.fixture
def dealer() -> Iterator[_Running]:
    with listen("127.0.0.1", 0, backlog=8) as server:
        yield _Running(server, wait=20)


def _run(dealer: _Running) -> None:
    """Two parties come, party 1 gets one square, and both go."""
    first, second = dealer.visit(), dealer.visit()
    sessions = together(lambda: enrol(first, 0)[0], lambda: enrol(second, 1)[0])
    assert sessions[0] == sessions[1]
    received, _, _ = ask(second, [as_request(0, Square(size=(WORDS,)))], [WORDS])
    assert received[0].shape == (WORDS,)
    second.tell({"done": True})
    first.close()
    second.close()


def test_runs_one_after_another_until_the_owner_is_done(dealer: _Running) -> None:
    owner = dealer.visit()
    attend(owner)
    for _ in range(3):
        _run(dealer)
    dismiss(owner)
    assert dealer.outcome() == 3
    assert dealer.said == [f"run {n}: dealt 0.000 MB of corrections to party 1." for n in (1, 2, 3)]


def test_visitors_that_are_none_and_runs_that_fail_disturb_nobody(dealer: _Running) -> None:
    owner = dealer.visit()
    attend(owner)
    dealer.visit().close()  # as a port scan, or a health check
    with socket.create_connection(("127.0.0.1", dealer.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
    lost = dealer.visit()
    lost.tell({"rank": 0, "version": mpcbench.__version__})  # and never comes back: its run has failed
    first, second = dealer.visit(), dealer.visit()
    together(lambda: enrol(first, 0), lambda: enrol(second, 1))
    second.close()
    first.close()
    _run(dealer)
    dismiss(owner)
    assert dealer.outcome() == 1
    assert dealer.said[0].startswith("a run failed: party 1 (client) has closed the connection")


@pytest.mark.parametrize("rank", [[], {}, "0", 1.0, True, 2, -1, None])
def test_a_visitor_whose_rank_is_none_is_refused_and_disturbs_nobody(dealer: _Running, rank: object) -> None:
    attend(owner := dealer.visit())
    odd = dealer.visit()
    odd.tell({"rank": rank, "version": mpcbench.__version__})
    with pytest.raises(PeerError, match="one party 0 and one party 1 must come"):
        odd.hear()
    _run(dealer)
    dismiss(owner)
    assert dealer.outcome() == 1


@pytest.mark.parametrize(
    "message",
    [
        {"requests": 5}, {"requests": {"a": 1}}, {"requests": None}, {}, {"requests": [5]},
        {"requests": [[]]}, {"requests": [[0, [], {}]]}, {"requests": [[[], "square", {"size": [3]}]]},
        {"requests": [[0, "square", []]]}, {"requests": [[0, "square", {"size": [1 << 60, 1 << 60]}]]},
        {"requests": [[0, "nested_glu", {"size": [1, 1], "shifts": [0, 0, 0], "constants": []}]]},
    ],
)  # fmt: skip
def test_a_message_that_no_dealer_can_follow_ends_its_run_alone(dealer: _Running, message: dict) -> None:
    attend(owner := dealer.visit())
    first, second = dealer.visit(), dealer.visit()
    together(lambda: enrol(first, 0), lambda: enrol(second, 1))
    second.tell(message)
    with pytest.raises(PeerError, match="the dealer cannot follow"):
        second.hear()
    _run(dealer)
    dismiss(owner)
    assert dealer.outcome() == 1
    assert dealer.said[0].startswith("a run failed: the dealer cannot follow")


def test_an_owner_that_goes_without_a_word(dealer: _Running) -> None:
    owner = dealer.visit()
    attend(owner)
    owner.close()
    assert "the model owner has closed the connection" in str(dealer.outcome())


def test_a_second_owner_is_told_to_wait(dealer: _Running) -> None:
    attend(owner := dealer.visit())
    with pytest.raises(PeerError, match="serves another model owner"):
        attend(dealer.visit())
    dismiss(owner)
    assert dealer.outcome() == 0


def test_an_owner_of_another_version(dealer: _Running, monkeypatch: pytest.MonkeyPatch) -> None:
    other = dealer.visit()
    other.tell({"attend": True, "version": "0"})
    with pytest.raises(PeerError, match="install the same everywhere"):
        other.hear()
    attend(owner := dealer.visit())
    dismiss(owner)
    dealer.outcome()


def test_no_owner_comes() -> None:
    with listen("127.0.0.1", 0) as server:
        ended = _Running(server, wait=0.5).outcome()
    assert str(ended) == "no model owner came within 0.5 s: start `mpcbench compare` there."

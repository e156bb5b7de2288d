"""How two processes find each other, or say why they do not."""

from __future__ import annotations

import socket
import time

import pytest

from mpcbench.errors import PeerError, UserError
from mpcbench.secure.meeting import accept, connect, listen
from mpcbench.secure.transport import Link
from tests.secure.links import swap, together


def test_connect_and_accept_meet() -> None:
    with listen("127.0.0.1", 0) as server:
        host, port = server.getsockname()
        first, second = together(
            lambda: accept(server, "party 1", 5, 5), lambda: connect(host, port, "party 0", 5, 5)
        )
    assert together(lambda: swap(first, b"0"), lambda: swap(second, b"1")) == (b"1", b"0")
    first.close()
    second.close()


def test_client_may_come_before_the_model_owner_listens() -> None:
    with listen("127.0.0.1", 0) as server:
        port = server.getsockname()[1]

    def late() -> Link:
        time.sleep(0.4)
        with listen("127.0.0.1", port) as server:
            return accept(server, "party 1", 5, 5)

    first, second = together(late, lambda: connect("127.0.0.1", port, "party 0", 5, 5))
    first.close()
    second.close()


def _free_port() -> int:
    with listen("127.0.0.1", 0) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    ("host", "reason"), [("127.0.0.1", "Connection refused"), ("." * 3, ""), ("no.such.host.invalid", "")]
)
def test_nobody_listens(host: str, reason: str) -> None:
    port = _free_port()
    started = time.monotonic()
    with pytest.raises(PeerError) as caught:
        connect(host, port, "party 0 (model owner)", 0.3, 5)
    assert str(caught.value).startswith(f"party 0 (model owner) is not at {host}:{port} ({reason}")
    assert "tried for 0.3 s" in str(caught.value)
    if host == "127.0.0.1":
        assert 0.2 < time.monotonic() - started < 2


def test_nobody_comes() -> None:
    with listen("127.0.0.1", 0) as server:
        port = server.getsockname()[1]
        with pytest.raises(PeerError) as caught:
            accept(server, "party 1 (client)", 0.3, 5)
    assert str(caught.value) == f"party 1 (client) did not come to 127.0.0.1:{port} within 0.3 s: start it."


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1", ".."])
def test_address_that_cannot_be_listened_on(host: str) -> None:
    with listen("127.0.0.1", 0) as server:
        port = server.getsockname()[1]  # taken, where the host is ours
        with pytest.raises(UserError, match=rf"Cannot listen on {host}:{port} \(.+\): choose another"):
            listen(host, port)


def test_port_is_free_again_after_a_run() -> None:
    with listen("127.0.0.1", 0) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()
        client.close()
    listen("127.0.0.1", port).close()

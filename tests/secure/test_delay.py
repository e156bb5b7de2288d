"""The emulated line: everything arrives, in order and not before its time, and the sender is not held up."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mpcbench.errors import PeerError
from mpcbench.secure.delay import SEND_BUFFER, DelayLine
from mpcbench.secure.transport import Link
from tests.secure.links import links, sockets, together

MEGABIT = 1e6


@contextmanager
def slow_links(bandwidth: float | None, delay: float) -> Iterator[tuple[Link, Link]]:
    """Both ends of a link that both emulate."""
    with links() as (first, second):
        for link in (first, second):
            link.emulate(bandwidth, delay)
        yield first, second
        for link in (first, second):
            link.close()


def _swap(link: Link, payload: bytes) -> bytes:
    into = bytearray(len(payload))
    link.exchange([memoryview(payload)], [memoryview(into)])
    return bytes(into)


@pytest.mark.parametrize("size", [1, 33 << 10, 3 << 20])
@pytest.mark.parametrize("bandwidth", [None, 200 * MEGABIT])
def test_exchange_carries_both_directions(size: int, bandwidth: float | None) -> None:
    mine, theirs = os.urandom(size), os.urandom(size)
    with slow_links(bandwidth, 0.01) as (first, second):
        for _ in range(2):
            got = together(lambda: _swap(first, mine), lambda: _swap(second, theirs))
            assert got == (theirs, mine)


def test_more_than_the_line_holds_passes_through_it() -> None:
    """Both send more than a send buffer at once; neither can wait for the other to read first."""
    payload = os.urandom(3 * SEND_BUFFER)
    with slow_links(800 * MEGABIT, 0.001) as (first, second):
        assert together(lambda: _swap(first, payload), lambda: _swap(second, payload)) == (payload, payload)


def test_nothing_arrives_before_its_time() -> None:
    delay, bandwidth, size = 0.05, 2 * MEGABIT, 100_000
    with slow_links(bandwidth, delay) as (first, second):
        started = time.perf_counter()
        together(lambda: _swap(first, bytes(size)), lambda: _swap(second, bytes(size)))
        seconds = time.perf_counter() - started
    # Both directions at once: one transmission of 0.4 s and one delay, not two.
    assert size * 8 / bandwidth + delay <= seconds < 2 * size * 8 / bandwidth + delay


def test_what_is_sent_waits_for_what_was_sent_before() -> None:
    """A second later the line is still busy with the first message, though the sender has long gone on."""
    size, bandwidth = 250_000, 2 * MEGABIT
    with slow_links(bandwidth, 0.0) as (first, second):
        started = time.perf_counter()
        first.exchange([memoryview(bytes(size))], [])
        first.tell({"after": 1})
        assert time.perf_counter() - started < 0.5
        second.exchange([], [memoryview(bytearray(size))])
        assert second.hear() == {"after": 1}
        assert time.perf_counter() - started >= size * 8 / bandwidth


def test_what_was_sent_is_what_arrives_though_the_sender_writes_over_it() -> None:
    payload = bytearray(b"before" * 1000)
    with slow_links(None, 0.1) as (first, second):
        first.exchange([memoryview(payload)], [])
        payload[:] = b"later!" * 1000
        into = bytearray(len(payload))
        second.exchange([], [memoryview(into)])
        assert into == b"before" * 1000


def test_a_line_takes_a_send_buffer_more_than_it_carries() -> None:
    with sockets() as (near, _):
        near.setblocking(False)
        line = DelayLine(near, 8 * MEGABIT, 0.5)
        taken = 0
        with pytest.raises(BlockingIOError):
            while taken < 2 * SEND_BUFFER:
                taken += line.send(memoryview(bytes(1 << 20)))
        assert SEND_BUFFER <= taken < SEND_BUFFER + 2 * int(8 * MEGABIT * 0.5 / 8)
        near.close()  # nobody is to wait for all of it
        line.close(patience=0.01)


def test_reason_of_a_failure_still_reaches_the_peer() -> None:
    with slow_links(None, 0.2) as (first, second):
        threading.Thread(target=lambda: (first.fail("no such file."), first.close())).start()
        with pytest.raises(PeerError, match=r"^party 0 gave up: no such file\.$"):
            second.hear()


def test_peer_that_has_gone_is_noticed() -> None:
    with slow_links(None, 0.01) as (first, second):
        second.connection.shutdown(socket.SHUT_RDWR)
        with pytest.raises(PeerError, match="has closed the connection"):
            while True:
                _swap(first, bytes(1 << 20))


def test_closing_twice_does_no_harm() -> None:
    with links() as (first, _):
        first.emulate(None, 0.01)
        first.close()
        first.close()
        first.fail("nobody listens.")

"""The link: what goes in comes out, both ways at once, and a peer that misbehaves ends it in one sentence."""

from __future__ import annotations

import os
import threading
import time

import pytest

from mpcbench.errors import PeerError
from mpcbench.secure import duplex
from mpcbench.secure.transport import HEADER_BYTES, MAX_CONTROL_BYTES, Link
from tests.secure.links import (
    CONTROL,
    DATA,
    FAILURE,
    frame,
    links,
    outcomes,
    receive,
    send,
    sockets,
    swap,
    together,
)

SIZES = {"0": 0, "1": 1, "31 KiB": 31 << 10, "33 KiB": 33 << 10, "20 MiB": 20 << 20}
sizes = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())


# What goes in comes out.


@sizes
def test_exchange_carries_both_directions_at_once(size: int) -> None:
    mine, theirs = os.urandom(size), os.urandom(size)
    with links() as (first, second):
        got = together(lambda: swap(first, mine), lambda: swap(second, theirs))
        assert got == (theirs, mine)
        for link in (first, second):
            assert (link.wire.payload_sent, link.wire.other_sent) == (size, HEADER_BYTES)


@sizes
def test_exchange_carries_one_direction(size: int) -> None:
    payload = os.urandom(size)
    with links() as (first, second):
        _, got = together(lambda: send(first, payload), lambda: receive(second, size))
        assert got == payload
        assert (first.wire.payload_sent, first.wire.other_sent) == (size, HEADER_BYTES)
        assert (second.wire.payload_sent, second.wire.other_sent) == (0, 0)


def test_exchange_may_have_unequal_directions() -> None:
    big, small = os.urandom(5 << 20), os.urandom(3)
    with links() as (first, second):
        got = together(lambda: swap(first, big, len(small)), lambda: swap(second, small, len(big)))
    assert got == (small, big)


def test_exchange_gathers_and_scatters_a_batch() -> None:
    with links() as (first, second):
        into = [bytearray(2), bytearray(0), bytearray(4)]
        together(
            lambda: first.exchange([memoryview(b"abc"), memoryview(b""), memoryview(b"def")], []),
            lambda: second.exchange([], [memoryview(part) for part in into]),
        )
        assert first.wire.other_sent == HEADER_BYTES  # one frame for the whole batch
    assert b"|".join(into) == b"ab||cdef"


def test_exchange_returns_the_seconds_spent_waiting() -> None:
    with links() as (first, second):
        timer = threading.Timer(0.3, send, (second, b"late"))
        timer.start()
        waited = first.exchange([memoryview(b"soon")], [memoryview(bytearray(4))])
        timer.join()
    assert 0.2 < waited < 5


def test_control_messages_cross_and_count_as_other() -> None:
    with links() as (first, second):
        got = together(lambda: first.swap_control({"a": [1, "ü"]}), lambda: second.swap_control({}))
        assert got == ({}, {"a": [1, "ü"]})
        assert second.wire.payload_sent == 0
        assert second.wire.other_sent == HEADER_BYTES + len(b"{}")


@pytest.mark.parametrize("late", [0.0, 0.03, 0.3], ids=["together", "a little late", "late"])
def test_both_go_on_at_the_same_moment_after_they_have_met(late: float) -> None:
    with links() as (first, second):
        for link in (first, second):
            link.emulate(None, 0.1)
            link.one_way = 0.1

        def meet(link: Link, after: float) -> float:
            time.sleep(after)
            link.meet({"ready": True})
            return time.perf_counter()

        early, other = together(lambda: meet(first, 0.0), lambda: meet(second, late))
    assert abs(early - other) < 0.02


def test_control_messages_larger_than_any_buffer_cross() -> None:
    message = {"text": "x" * (12 << 20)}
    with links(patience=5) as (first, second):
        assert together(lambda: first.swap_control(message), lambda: second.swap_control(message)) == (
            message,
            message,
        )


# A peer that misbehaves.


def _reads(sent: bytes, read: object) -> str:
    """The sentence with which ``read(link)`` fails when the peer has sent these bytes."""
    with sockets() as (raw, mine):
        raw.sendall(sent)
        with pytest.raises(PeerError) as caught:
            read(Link(mine, "party 1", 5))
    text = str(caught.value)
    assert text.startswith("party 1 ") and "\n" not in text
    return text


@pytest.mark.parametrize("size", [0, 7, 9, 1 << 62])
def test_payload_of_another_size_is_refused(size: int) -> None:
    sent = frame(DATA, b"12345678", length=size)
    assert f"sent {size} bytes where 8 were due" in _reads(sent, lambda link: receive(link, 8))


@pytest.mark.parametrize("kind", [CONTROL, 0, 77])
def test_payload_of_another_kind_is_refused(kind: int) -> None:
    assert "where 8 were due" in _reads(frame(kind, b"12345678"), lambda link: receive(link, 8))


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", id="another program"),
        pytest.param(frame(DATA, b"{}"), id="payload"),
        pytest.param(frame(CONTROL, b"", length=MAX_CONTROL_BYTES + 1), id="oversized"),
        pytest.param(frame(CONTROL, b""), id="empty"),
        pytest.param(frame(CONTROL, b"not JSON"), id="not JSON"),
        pytest.param(frame(CONTROL, b"\xff\xfe{}"), id="not UTF-8"),
        pytest.param(frame(CONTROL, b"[1, 2]"), id="no object"),
        pytest.param(frame(CONTROL, b"[" * 100_000), id="nested"),
    ],
)
def test_what_is_no_control_message_is_refused(sent: bytes) -> None:
    assert "does not speak mpcbench's language" in _reads(sent, lambda link: link.swap_control({}))


@pytest.mark.parametrize("part", [0, 4, HEADER_BYTES, HEADER_BYTES + 3])
def test_peer_that_closes_in_the_middle_of_a_frame(part: int) -> None:
    with sockets() as (raw, mine):
        raw.sendall(frame(DATA, b"12345678")[:part])
        raw.close()
        with pytest.raises(PeerError, match="party 1 has closed the connection"):
            receive(Link(mine, "party 1", 5), 8)


def test_peer_that_closes_while_we_send() -> None:
    with sockets() as (raw, mine):
        raw.close()
        link = Link(mine, "party 1", 5)
        with pytest.raises(PeerError, match="party 1 has closed the connection"):
            send(link, bytes(20 << 20))


@pytest.mark.parametrize("size", [8, 20 << 20])
def test_silent_peer_is_given_up(size: int) -> None:
    with links(patience=0.3) as (first, _second):
        started = time.perf_counter()
        with pytest.raises(PeerError, match=r"party 1 has been silent for 0\.3 s"):
            swap(first, bytes(size))  # 20 MiB do not even get out
        assert 0.25 < time.perf_counter() - started < 3


def test_patience_is_for_silence_and_not_for_the_whole() -> None:
    def dribble() -> None:
        for byte in frame(DATA, b"slow"):
            raw.sendall(bytes([byte]))
            time.sleep(0.1)

    with sockets() as (raw, mine):
        sender = threading.Thread(target=dribble)
        sender.start()
        assert receive(Link(mine, "party 1", 0.6), 4) == b"slow"  # 1.2 s in all
        sender.join()


def test_peer_that_computes_and_does_not_read_is_not_taken_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplex, "DEAD_LINE_SECONDS", 1)
    payload = os.urandom(20 << 20)

    def busy() -> bytes:
        time.sleep(4)  # our buffers are full, its kernel says so again and again
        return swap(second, b"done", len(payload))

    with links() as (first, second):
        got = together(lambda: swap(first, payload, 4), busy)
    assert got == (b"done", payload)


# Last words.


@pytest.mark.parametrize("size", [8, 20 << 20])
def test_failure_reaches_the_peer_as_a_sentence(size: int) -> None:
    def give_up() -> None:
        first.fail("the disk is full: free some.")
        first.close()

    with links() as (first, second):
        _, caught = outcomes(give_up, lambda: swap(second, bytes(size)))
    assert isinstance(caught, PeerError)
    assert str(caught) == "party 0 gave up: the disk is full: free some."


def test_failure_is_heard_although_the_connection_is_reset() -> None:
    with links() as (first, second):
        send(second, b"never read")
        first.fail("out of memory.")
        first.close()
        time.sleep(0.1)
        with pytest.raises(PeerError, match=r"^party 0 gave up: out of memory\.$"):
            swap(second, bytes(8))


def test_failure_is_heard_by_who_waits_for_a_control_message() -> None:
    with links() as (first, second):
        first.fail("wrong folder.")
        with pytest.raises(PeerError, match=r"^party 0 gave up: wrong folder\.$"):
            second.swap_control({})


def test_failure_of_a_hostile_peer_is_one_printable_line() -> None:
    sent = frame(FAILURE, b"a\x1b[2J\nb\x07 \xff")
    assert _reads(sent, lambda link: receive(link, 8)) == "party 1 gave up: a[2J b \N{REPLACEMENT CHARACTER}"


def test_oversized_failure_is_not_read() -> None:
    sent = frame(FAILURE, b"", length=1 << 40)
    assert "where 8 were due" in _reads(sent, lambda link: receive(link, 8))


def test_fail_neither_raises_nor_waits_when_nobody_listens() -> None:
    with links() as (first, second):
        second.close()
        first.fail("once")
        first.fail("twice")
        first.close()
        first.close()
        first.fail("closed")
    with links() as (first, _second):
        started = time.perf_counter()
        _fill(first)
        first.fail("the peer reads nothing")
        assert time.perf_counter() - started < 5


def _fill(link: Link) -> None:
    try:
        while True:
            link.connection.send(bytes(1 << 16))
    except BlockingIOError:
        pass

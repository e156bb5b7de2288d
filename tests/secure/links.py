"""Two ends of a real TCP connection in one process, and a way to let both act at the same time."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from mpcbench.secure.meeting import listen
from mpcbench.secure.transport import Link

DATA, CONTROL, FAILURE = 1, 2, 3


@contextmanager
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection on loopback."""
    with listen("127.0.0.1", 0) as server:
        first = socket.create_connection(server.getsockname())
        second, _ = server.accept()
    with first, second:
        yield first, second


@contextmanager
def links(patience: float = 20.0) -> Iterator[tuple[Link, Link]]:
    """Party 0's and party 1's end; each names the other in its errors."""
    with sockets() as (first, second):
        yield Link(first, "party 1", patience), Link(second, "party 0", patience)


def together(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
    """Both at the same time; their results, or the first one's exception."""
    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(first), threads.submit(second)]
        return futures[0].result(60), futures[1].result(60)


def outcomes(first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
    """Both at the same time; an exception counts as a result."""
    return together(lambda: _caught(first), lambda: _caught(second))


def _caught(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except Exception as error:
        return error


def send(link: Link, payload: bytes) -> None:
    """Send a payload."""
    link.exchange([memoryview(payload)], [])


def receive(link: Link, size: int) -> bytes:
    """Receive a payload of this size."""
    into = bytearray(size)
    link.exchange([], [memoryview(into)])
    return bytes(into)


def swap(link: Link, payload: bytes, size: int | None = None) -> bytes:
    """Exchange payloads; ``size`` is that of the other one, where it differs."""
    into = bytearray(len(payload) if size is None else size)
    link.exchange([memoryview(payload)], [memoryview(into)])
    return bytes(into)


def frame(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A frame as it is on the wire; ``length`` may lie about the body's."""
    return struct.pack("<BQ", kind, len(body) if length is None else length) + body

"""A link emulated at its sender: bytes are held back as long as a slow line would take to carry them.

What is sent waits until the line has transmitted everything before it at its bandwidth, and then for the
one-way delay; only then does it go to the real connection. A thread does that, so that the party goes on
receiving and computing meanwhile, as it does with bytes that a network card has taken. Both ends do so,
each for its own direction, and no clock is compared with another host's.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import sys
import threading
import time
from collections import deque

SEND_BUFFER = 4 << 20
"""Bytes beyond those on the line that a sender may have waiting, about what a kernel's send buffer takes."""
_STEP_SECONDS = 1e-3
_LEAST_PIECE, _LARGEST_PIECE = 16 << 10, 1 << 20
SPIN_SECONDS = 150e-6
_PR_SET_TIMERSLACK = 29  # linux/prctl.h


class DelayLine:
    """Sends over a non-blocking ``connection`` at ``bandwidth`` bits a second (None: unlimited) and ``delay``
    seconds late.

    :meth:`send` behaves like a non-blocking socket's; :meth:`fileno` is readable when it would take more.
    """

    def __init__(self, connection: socket.socket, bandwidth: float | None, delay: float):
        self.bandwidth = bandwidth
        self.delay = delay
        self._connection = connection
        self._seconds_per_byte = 8 / bandwidth if bandwidth else 0.0
        self._piece, self._limit = _LARGEST_PIECE, sys.maxsize
        if bandwidth:
            step = int(bandwidth * _STEP_SECONDS / 8)
            self._piece = min(max(step, _LEAST_PIECE), _LARGEST_PIECE)
            self._limit = SEND_BUFFER + int(bandwidth * delay / 8)
        self._held: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._free_at = 0.0
        self._error: OSError | None = None
        self._closed = self._full = self._told = False
        self._changed = threading.Condition()
        self._room, self._tell_room = os.pipe()
        self._thread = threading.Thread(target=self._run, name="delay line", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        """Readable once there is room again after :meth:`send` has raised BlockingIOError."""
        return self._room

    def send(self, data: memoryview) -> int:
        """Take a copy of the first bytes of ``data``; returns how many.

        Raises BlockingIOError when too many wait, and OSError once the connection has broken.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise OSError("the line is closed")
            if self._told:
                self._told = False
                os.read(self._room, 1)
            if self._bytes >= self._limit:
                self._full = True
                raise BlockingIOError
            piece = bytes(data[: self._piece])
            # The line is busy with what was sent before; a piece has arrived when its last bit has.
            self._free_at = max(time.perf_counter(), self._free_at) + len(piece) * self._seconds_per_byte
            self._held.append((self._free_at + self.delay, piece))
            self._bytes += len(piece)
            if len(self._held) == 1:
                self._changed.notify_all()
        return len(piece)

    def close(self, patience: float) -> None:
        """Wait until all has been sent, unless nothing moves for ``patience`` seconds; safe to call twice."""
        with self._changed:
            left = sys.maxsize
            while 0 < self._bytes < left and self._error is None:
                left = self._bytes
                self._changed.wait(min(patience + self.delay, threading.TIMEOUT_MAX))
            if not self._closed:
                self._closed = True
                self._held.clear()
                self._changed.notify_all()
                os.close(self._room)
                os.close(self._tell_room)

    def _run(self) -> None:
        precise_timers()
        try:
            while next_one := self._next():
                due, piece = next_one
                sleep_until(due)
                self._write(memoryview(piece))
                self._sent(len(piece))
        except (OSError, ValueError) as error:  # ValueError: the connection was closed on our side
            with self._changed:
                self._error = error if isinstance(error, OSError) else OSError("the connection is closed")
                self._held.clear()
                self._make_room()
                self._changed.notify_all()

    def _next(self) -> tuple[float, bytes] | None:
        """What is to be sent next, and when; None when nothing more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._closed)
            return self._held.popleft() if self._held else None

    def _write(self, view: memoryview) -> None:
        while view:
            try:
                view = view[self._connection.send(view) :]
            except BlockingIOError:  # the peer computes and does not read
                select.select([], [self._connection], [], 1.0)

    def _sent(self, count: int) -> None:
        with self._changed:
            self._bytes -= count
            if self._bytes < self._limit:
                self._make_room()
            self._changed.notify_all()

    def _make_room(self) -> None:
        if self._full and not self._closed:
            self._full, self._told = False, True
            os.write(self._tell_room, b".")


def sleep_until(due: float) -> None:
    """Sleep, but look at the clock again and again at the end, where a sleeper would wake too late."""
    left = due - time.perf_counter() - SPIN_SECONDS
    if left > 0:
        time.sleep(left)
    while time.perf_counter() < due:
        time.sleep(0)  # lets the party's own thread run


def precise_timers() -> None:
    """Let the kernel wake this thread when it is due, instead of up to 50 microseconds later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)

"""Bytes over one connection, both ways at once: sent, received, waited for, and given up.

Nothing here knows what the bytes mean; frames and heartbeats are :mod:`mpcbench.secure.transport`'s.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NoReturn

from mpcbench.errors import PeerError
from mpcbench.secure.delay import DelayLine

DEAD_LINE_SECONDS = 8
"""After how long a connection whose other end does not answer at all is given up."""
_CHUNK = 1 << 20


class Duplex(ABC):
    """One end of a connection to the peer, whose name appears in every error, and what it may do with it.

    ``patience`` is how many seconds may pass without a byte from the peer while this party waits for it.
    ``phase`` says what this party is doing, for error messages.
    """

    def __init__(self, connection: socket.socket, peer: str, patience: float):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _notice_dead_line(connection)
        connection.setblocking(False)
        self.connection = connection
        self.peer = peer
        self.patience = patience
        self.phase: Callable[[], str] = lambda: ""
        self.emulated: tuple[float | None, float] | None = None
        self._line: DelayLine | None = None
        self._sending = threading.Lock()
        self._mid_frame = False
        self._first = memoryview(b"")  # what was begun to be sent apart from any frame, and goes out first

    @property
    @abstractmethod
    def _listening(self) -> bool:
        """Whether :meth:`_overhear` can still take something."""

    @abstractmethod
    def _overhear(self) -> bool:
        """While only sending, take what the peer says meanwhile; returns whether it said anything."""

    def emulate(self, bandwidth: float | None, delay: float, here: bool = True) -> None:
        """From now on send at ``bandwidth`` bits a second (None: unlimited) and ``delay`` seconds late.

        It concerns what this end sends; the peer does the same for its own direction. ``here`` is False
        when something else slows this end down.
        """
        self.emulated = (bandwidth, delay)
        if here:
            with self._sending:
                self._line = DelayLine(self.connection, bandwidth, delay)

    def _move(self, outgoing: list[memoryview], incoming: list[memoryview]) -> float:
        """Until ``incoming`` is full (or, when it is empty, ``outgoing`` sent) move bytes both ways.

        ``outgoing`` is consumed in place. Returns the seconds spent blocked.
        """
        waited = 0.0
        into = [view.cast("B") for view in incoming if view.nbytes]
        receiving = bool(into)
        while into if receiving else outgoing:
            moved = self._send_some(outgoing, receiving) if outgoing else False
            if into:
                moved = self._receive_some(into) or moved
            elif not moved and not receiving:
                moved = self._overhear()
            if not moved:
                waited += self._block(bool(outgoing), bool(into))
        return waited

    def _send_some(self, outgoing: list[memoryview], receiving: bool) -> bool:
        with self._sending:
            if self._first.nbytes:  # a heartbeat, say
                outgoing.insert(0, self._first)
                self._first = memoryview(b"")
            self._mid_frame = True
            view = outgoing[0].cast("B") if outgoing[0].nbytes else outgoing[0]
            if view.nbytes:
                try:
                    sent = (self._line or self.connection).send(view[:_CHUNK])
                except BlockingIOError:
                    return False
                except OSError as error:
                    if not receiving:
                        self._gone(error)
                    outgoing.clear()  # what the peer sent before, its reason perhaps, is still to be read
                    return True
                view = view[sent:]
            if view.nbytes:
                outgoing[0] = view
            else:
                outgoing.pop(0)
            self._mid_frame = bool(outgoing)
        return True

    def _receive_some(self, into: list[memoryview]) -> bool:
        try:
            received = self.connection.recv_into(into[0][:_CHUNK])
        except BlockingIOError:
            return False
        except OSError as error:
            self._gone(error)
        if received == 0:
            self._gone(None)
        into[0] = into[0][received:]
        if not into[0].nbytes:
            into.pop(0)
        return True

    def _block(self, to_send: bool, to_receive: bool) -> float:
        started = time.perf_counter()
        listening = to_receive or self._listening
        readable = [self.connection] if listening else []
        writable = []
        if to_send and self._line is not None:
            readable.append(self._line)  # readable when it takes more
        elif to_send:
            writable.append(self.connection)
        waited = 0.0
        while True:
            left = max(0.0, min(1.0, self.patience - waited)) if listening else 1.0
            ready = select.select(readable, writable, [], left)
            waited = time.perf_counter() - started
            if any(ready):
                return waited
            silent = listening and waited >= self.patience
            if _line_is_dead(self.connection, 0.75 * self.patience if silent else DEAD_LINE_SECONDS):
                self._lost("cannot be reached any more", "look at its host and at the line there.")
            if silent:
                self._lost(f"has been silent for {self.patience:g} s", "look whether it was stopped.")

    def _gone(self, error: OSError | None) -> NoReturn:
        reason = getattr(error, "reason", None) or (error.strerror if error is not None else None)
        words = f" ({reason})" if reason else ""
        self._lost(f"has closed the connection{words}", "look at its own output for the reason.")

    def _lost(self, what: str, advice: str) -> NoReturn:
        raise PeerError(f"{self.peer} {what}{self.phase()}: {advice}") from None


def _notice_dead_line(connection: socket.socket) -> None:
    """Let the kernel end an idle connection whose other kernel does not answer for some seconds."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for option, value in ((socket.TCP_KEEPIDLE, 2), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3)):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _line_is_dead(connection: socket.socket, seconds: float) -> bool:
    """Whether the kernel has repeated itself, and nothing has answered, for so many seconds.

    While bytes are on their way the kernel sends no keepalives, and gives up only after a quarter of an
    hour. (TCP_USER_TIMEOUT would not do: it also ends a connection whose peer computes and does not read.
    Here that peer's kernel answers every probe, so that two are never open.)
    """
    if sys.platform != "linux":
        return False
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
    # tcpi_retransmits, tcpi_probes and tcpi_last_ack_recv (milliseconds) of struct tcp_info, linux/tcp.h.
    retransmits, probes, silence = struct.unpack("=2xBB52xI", info)
    return max(retransmits, probes) >= 2 and silence >= seconds * 1000

"""A full-duplex TCP link between two parties.

CrypTen's own transport, gloo, sums an opening with an all-reduce, which crosses the network twice. Two
parties need no more than an exchange: both send and receive at the same time, one network trip. On
loopback that is also some twenty times quicker. The link speaks length-prefixed frames of raw bytes or
JSON; nothing a peer sends is unpickled or evaluated, and a frame of another size than the plan says is
refused before memory is allocated for it.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from mpcbench.errors import PeerError
from mpcbench.secure.delay import DelayLine

_HEADER = struct.Struct("<BQ")
_DATA, _CONTROL, _FAILURE = 1, 2, 3
_TLS_RECORDS = (0x15, 0x16)
"""First byte of what TLS sends to begin a connection, or to refuse one."""
HEADER_BYTES = _HEADER.size
MAX_CONTROL_BYTES = 16 << 20
DEAD_LINE_SECONDS = 8
"""After how long a connection whose other end does not answer at all is given up."""
_MAX_REASON_BYTES = 4096
_CHUNK = 1 << 20


@dataclass
class Wire:
    """What a link has carried so far: payload of openings, and everything else (control and headers)."""

    payload_sent: int = 0
    other_sent: int = 0


class Link:
    """One end of a connection to the peer, whose name appears in every error.

    ``patience`` is how many seconds the peer may stay silent while this party waits for it. A peer that
    dies is noticed at once, because its end of the connection closes; a host or a line that dies is
    noticed within :data:`DEAD_LINE_SECONDS`, because the peer's kernel answers even while the peer computes.
    ``role`` is what the peer has proved to be, None where the connection is not under TLS.
    """

    def __init__(
        self, connection: socket.socket, peer: str, patience: float = 120.0, role: str | None = None
    ):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _notice_dead_line(connection)
        connection.setblocking(False)
        self.connection = connection
        self.peer = peer
        self.role = role
        self.patience = patience
        self.wire = Wire()
        self.emulated: tuple[float | None, float] | None = None
        self._line: DelayLine | None = None

    def emulate(self, bandwidth: float | None, delay: float, here: bool = True) -> None:
        """From now on send at ``bandwidth`` bits a second (None: unlimited) and ``delay`` seconds late.

        It concerns what this end sends; the peer does the same for its own direction. ``here`` is False
        when something else slows this end down.
        """
        self.emulated = (bandwidth, delay)
        if here:
            self._line = DelayLine(self.connection, bandwidth, delay)

    def exchange(self, out: Sequence[memoryview], into: Sequence[memoryview]) -> float:
        """Send ``out`` and receive ``into``, at the same time; returns the seconds spent waiting.

        Either may be empty, which makes it a plain send or receive. Raises PeerError when the peer is
        gone, silent for too long, or sends another number of bytes than ``into`` holds.
        """
        payload = sum(view.nbytes for view in out)
        outgoing = [memoryview(_HEADER.pack(_DATA, payload)), *out] if out else []
        if out:
            self.wire.payload_sent += payload
            self.wire.other_sent += HEADER_BYTES
        expected = sum(view.nbytes for view in into)
        started = time.perf_counter()
        waited = 0.0
        if into:
            header = memoryview(bytearray(HEADER_BYTES))
            waited += self._move(outgoing, [header])
            kind, length = _HEADER.unpack(header)
            self._check_header(kind, length, expected)
            waited += self._move(outgoing, list(into))
        waited += self._move(outgoing, [])
        return min(waited, time.perf_counter() - started)

    def swap_control(self, message: dict) -> dict:
        """Exchange JSON objects of any size, both at the same time.

        Raises PeerError when the peer sends anything else.
        """
        outgoing = self._control(message)
        answer = self._hear(outgoing)
        self._send_all(outgoing)
        return answer

    def tell(self, message: dict) -> None:
        """Send a JSON object and wait for nothing."""
        self._send_all(self._control(message))

    def hear(self) -> dict:
        """Wait for a JSON object; raises PeerError when the peer sends anything else."""
        return self._hear([])

    def _control(self, message: dict) -> list[memoryview]:
        body = json.dumps(message).encode()
        self.wire.other_sent += HEADER_BYTES + len(body)
        return [memoryview(_HEADER.pack(_CONTROL, len(body))), memoryview(body)]

    def _hear(self, outgoing: list[memoryview]) -> dict:
        header = memoryview(bytearray(HEADER_BYTES))
        self._move(outgoing, [header])
        kind, length = _HEADER.unpack(header)
        if kind == _FAILURE:
            self._check_header(kind, length, 0)
        if kind != _CONTROL or length > MAX_CONTROL_BYTES:
            self._foreign(kind)
        received = self._body(length, outgoing)
        try:
            answer = json.loads(received)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            self._foreign()
        return answer

    def fail(self, sentence: str) -> None:
        """Tell the peer why this party gives up, if it still listens; never raises, hardly waits."""
        body = sentence.encode()[:_MAX_REASON_BYTES]
        self.patience = min(self.patience, 1.0)
        # The peer may be gone, or this end be closed: nobody to tell.
        with suppress(PeerError, OSError, ValueError):
            self._send_all([memoryview(_HEADER.pack(_FAILURE, len(body))), memoryview(body)])

    def close(self) -> None:
        """Close the connection, once what is still on an emulated line has left; safe to call twice."""
        if self._line is not None:
            self._line.close(self.patience)
        self.connection.close()

    def _check_header(self, kind: int, length: int, expected: int) -> None:
        if kind == _FAILURE and length <= _MAX_REASON_BYTES:
            # One line of printable characters, whatever the peer put there.
            words = self._body(length, []).decode(errors="replace").split()
            reason = "".join(c for c in " ".join(words) if c.isprintable())
            raise PeerError(f"{self.peer} gave up: {reason}")
        if kind != _DATA or length != expected:
            raise PeerError(
                f"{self.peer} sent {length} bytes where {expected} were due: both parties must run the same "
                "version, graph and protocol."
            )

    def _body(self, length: int, outgoing: list[memoryview]) -> bytearray:
        body = bytearray(length)
        self._move(outgoing, [memoryview(body)])
        return body

    def _send_all(self, views: list[memoryview]) -> None:
        self._move(views, [])

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
            if not moved:
                waited += self._block(bool(outgoing), bool(into))
        return waited

    def _send_some(self, outgoing: list[memoryview], receiving: bool) -> bool:
        view = outgoing[0].cast("B") if outgoing[0].nbytes else outgoing[0]
        if view.nbytes:
            try:
                sent = (self._line or self.connection).send(view[:_CHUNK])
            except BlockingIOError:
                return False
            except OSError as error:
                if not receiving:
                    self._gone(error)
                outgoing.clear()  # what the peer sent before it went, its reason perhaps, is still to be read
                return True
            view = view[sent:]
        if view.nbytes:
            outgoing[0] = view
        else:
            outgoing.pop(0)
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
        readable = [self.connection] if to_receive else []
        writable = []
        if to_send and self._line is not None:
            readable.append(self._line)  # readable when it takes more
        elif to_send:
            writable.append(self.connection)
        waited = 0.0
        while True:
            left = max(0.0, min(1.0, self.patience - waited))
            ready = select.select(readable, writable, [], left)
            waited = time.perf_counter() - started
            if any(ready):
                return waited
            if waited >= self.patience:
                self._lost(f"has been silent for {self.patience:g} s: look at its own output.")
            if _line_is_dead(self.connection):
                self._lost("cannot be reached any more: look at its host and at the line there.")

    def _gone(self, error: OSError | None) -> NoReturn:
        reason = f" ({error.strerror})" if error is not None and error.strerror else ""
        self._lost(f"has closed the connection{reason}: look at its own output for the reason.")

    def _foreign(self, kind: int = 0) -> NoReturn:
        if kind in _TLS_RECORDS:
            self._lost("speaks TLS and this end does not: give both ends --certs.")
        self._lost("does not speak mpcbench's language: is another program on that port?")

    def _lost(self, what: str) -> NoReturn:
        raise PeerError(f"{self.peer} {what}") from None


def _notice_dead_line(connection: socket.socket) -> None:
    """Let the kernel end an idle connection whose other kernel does not answer for some seconds."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for option, value in ((socket.TCP_KEEPIDLE, 2), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3)):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def _line_is_dead(connection: socket.socket) -> bool:
    """Whether the kernel has repeated itself, and nothing has answered, for DEAD_LINE_SECONDS.

    While bytes are on their way the kernel sends no keepalives, and gives up only after a quarter of an
    hour. (TCP_USER_TIMEOUT would not do: it also ends a connection whose peer computes and does not read.
    Here that peer's kernel answers every probe, so that two are never open.)
    """
    if sys.platform != "linux":
        return False
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 60)
    # tcpi_retransmits, tcpi_probes and tcpi_last_ack_recv (milliseconds) of struct tcp_info, linux/tcp.h.
    retransmits, probes, silence = struct.unpack("=2xBB52xI", info)
    return max(retransmits, probes) >= 2 and silence >= DEAD_LINE_SECONDS * 1000

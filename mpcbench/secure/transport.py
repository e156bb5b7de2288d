"""A full-duplex TCP link between two parties.

CrypTen's own transport, gloo, sums an opening with an all-reduce, which crosses the network twice. Two
parties need no more than an exchange: both send and receive at the same time, one network trip. On
loopback that is also some twenty times quicker. The link speaks length-prefixed frames of raw bytes or
JSON; nothing a peer sends is unpickled or evaluated, and a frame of another size than the plan says is
refused before memory is allocated for it.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from mpcbench.errors import PeerError
from mpcbench.secure.delay import sleep_until
from mpcbench.secure.duplex import Duplex

_HEADER = struct.Struct("<BQ")
_DATA, _CONTROL, _FAILURE, _BEAT = 1, 2, 3, 4
_TLS_RECORDS = (0x15, 0x16)
"""First byte of what TLS sends to begin a connection, or to refuse one."""
HEADER_BYTES = _HEADER.size
MAX_CONTROL_BYTES = 16 << 20
BEAT_SECONDS = 0.5
"""How often each end shows the other that its process lives, see :meth:`Link.keep_alive`."""
_MAX_REASON_BYTES = 4096


@dataclass
class Wire:
    """What a link has carried so far: payload of openings, and everything else (control and headers)."""

    payload_sent: int = 0
    other_sent: int = 0


class Link(Duplex):
    """One end of a connection to the peer, over which frames and heartbeats go.

    A peer that dies is noticed at once, because its end of the connection closes. One that computes sends
    heartbeats, so that ``patience`` runs out only when its process is stopped, or the line is cut or so slow
    that not even a heartbeat gets through. ``role`` is what the peer has proved to be, None where the
    connection is not under TLS. ``one_way`` is how many seconds a message takes, once that was measured.
    """

    def __init__(
        self, connection: socket.socket, peer: str, patience: float = 120.0, role: str | None = None
    ):
        super().__init__(connection, peer, patience)
        self.role = role
        self.wire = Wire()
        self.one_way = 0.0
        self._header, self._got = memoryview(bytearray(HEADER_BYTES)), 0
        self._closed = threading.Event()

    def keep_alive(self) -> None:
        """From now on send a heartbeat every :data:`BEAT_SECONDS` from a thread, until the link is closed."""
        threading.Thread(target=self._keep_alive, name="heartbeat", daemon=True).start()

    def _keep_alive(self) -> None:
        with suppress(OSError, ValueError):  # the connection is broken or closed: nobody left to hear it
            while not self._closed.wait(BEAT_SECONDS):
                self._send_beat()

    def _send_beat(self) -> None:
        """Send a heartbeat between two frames; a frame that is on its way is a sign of life itself."""
        with self._sending:
            if self._mid_frame:
                return
            if not self._first.nbytes:
                self._first = memoryview(_HEADER.pack(_BEAT, 0))
                self.wire.other_sent += HEADER_BYTES
            with suppress(BlockingIOError):  # the peer has a bufferful to read: then the rest goes later
                self._first = self._first[(self._line or self.connection).send(self._first) :]

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
            kind, length, waited = self._next_header(outgoing)
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

    def meet(self, message: dict) -> dict:
        """As :meth:`swap_control`, but both ends go on at the same moment, however late one of them came.

        Who comes last finds the other's message already there, and would be off while its own is on the
        way: it stays until that has arrived, after :attr:`one_way`.
        """
        arrives = time.perf_counter() + self.one_way
        answer = self.swap_control(message)
        sleep_until(arrives)
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
        kind, length, _ = self._next_header(outgoing)
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
        self._closed.set()
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

    def _next_header(self, outgoing: list[memoryview]) -> tuple[int, int, float]:
        """Kind and length of the next frame that is not a heartbeat, and the seconds spent blocked."""
        waited = 0.0
        while True:
            if self._got < HEADER_BYTES:
                waited += self._move(outgoing, [self._header[self._got :]])
            self._got = 0
            kind, length = _HEADER.unpack(self._header)
            if (kind, length) != (_BEAT, 0):
                return kind, length, waited

    @property
    def _listening(self) -> bool:
        return self._got < HEADER_BYTES  # else heartbeats lie behind a frame that nobody has received yet

    def _overhear(self) -> bool:
        """While only sending, read the headers of what comes: heartbeats, or the reason to give up.

        Returns whether anything came. The header of any other frame waits for who receives it.
        """
        if self._got == HEADER_BYTES:
            return False
        into = [self._header[self._got :]]
        moved = self._receive_some(into)
        self._got = HEADER_BYTES - (into[0].nbytes if into else 0)
        if self._got == HEADER_BYTES:
            kind, length = _HEADER.unpack(self._header)
            if kind == _FAILURE:
                self._check_header(kind, length, 0)
            if (kind, length) == (_BEAT, 0):
                self._got = 0
        return moved

    def pending(self) -> bool:
        """Whether a frame that is no heartbeat has begun to come. Raises PeerError as :meth:`check` does."""
        self.check()
        return self._got == HEADER_BYTES

    def check(self) -> None:
        """Raise PeerError if the peer has gone, or given up, while nothing was expected of it."""
        while self._overhear():
            pass

    def _body(self, length: int, outgoing: list[memoryview]) -> bytearray:
        body = bytearray(length)
        self._move(outgoing, [memoryview(body)])
        return body

    def _send_all(self, views: list[memoryview]) -> None:
        self._move(views, [])

    def _foreign(self, kind: int = 0) -> NoReturn:
        if kind in _TLS_RECORDS:
            self._lost("speaks TLS and this end does not", "give both ends --certs.")
        self._lost("does not speak mpcbench's language", "is another program on that port?")

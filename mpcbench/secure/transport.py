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
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mpcbench.errors import PeerError, UserError

_HEADER = struct.Struct("<BQ")
_DATA, _CONTROL, _FAILURE = 1, 2, 3
HEADER_BYTES = _HEADER.size
MAX_CONTROL_BYTES = 16 << 20
_SMALL = 32 << 10  # fits every socket buffer, so that both parties may send before either receives
_CHUNK = 1 << 20


@dataclass
class Wire:
    """What a link has carried so far: payload of openings, and everything else (control and headers)."""

    payload_sent: int = 0
    other_sent: int = 0


class Link:
    """One end of a connection to the peer, whose name appears in every error.

    ``patience`` is how many seconds the peer may stay silent while this party waits for it; a peer that
    dies is noticed at once, because its end of the connection closes.
    """

    def __init__(self, connection: socket.socket, peer: str, patience: float = 120.0):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        self.connection = connection
        self.peer = peer
        self.patience = patience
        self.wire = Wire()

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
        if payload <= _SMALL:
            self._send_all(outgoing)
            outgoing = []
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

    def send_control(self, message: dict) -> None:
        """Send a JSON object."""
        body = json.dumps(message).encode()
        self.wire.other_sent += HEADER_BYTES + len(body)
        self._send_all([memoryview(_HEADER.pack(_CONTROL, len(body))), memoryview(body)])

    def receive_control(self) -> dict:
        """Receive a JSON object. Raises PeerError when the peer sends anything else."""
        header = memoryview(bytearray(HEADER_BYTES))
        self._move([], [header])
        kind, length = _HEADER.unpack(header)
        if kind != _CONTROL or length > MAX_CONTROL_BYTES:
            self._check_header(kind, length, 0)
        try:
            message = json.loads(self._body(length))
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise PeerError(f"{self.peer} does not speak mpcbench's language: is another program on that port?")
        return message

    def fail(self, sentence: str) -> None:
        """Tell the peer why this party gives up; never raises."""
        body = sentence.encode()[:4096]
        try:
            self._send_all([memoryview(_HEADER.pack(_FAILURE, len(body))), memoryview(body)])
        except PeerError:
            pass  # the peer is gone: nobody to tell

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        self.connection.close()

    def _check_header(self, kind: int, length: int, expected: int) -> None:
        if kind == _FAILURE and length <= 4096:
            reason = bytes(self._body(length)).decode(errors="replace")
            raise PeerError(f"{self.peer} gave up: {reason}")
        if kind != _DATA or length != expected:
            raise PeerError(
                f"{self.peer} sent {length} bytes where {expected} were due: both parties must run the same "
                "version, graph and protocol."
            )

    def _body(self, length: int) -> bytearray:
        body = bytearray(length)
        self._move([], [memoryview(body)])
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
            moved = self._send_some(outgoing) if outgoing else False
            if into:
                moved = self._receive_some(into) or moved
            if not moved:
                waited += self._block(bool(outgoing), bool(into))
        return waited

    def _send_some(self, outgoing: list[memoryview]) -> bool:
        view = outgoing[0].cast("B") if outgoing[0].nbytes else outgoing[0]
        if view.nbytes:
            try:
                sent = self.connection.send(view[:_CHUNK])
            except BlockingIOError:
                return False
            except OSError as error:
                raise PeerError(self._gone(error)) from None
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
            raise PeerError(self._gone(error)) from None
        if received == 0:
            raise PeerError(self._gone(None))
        into[0] = into[0][received:]
        if not into[0].nbytes:
            into.pop(0)
        return True

    def _block(self, to_send: bool, to_receive: bool) -> float:
        started = time.perf_counter()
        me = [self.connection]
        ready = select.select(me if to_receive else [], me if to_send else [], [], self.patience)
        if not any(ready):
            raise PeerError(f"{self.peer} has been silent for {self.patience:.0f} s: look at its own output.")
        return time.perf_counter() - started

    def _gone(self, error: OSError | None) -> str:
        reason = f" ({error.strerror})" if error is not None and error.strerror else ""
        return f"{self.peer} has closed the connection{reason}: look at its own output for the reason."


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError when the port is taken or the address is not this machine's."""
    server = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
        server.listen(1)
    except (OSError, OverflowError) as error:
        server.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"Cannot listen on {host}:{port} ({reason}): choose another --rendezvous.") from None
    return server


def accept(server: socket.socket, peer: str, wait: float, patience: float) -> Link:
    """The link to the peer that connects within ``wait`` seconds; PeerError when none does."""
    server.settimeout(wait)
    try:
        connection, _ = server.accept()
    except TimeoutError:
        host, port = server.getsockname()[:2]
        raise PeerError(f"{peer} did not come to {host}:{port} within {wait:.0f} s: start it.") from None
    return Link(connection, peer, patience)


def connect(host: str, port: int, peer: str, wait: float, patience: float) -> Link:
    """Connect to a listening peer, trying for ``wait`` seconds; PeerError when nobody listens."""
    deadline = time.monotonic() + wait
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=max(0.1, deadline - time.monotonic()))
            return Link(connection, peer, patience)
        except (OSError, OverflowError) as error:
            if time.monotonic() + 0.05 >= deadline:
                reason = getattr(error, "strerror", None) or str(error)
                raise PeerError(
                    f"{peer} is not at {host}:{port} ({reason}; tried for {wait:.0f} s): start it there."
                ) from None
            time.sleep(0.05)

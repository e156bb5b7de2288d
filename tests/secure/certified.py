"""Certificates for tests, and links under TLS."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from mpcbench.secure.meeting import accept, connect, listen
from mpcbench.secure.tls import Credentials, read_credentials
from mpcbench.secure.transport import Link
from tests.secure.links import outcomes, together

OWNER, CLIENT = "party 0 (model owner)", "party 1 (client)"


def credentials(folder: Path, role: str) -> Credentials:
    """Those of ``role`` in a folder that ``make_certificates`` wrote."""
    return read_credentials(folder / role, role)


def tls_links(folder: Path, patience: float = 20.0) -> tuple[Link, Link]:
    """Party 0's and party 1's end of a link under TLS."""
    with listen("127.0.0.1", 0) as server:
        address = server.getsockname()
        mine, theirs = credentials(folder, "party0"), credentials(folder, "party1")
        return together(
            lambda: accept(server, CLIENT, 10, patience, mine),
            lambda: connect(*address, OWNER, 10, patience, theirs),
        )


def met(mine: Credentials | None, visit: Callable[[str, int], object]) -> tuple[object, object]:
    """What comes of party 0, who listens with these credentials, and of who visits it."""
    with listen("127.0.0.1", 0) as server:
        address = server.getsockname()
        return outcomes(lambda: accept(server, CLIENT, 5, 5, mine), lambda: visit(*address))


def raw(send: bytes) -> Callable[[str, int], bytes]:
    """A visitor that sends these bytes and reads what comes back."""

    def visit(host: str, port: int) -> bytes:
        with socket.create_connection((host, port)) as visitor:
            visitor.sendall(send)
            return visitor.recv(1024)

    return visit

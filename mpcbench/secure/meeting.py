"""How two processes find each other: one listens, the other connects, and both get a link."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence

from mpcbench.errors import PeerError, UserError
from mpcbench.secure.tls import Credentials, secured
from mpcbench.secure.transport import Link


def listen(host: str, port: int, backlog: int = 1) -> socket.socket:
    """A listening socket. Raises UserError when the port is taken or the address is not this machine's."""
    server = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind((host, port))
        server.listen(backlog)
    except (OSError, OverflowError, UnicodeError) as error:
        server.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"Cannot listen on {host}:{port} ({reason}): choose another address.") from None
    return server


def accept(
    server: socket.socket, peer: str, wait: float, patience: float,
    credentials: Credentials | None = None, roles: Sequence[str] = ("party1",),
) -> Link:  # fmt: skip
    """The link to the peer that connects within ``wait`` seconds; PeerError when none does.

    With ``credentials`` it is under TLS, and the peer has proved to have one of ``roles``.
    """
    server.settimeout(wait)
    try:
        connection, _ = server.accept()
    except TimeoutError:
        host, port = server.getsockname()[:2]
        raise PeerError(f"{peer} did not come to {host}:{port} within {wait:g} s: start it.") from None
    return _link(connection, peer, patience, credentials, roles, True, wait)


def connect(
    host: str, port: int, peer: str, wait: float, patience: float,
    credentials: Credentials | None = None, role: str = "party0",
) -> Link:  # fmt: skip
    """Connect to a listening peer, trying for ``wait`` seconds; PeerError when nobody listens.

    With ``credentials`` the link is under TLS, and the peer has proved to have ``role``.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            connection = socket.create_connection((host, port), timeout=max(0.1, deadline - time.monotonic()))
            break
        except (OSError, OverflowError, UnicodeError) as error:
            if time.monotonic() + 0.05 >= deadline:
                reason = getattr(error, "strerror", None) or str(error)
                raise PeerError(
                    f"{peer} is not at {host}:{port} ({reason}; tried for {wait:g} s): start it there."
                ) from None
            time.sleep(0.05)
    return _link(connection, peer, patience, credentials, [role], False, wait)


def _link(
    connection: socket.socket, peer: str, patience: float, credentials: Credentials | None,
    roles: Sequence[str], server_side: bool, wait: float,
) -> Link:  # fmt: skip
    role = None
    if credentials is not None:
        connection, role = secured(connection, credentials, peer, roles, server_side, wait)
    link = Link(connection, peer, patience, role)
    link.keep_alive()
    return link

"""What everybody needs who takes part in runs on several hosts: addresses, credentials, the first visitor."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from mpcbench.errors import PeerError, UserError
from mpcbench.parties.hosts import Hosts, remote
from mpcbench.secure.meeting import accept
from mpcbench.secure.tls import Credentials, read_credentials
from mpcbench.secure.transport import Link

Role = Literal["party0", "party1", "dealer"]


def address_of(hosts: Hosts, role: Role) -> tuple[str, int]:
    """Host and port at which a role listens when runs are served; raises UserError when there is none."""
    place = hosts.dealer if role == "dealer" else hosts.party(int(role[-1]))
    if place is None or place.port is None:
        raise UserError(f"The hosts file gives {role} no port, and it has to listen for compare: add one.")
    return place.host, place.port


def credentials_for(
    names: Sequence[str], role: Role, certs: Path | None, insecure: bool
) -> Credentials | None:  # fmt: skip
    """The role's credentials from the folder ``certs``; None without one, for plaintext.

    Raises UserError when it would talk in plaintext to a host of ``names`` that is not of this machine
    and nobody has said ``insecure``, when both are given, and for a folder that is not right.
    """
    if certs is not None and insecure:
        raise UserError("--certs and --insecure-no-tls contradict each other: give one of them.")
    if certs is not None:
        return read_credentials(certs, role)
    others = remote(names)
    if others and not insecure:
        raise UserError(
            f"{others[0]} is not this machine's loopback, so connections need TLS: make certificates with "
            "`mpcbench certs` and give --certs, or say --insecure-no-tls where nothing is secret."
        )
    return None


def protection(certs: Path | None, insecure: bool) -> tuple[str, ...]:
    """The same for a process of ``mpcbench party``, as options."""
    if certs is not None:
        return ("--certs", str(certs))
    return ("--insecure-no-tls",) if insecure else ()


def first_visitor(
    server: socket.socket, peer: str, wait: float, credentials: Credentials | None, roles: Sequence[str]
) -> Link:
    """The link to the first that connects and is of ours; others, such as port scans, are dropped.

    Raises PeerError when none comes within ``wait`` seconds.
    """
    deadline = time.monotonic() + wait
    while True:
        left = deadline - time.monotonic()
        try:
            return accept(server, peer, max(0.1, left), float("inf"), credentials, roles)
        except PeerError:
            if time.monotonic() >= deadline:
                raise

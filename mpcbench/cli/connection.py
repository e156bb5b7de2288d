"""Options by which a party and the dealer find the others, and by which their connections are protected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mpcbench.parties.site import Role
    from mpcbench.secure.tls import Credentials

PARTIES_MEET, DEALER_LISTENS = "127.0.0.1:29500", "127.0.0.1:29501"
START_SECONDS = 60.0
"""How long a process may be silent before the greeting: importing PyTorch from a cold disk holds it up."""

_OPTIONS = (
    click.option("--hosts", type=click.Path(path_type=Path), metavar="FILE",
                 help="All addresses in one YAML file, the same on every host; see docs/hosts.md."),
    click.option("--certs", type=click.Path(path_type=Path), metavar="DIR",
                 help="This role's folder of those that `mpcbench certs` made: connections are under TLS."),
    click.option("--insecure-no-tls", is_flag=True,
                 help="Talk in plaintext to other hosts: anybody on the line can read and change it."),
    click.option("--wait", type=click.FloatRange(0.1), default=10, show_default=True,
                 help="Seconds for the others to come."),
    click.option("--timeout", type=click.FloatRange(1), default=6, show_default=True,
                 help="Seconds without a sign of life after which another process is given up; all send "
                 "one twice a second, also while they compute."),
)  # fmt: skip


def connection_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add all of them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def fixed_seeds_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--insecure-fixed-seeds``, for tests and hidden; the command gets it as ``fixed_seeds``, or 0."""
    option = click.option(
        "--insecure-fixed-seeds", "fixed_seeds", type=click.IntRange(1), hidden=True,
        callback=lambda context, parameter, number: number or 0,
    )  # fmt: skip
    return option(function)


@dataclass(frozen=True)
class Places:
    """Where parties meet, where the dealer listens, and how connections are protected.

    ``credentials`` are None for plaintext, ``remote`` says whether any process is on another host.
    """

    parties: tuple[str, int]
    dealer: tuple[str, int] | None
    credentials: Credentials | None
    remote: bool


def places(
    role: Role, rendezvous: str | None, dealer: str | None, hosts: Path | None, certs: Path | None,
    insecure_no_tls: bool,
) -> Places:  # fmt: skip
    """What the options mean for ``role``; raises UserError when they contradict each other, and as
    :func:`mpcbench.parties.site.credentials_for` does."""
    from mpcbench.errors import UserError
    from mpcbench.parties.handshake import address
    from mpcbench.parties.hosts import read_hosts, remote
    from mpcbench.parties.site import credentials_for

    if hosts is not None:
        if rendezvous is not None or dealer is not None:
            raise UserError("--hosts names all addresses: give it without --rendezvous or --dealer.")
        listed = read_hosts(hosts)
        parties, names = listed.rendezvous, listed.names()
        dealt = (listed.dealer.host, listed.dealer.port) if listed.dealer else None
    else:
        parties = address(rendezvous or PARTIES_MEET)
        dealt = address(dealer) if dealer is not None else None
        names = [place[0] for place in (parties, dealt) if place is not None]
    credentials = credentials_for(names, role, certs, insecure_no_tls)
    return Places(parties, dealt, credentials, bool(remote(names)))

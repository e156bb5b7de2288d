"""``mpcbench serve``: the client, or the dealer, for all runs of a ``compare`` on another host."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mpcbench.parties.hosts import Hosts
    from mpcbench.secure.tls import Credentials
    from mpcbench.secure.transport import Link


@click.command()
@click.argument("role", type=click.Choice(["client", "dealer"]))
@click.option("--hosts", type=click.Path(path_type=Path), required=True, metavar="FILE",
              help="YAML with the addresses of both parties and the dealer.")  # fmt: skip
@click.option("--certs", type=click.Path(path_type=Path), metavar="DIR",
              help="This role's folder of `mpcbench certs`.")  # fmt: skip
@click.option("--insecure-no-tls", is_flag=True,
              help="Talk to other hosts in plaintext, which anybody on the line can read.")  # fmt: skip
@click.option("--wait", type=click.FloatRange(0.1), default=600, show_default=True,
              help="Seconds for the model owner to come.")  # fmt: skip
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Dealer's threads.")
def command(
    role: str, hosts: Path, certs: Path | None, insecure_no_tls: bool, wait: float, threads: int
) -> None:
    """Take part in all runs of `mpcbench compare --hosts FILE` as the client, or as the dealer.

    It listens at its address, and ends when the model owner's compare has ended. The client gets its own
    shares of every checkpoint, the prompt of the comparison, and the logits; it gives the logits back, which
    a comparison holds against plaintext.
    """
    from mpcbench.parties.hosts import read_hosts
    from mpcbench.parties.site import credentials_for, protection

    found = read_hosts(hosts)
    name = {"client": "party1", "dealer": "dealer"}[role]
    credentials = credentials_for(found.names(), name, certs, insecure_no_tls)
    if role == "client":
        _client(found, credentials, wait, protection(certs, insecure_no_tls))
    else:
        _dealer(found, credentials, wait, threads)


def _client(
    hosts: Hosts, credentials: Credentials | None, wait: float, protected: tuple[str, ...]
) -> None:  # fmt: skip
    from mpcbench.parties.site import address_of, first_visitor
    from mpcbench.secure.meeting import listen

    with listen(*address_of(hosts, "party1"), backlog=8) as server:
        click.echo(f"client: listening on {_where(server)} for the model owner.", err=True)
        link = first_visitor(server, "the model owner", wait, credentials, ["party0"])
        runs = _take_part(link, protected)
    click.echo(f"client: took part in {runs} runs.", err=True)


def _take_part(link: Link, protected: tuple[str, ...]) -> int:
    from mpcbench.parties.server import ClientServer

    with tempfile.TemporaryDirectory(prefix="mpcbench-client-") as scratch:
        try:
            return ClientServer(link, Path(scratch), protected).serve()
        except Exception as error:
            link.fail(str(error))
            raise
        finally:
            link.close()


def _dealer(hosts: Hosts, credentials: Credentials | None, wait: float, threads: int) -> None:
    import torch

    from mpcbench.parties.site import address_of
    from mpcbench.secure.meeting import accept, listen
    from mpcbench.secure.randomness.service import Service

    torch.set_num_threads(threads)
    with listen(*address_of(hosts, "dealer"), backlog=8) as server:
        click.echo(f"dealer: listening on {_where(server)} for both parties.", err=True)

        def visitor():
            return accept(server, "a party", 10.0, 120.0, credentials, ["party0", "party1"])

        runs = Service(server, visitor, lambda line: click.echo(f"dealer: {line}", err=True)).run(wait)
    click.echo(f"dealer: dealt for {runs} runs.", err=True)


def _where(server) -> str:
    host, port = server.getsockname()[:2]
    return f"{host}:{port}"

"""``mpcbench dealer``: the process that makes correlated randomness for two parties."""

from __future__ import annotations

import threading
from pathlib import Path

import click

from mpcbench.cli.connection import (
    DEALER_LISTENS,
    START_SECONDS,
    connection_options,
    fixed_seeds_option,
    places,
)


@click.command()
@click.option("--rendezvous", metavar="HOST:PORT", help=f"Where to listen [default: {DEALER_LISTENS}].")
@connection_options
@fixed_seeds_option
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads to compute with."
)
@click.option("--events", is_flag=True, hidden=True)
def command(
    rendezvous: str | None, hosts: Path | None, certs: Path | None, insecure_no_tls: bool, wait: float,
    timeout: float, fixed_seeds: int, threads: int, events: bool,
) -> None:  # fmt: skip
    """Make correlated randomness for one run of two parties, and end with it.

    Start it before the parties and give both the same --dealer HOST:PORT, or all three the same --hosts. It
    must run where neither party can look: whoever sees its memory can read what the parties hide from each
    other.
    """
    from mpcbench.cli.party import emit, end_with_launcher
    from mpcbench.errors import UserError
    from mpcbench.secure.meeting import accept, listen

    if events:
        threading.Thread(target=end_with_launcher, daemon=True).start()
    if hosts is None:
        rendezvous = rendezvous or DEALER_LISTENS
    where = places("dealer", None, rendezvous, hosts, certs, insecure_no_tls)
    if where.dealer is None:
        raise UserError(f"{hosts} names no dealer: add `dealer: {{host: ..., port: ...}}`.")
    host, port = where.dealer
    with listen(host, port, backlog=2) as server:
        if events:
            emit({"event": "listening", "port": server.getsockname()[1]})
        else:
            click.echo(f"Listening on {host}:{server.getsockname()[1]} for two parties.", err=True)
        import torch

        from mpcbench.secure.randomness.prg import fix_seeds
        from mpcbench.secure.randomness.server import serve, welcome

        if fixed_seeds:
            fix_seeds(fixed_seeds, "dealer")
        torch.set_num_threads(threads)
        parties = ("party0", "party1")
        links = [accept(server, "a party", wait, START_SECONDS, where.credentials, parties) for _ in range(2)]
    try:
        client, seeds = welcome(links)
        for link in links:
            link.patience = timeout
        sent = serve(client, seeds)
    finally:
        for link in links:
            link.close()
    if not events:
        click.echo(f"dealt {sent / 1e6:.3f} MB of corrections to party 1.")

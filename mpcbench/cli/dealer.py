"""``mpcbench dealer``: the process that makes correlated randomness for two parties."""

from __future__ import annotations

import threading

import click


@click.command()
@click.option("--rendezvous", default="127.0.0.1:29501", show_default=True, help="HOST:PORT to listen at.")
@click.option(
    "--wait", type=click.FloatRange(0.1), default=10, show_default=True,
    help="Seconds for both parties to come.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads to compute with."
)
@click.option("--events", is_flag=True, hidden=True)
def command(rendezvous: str, wait: float, threads: int, events: bool) -> None:
    """Make correlated randomness for one run of two parties, and end with it.

    Start it before the parties and give both the same --dealer HOST:PORT. It must run where neither party
    can look: whoever sees its memory can read what the parties hide from each other.
    """
    from mpcbench.cli.party import emit, end_with_launcher
    from mpcbench.parties.handshake import address
    from mpcbench.secure.meeting import accept, listen

    if events:
        threading.Thread(target=end_with_launcher, daemon=True).start()
    host, port = address(rendezvous)
    with listen(host, port, backlog=2) as server:
        if events:
            emit({"event": "listening", "port": server.getsockname()[1]})
        else:
            click.echo(f"Listening on {host}:{server.getsockname()[1]} for two parties.", err=True)
        import torch

        from mpcbench.secure.randomness.server import serve, welcome

        torch.set_num_threads(threads)
        links = [accept(server, "a party", wait, patience=120.0) for _ in range(2)]
    try:
        client, seeds = welcome(links)
        sent = serve(client, seeds)
    finally:
        for link in links:
            link.close()
    if not events:
        click.echo(f"dealt {sent / 1e6:.3f} MB of corrections to party 1.")

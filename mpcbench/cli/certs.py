"""``mpcbench certs``: certificates with which the processes of a run on several hosts know each other."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("certs"),
              show_default=True, help="Folder to write to.")  # fmt: skip
@click.option(
    "--days", type=click.IntRange(1, 3650), default=365, show_default=True, help="How long they are valid."
)
def command(out: Path, days: int) -> None:
    """Make a private authority and a certificate for each party and the dealer, in one folder a role.

    Copy OUT/party0, OUT/party1 and OUT/dealer to their hosts, over a channel that you trust, and name each
    with --certs there. The authority's key is not kept.
    """
    from mpcbench.parties.certificates import make_certificates

    for folder in make_certificates(out, days):
        click.echo(f"{folder}: for {folder.name} alone, valid for {days} days")

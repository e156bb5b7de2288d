"""`mpcbench doctor`: what is installed, what is missing, and what to do about it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from mpcbench.cli.output import json_option, messages, print_json, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from mpcbench.cli.checks import Check

_STYLE = {"ok": "green", "note": "yellow", "missing": "bold red"}


@click.command()
@json_option
def command(as_json: bool) -> None:
    """Say what is installed, what is missing and what to do.

    The exit code is 1 if something is missing that the main job needs, otherwise 0.
    """
    from dataclasses import asdict

    from mpcbench.cli.checks import run_checks

    rows: list[Check] = []
    with messages().status("Looking around ..."):
        rows.extend(run_checks())
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        print_table(table(rows))
    missing = [row.name for row in rows if row.state == "missing"]
    if not as_json:
        click.echo(f"Missing: {', '.join(missing)}." if missing else "Ready: `mpcbench compare` can run.")
    sys.exit(1 if missing else 0)


def table(rows: list[Check]) -> Table:
    """The rows as a rich table."""
    from rich.table import Table
    from rich.text import Text

    shown = Table("what", "state", "found", "what to do", title="mpcbench doctor")
    for row in rows:
        # Text, not markup: messages of other packages may hold square brackets.
        shown.add_row(row.name, Text(row.state, _STYLE[row.state]), Text(row.found), Text(row.advice))
    return shown

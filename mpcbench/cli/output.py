"""What every command that prints a table shares: ``--json``, and where messages go.

Tables and JSON go to standard output, everything else (progress, advice) to standard error, so that
``mpcbench compare --json > records.json`` holds the records alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from mpcbench.records.schema import Record

Function = TypeVar("Function", bound=Callable[..., Any])


def json_option(function: Function) -> Function:
    """Add ``--json``; the command receives it as the keyword argument ``as_json: bool``."""
    option = click.option(
        "--json", "as_json", is_flag=True, help="Print the records as JSON on standard output, and no table."
    )
    return option(function)


def print_json(items: Iterable[BaseModel | Mapping[str, Any]]) -> None:
    """Print pydantic models or mappings as one JSON array on standard output."""
    rows = [item if isinstance(item, Mapping) else item.model_dump(mode="json") for item in items]
    click.echo(json.dumps(rows, indent=2, ensure_ascii=False))


def print_record(record: Record, table: Callable[[], Any], as_json: bool) -> None:
    """Print one record on standard output: as JSON, or as the rich table that ``table`` makes of it."""
    from rich.console import Console

    from mpcbench.records.store import to_json
    from mpcbench.report.terminal import WIDTH

    if as_json:
        click.echo(to_json([record]))
    else:
        Console(width=WIDTH).print(table())


def print_table(table: Any) -> None:
    """Print a rich table on standard output; wide enough not to cut columns when that is not a terminal."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 160))
    console.print(table)


def messages() -> Console:
    """A rich console on standard error, for progress and advice."""
    from rich.console import Console

    return Console(stderr=True)


def say(text: str) -> None:
    """A line on standard error as it is: a path in it stays in one piece, however narrow the terminal."""
    messages().print(text, highlight=False, markup=False, soft_wrap=True)

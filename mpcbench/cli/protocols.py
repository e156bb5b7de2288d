"""``mpcbench protocols``: what can be named as --protocol, and what each is made of."""

from __future__ import annotations

import click

from mpcbench.cli.output import json_option, print_json, print_table


@click.command()
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the protocols, or show the operators of protocol NAME (or of a YAML file)."""
    from rich.table import Table

    from mpcbench.secure.protocol import available, load_protocol

    protocols = [load_protocol(name)] if name else [load_protocol(each) for each in available()]
    if as_json:
        print_json([{**protocol.settings, "sha256": protocol.sha256()} for protocol in protocols])
        return
    if name is None:
        table = Table("protocol", "provider", "fraction bits", "what it is")
        for protocol in protocols:
            bits = str(protocol.fixed_point.fraction_bits)
            table.add_row(protocol.name, protocol.provider, bits, protocol.summary)
    else:
        table = Table("operator", "implementation", "right on", "source", title=protocols[0].name)
        for op, operator in protocols[0].operators.items():
            table.add_row(op, operator.name, operator.domain, operator.source)
    print_table(table)

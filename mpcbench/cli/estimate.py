"""``mpcbench estimate``: what runs will cost, from a configuration alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mpcbench.cli.output import json_option, messages
from mpcbench.cli.workload import numbers, split_names

if TYPE_CHECKING:
    from mpcbench.parties.network import LinkProfile
    from mpcbench.pipeline.estimate import Variant
    from mpcbench.records.schema import Record
    from mpcbench.secure.protocol import Protocol


@click.command()
@click.option(
    "--model", default="smollm2-135m", show_default=True, help="Packaged name, config.json, folder or Hub id."
)
@click.option(
    "--shares",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Price this export, with the ranges that it was calibrated to, instead of --model.",
)
@click.option(
    "--layers",
    callback=numbers,
    help="Numbers of polynomial layers, such as 0,8,16 [default: as the configuration says].",
)
@click.option("--degree", type=int, default=2, show_default=True, help="Degree of the polynomials.")
@click.option(
    "--placement",
    type=click.Choice(["first", "last"]),
    default="last",
    show_default=True,
    help="Which layers are polynomial.",
)
@click.option("--tokens", callback=numbers, default="32", show_default=True, help="Lengths of the prompt.")
@click.option(
    "--decode",
    is_flag=True,
    help="Price the one token that follows so many, whose keys and values are cached.",
)
@click.option(
    "--protocol",
    default="crypten",
    show_default=True,
    help="Names of protocols or YAML files, with commas between them.",
)
@click.option("--provider", help="dealer or first-party [default: the protocol's; dealer for several].")
@click.option("--network", default="lan,wan", show_default=True, help="Links, by name or YAML file.")
@click.option(
    "--embedding",
    type=click.Choice(["client", "private"]),
    default="client",
    show_default=True,
    help="Where tokens are embedded.",
)
@click.option(
    "--compute",
    type=click.Path(path_type=Path, exists=True),
    multiple=True,
    metavar="RECORDS",
    help="Add the time to compute that these loopback records measured.",
)
@click.option(
    "--widen",
    type=click.FloatRange(min=0.01),
    default=1.0,
    show_default=True,
    help="A factor on ranges that have to be assumed.",
)
@click.option(
    "--by",
    type=click.Choice(["total", "operator", "layer", "block"]),
    default="total",
    show_default=True,
    help="Rows of the table; blocks are those of one layer, on average.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write tables and figures to this folder as well.",
)
@json_option
def command(
    model: str, shares: Path | None, layers: list[int] | None, degree: int, placement: str, tokens: list[int],
    decode: bool, protocol: str, provider: str | None, network: str, embedding: str,
    compute: tuple[Path, ...], widen: float, by: str, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Add up what runs will cost: bytes, rounds and correlated randomness by phase, and latency by link.

    Nothing runs and no weights are read. Bytes, rounds and tuples are those of a run with the same ranges;
    latency is the link's share, unless --compute names measured records.
    """
    from mpcbench.errors import UserError
    from mpcbench.pipeline.estimate import Setting, estimate

    if decode and compute:
        raise UserError("--compute holds whole prompts: leave it out with --decode.")
    links = chosen_links(network)
    protocols = chosen_protocols(protocol, provider)
    found = _variants(model, shares, layers, degree, placement, embedding)
    records = estimate(found, Setting(protocols, tokens, links, _records(compute), widen, decode))
    _report(records, by, out, as_json)


def chosen_links(names: str) -> list[LinkProfile]:
    """Links by name; raises UserError for one that is unknown or named twice."""
    from mpcbench.parties.network import load_link

    return [load_link(name) for name in split_names(names, "--network")]


def chosen_protocols(names: str, provider: str | None) -> list[Protocol]:
    """Protocols by name, several of them with one provider: the dealer, unless told otherwise."""
    from mpcbench.secure.protocol import load_protocol

    parts = split_names(names, "--protocol")
    provider = provider or ("dealer" if len(parts) > 1 else None)
    return [load_protocol(name, provider) for name in parts]


def _variants(
    model: str, shares: Path | None, layers: list[int] | None, degree: int, placement: str, embedding: str
) -> list[Variant]:
    from mpcbench.errors import UserError
    from mpcbench.pipeline.estimate import exported, read_architecture, variants

    if shares is None:
        return variants(read_architecture(model), layers, degree, placement, embedding)
    if layers is not None:
        raise UserError("--shares already says which layers are polynomial: leave --layers out.")
    return [exported(shares)]


def _records(paths: tuple[Path, ...]) -> list[Record]:
    from mpcbench.errors import UserError
    from mpcbench.records.store import read, read_folder

    found = {path: read_folder(path) if path.is_dir() else [read(path)] for path in paths}
    for path, records in found.items():
        if not records:
            raise UserError(
                f"{path} holds no records: give --compute a file or a folder that `compare` wrote."
            )
    return [record for records in found.values() for record in records]


def _report(records: list[Record], by: str, out: Path | None, as_json: bool) -> None:
    from rich.console import Console

    from mpcbench.records.store import to_json
    from mpcbench.report.curves import write_curves
    from mpcbench.report.estimates import terminal_estimates, write_estimates

    written = [*write_estimates(records, out), *write_curves(records, out)] if out is not None else []
    if as_json:
        click.echo(to_json(records))
    else:
        Console(width=120).print(terminal_estimates(records, by))
    if written:
        messages().print(f"wrote {len(written)} files to {out}", highlight=False, markup=False)

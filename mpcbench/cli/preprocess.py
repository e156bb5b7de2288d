"""``mpcbench preprocess``: correlated randomness ahead of time, into one folder a party."""

from __future__ import annotations

from pathlib import Path

import click

from mpcbench.cli.output import json_option, print_json, print_table


@click.command()
@click.argument("graph", type=click.Path(path_type=Path))
@click.option("--tokens", type=click.IntRange(2), required=True, help="How many tokens the prompt will have.")
@click.option("--inferences", type=click.IntRange(1, 10_000), required=True,
              help="For how many inferences, warm-ups included.")  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to."
)
@click.option("--protocol", default="crypten", show_default=True, help="A protocol's name or YAML file.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True,
              help="Threads to compute with.")  # fmt: skip
@json_option
def command(
    graph: Path, tokens: int, inferences: int, out: Path, protocol: str, threads: int, as_json: bool
) -> None:
    """Make the correlated randomness of several inferences ahead of time: writes OUT/party0 and OUT/party1.

    GRAPH is the graph.json of `mpcbench export`, or a folder that it wrote: the dealer needs no weight. Give
    each party its folder alone, and keep none: whoever holds both can read what the parties hide. Every
    inference's material is used once, and marked before.
    """
    import torch

    from mpcbench.cli.progress import progress_bars
    from mpcbench.errors import UserError
    from mpcbench.secure.protocol import load_protocol
    from mpcbench.secure.randomness.ahead import preprocess

    torch.set_num_threads(threads)
    found = _graph(graph)
    if tokens > found.max_tokens:
        raise UserError(f"The model takes 2 to {found.max_tokens} tokens: give fewer --tokens.")
    chosen = load_protocol(protocol, "dealer")
    with progress_bars() as shown:
        shown.stage("rehearsing an inference")
        both = preprocess(found, chosen, tokens, inferences, out, shown.step)
    rows = [_row(out, rank, about) for rank, about in enumerate(both)]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    columns = ("party", "folder", "setup [MB]", "an inference [MB]", "in all [MB]", "dealer [s]")
    table = Table(*columns, title=f"material for {inferences} inferences of {tokens} tokens, {chosen.name}")
    for row in rows:
        table.add_row(
            str(row["party"]), row["folder"], *(f"{row[key] / 1e6:.3f}" for key in _SIZES),
            f"{row['dealer_seconds']:.2f}",
        )  # fmt: skip
    print_table(table)


_SIZES = ("setup_bytes", "inference_bytes", "bytes")


def _graph(path: Path):
    from mpcbench.graph.secure_graph import SecureGraph

    if path.is_dir():
        exported = path / "party0" / "graph.json"
        path = exported if exported.is_file() else path / "graph.json"
    return SecureGraph.read(path)


def _row(out: Path, rank: int, about) -> dict:
    from mpcbench.secure.randomness.material import SETUP, inference_file

    return {
        "party": rank,
        "folder": str(out / f"party{rank}"),
        "inferences": about.inferences,
        "setup_bytes": about.files[SETUP].bytes,
        "inference_bytes": about.files[inference_file(0)].bytes,
        "bytes": sum(info.bytes for info in about.files.values()),
        "dealer_seconds": sum(info.dealer_seconds for info in about.files.values()),
    }

"""``mpcbench export``: capture a checkpoint and cut its weights into shares."""

from __future__ import annotations

from pathlib import Path

import click

from mpcbench.cli.output import json_option, print_json, print_table
from mpcbench.cli.workload import prefix_of


@click.command()
@click.argument("checkpoint")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to."
)
@click.option("--embedding", type=click.Choice(["client", "private"]), default="client", show_default=True,
              help="Where tokens are embedded: a public table at the client, or under MPC.")  # fmt: skip
@click.option("--prefix", default="", metavar="TEXT",
              help="Text in front of every prompt, as constants of the model.")  # fmt: skip
@click.option("--protocol", default="crypten", show_default=True, help="Decides the fixed-point format.")
@click.option(
    "--calibration-data",
    metavar="FILE",
    help="Text for the ranges of approximations. Default: packaged text.",
)
@json_option
def command(
    checkpoint: str, out: Path, embedding: str, prefix: str, protocol: str, calibration_data: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Cut CHECKPOINT (name, Hub id, folder or .gguf file) into shares: writes OUT/party0 and OUT/party1.

    Neither folder alone reveals a weight. Give party0 to the model owner and party1 to the client.
    """
    from mpcbench.checkpoints import load
    from mpcbench.cli.progress import progress_bars
    from mpcbench.distill import calibration_texts
    from mpcbench.hub import reachable
    from mpcbench.pipeline.export import export
    from mpcbench.secure.protocol import load_protocol

    reachable()
    bits = load_protocol(protocol).fixed_point.fraction_bits
    texts = calibration_texts(calibration_data)
    with progress_bars() as shown:
        shown.stage(f"loading {checkpoint}")
        model = load(checkpoint)
        front = prefix_of(model, prefix)
        info = export(model, out, embedding, bits, texts, shown.step, front.tokens if front else None)
    rows = [
        {
            "party": rank,
            "holder": ("model owner", "client")[rank],
            "folder": str(out / f"party{rank}"),
            "bytes": sum(file.stat().st_size for file in (out / f"party{rank}").rglob("*") if file.is_file()),
        }
        for rank in (0, 1)
    ]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    replaced = f"{len(info.polynomial_layers)} of {info.layers} layers polynomial"
    title = f"{info.name}, {replaced}, embedding: {embedding}"
    table = Table("party", "folder", "MB", title=title)
    for row in rows:
        table.add_row(f"{row['party']} ({row['holder']})", row["folder"], f"{row['bytes'] / 1e6:.1f}")
    print_table(table)

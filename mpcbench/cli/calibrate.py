"""``mpcbench calibrate``: fit polynomials to a model and write a PolyLlama checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mpcbench.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from mpcbench.checkpoints import Provenance


@click.command()
@click.option(
    "--model", default="smollm2-135m", show_default=True, help="Name, Hub id, folder or .gguf file."
)
@click.option("--layers", type=int, help="How many layers to replace.")
@click.option(
    "--degree", type=int, default=2, show_default=True, help="Degree of the polynomials: 2, 3 or 4."
)
@click.option(
    "--placement",
    default="least-sensitive",
    show_default=True,
    help="Which layers: least-sensitive, first, last, or a list such as 1,5,7.",
)
@click.option("--shared", is_flag=True, help="One polynomial for a whole layer instead of one a channel.")
@click.option(
    "--calibration-data",
    metavar="FILE",
    help="Text (a passage a line) or ARC's JSONL. Default: packaged text.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the checkpoint. Default: the cache.")
@json_option
def command(
    model: str,
    layers: int | None,
    degree: int,
    placement: str,
    shared: bool,
    calibration_data: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Replace SwiGLU layers by fitted polynomials; no training, seconds a layer."""
    from mpcbench.checkpoints import load, read_provenance
    from mpcbench.cli.progress import progress_bars
    from mpcbench.distill import calibrate, calibration_texts

    texts = calibration_texts(calibration_data)
    checkpoint = load(model)
    with progress_bars() as shown:
        folder = calibrate(checkpoint, layers, degree, placement, texts, shown.step, not shared, out)
    provenance = read_provenance(folder)
    if as_json:
        print_json([{"folder": str(folder), **provenance.model_dump(mode="json")}])
    else:
        print_table(_table(folder, provenance))


def _table(folder: Path, provenance: Provenance):
    from rich.table import Table

    held_out = provenance.held_out
    shape = "each channel" if provenance.per_channel else "each layer"
    rows = {
        "checkpoint": str(folder),
        "original": f"{provenance.original} ({provenance.original_source})",
        "polynomial layers": f"{len(provenance.polynomial_layers)}: "
        + " ".join(str(layer) for layer in provenance.polynomial_layers),
        "placement": provenance.placement,
        "polynomials": f"degree {provenance.degree}, one for {shape}",
        "fitted on": f"{provenance.calibration}, {provenance.calibration_tokens} tokens",
        "held-out KL": f"{held_out.kl:.5f} nats a token ({held_out.tokens} tokens)",
        "held-out argmax agreement": f"{held_out.argmax_agreement:.1%}",
    }
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    return table

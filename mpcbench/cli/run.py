"""``mpcbench run``: one checkpoint or one export, both parties on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mpcbench.cli.output import json_option, messages
from mpcbench.cli.workload import settings, workload_options, writable

if TYPE_CHECKING:
    from mpcbench.records.schema import Record


@click.command()
@click.argument("model", default="smollm2-135m")
@click.option("--shares", type=click.Path(path_type=Path), metavar="DIR",
              help="Use this export of MODEL instead of cutting new shares.")  # fmt: skip
@click.option("--material", type=click.Path(path_type=Path), metavar="DIR",
              help="Randomness that `mpcbench preprocess` wrote, instead of a dealer.")  # fmt: skip
@click.option("--accuracy/--no-accuracy", default=False, help="Score the checkpoint in plaintext as well.")
@workload_options
@json_option
def command(
    model: str, shares: Path | None, accuracy: bool, calibration_data: str | None, task_data: Path | None,
    limit: int | None, results: Path, as_json: bool, **options: object,
) -> None:  # fmt: skip
    """Run MODEL (name, Hub id, folder or .gguf file) under two-party computation and record it."""
    from mpcbench.checkpoints import load
    from mpcbench.cli.progress import progress_bars
    from mpcbench.distill import calibration_texts
    from mpcbench.hub import reachable
    from mpcbench.pipeline.export import export
    from mpcbench.pipeline.single import check_shares, run_single
    from mpcbench.records.store import write

    reachable()
    writable(results)
    texts = calibration_texts(calibration_data)
    with progress_bars() as shown, tempfile.TemporaryDirectory(prefix="mpcbench-shares-") as scratch:
        shown.stage(f"loading {model}")
        checkpoint = load(model)
        chosen = settings(checkpoint, **options)
        if shares is None:
            shares = Path(scratch)
            bits = chosen.protocol.fixed_point.fraction_bits
            export(checkpoint, shares, chosen.embedding, bits, texts, shown.step)
        else:
            chosen = check_shares(shares, checkpoint, chosen)
        shown.stage("two parties, secret-shared")
        scored = (task_data, limit) if accuracy else None
        record = run_single(shares, checkpoint, chosen, scored, shown.step)
    path = write(record, results)
    _print(record, as_json)
    messages().print(f"wrote {path}", highlight=False, markup=False)


def _print(record: Record, as_json: bool) -> None:
    from rich.console import Console

    from mpcbench.records.store import to_json
    from mpcbench.report.terminal import WIDTH, terminal_table

    if as_json:
        click.echo(to_json([record]))
    else:
        Console(width=WIDTH).print(terminal_table([record]))

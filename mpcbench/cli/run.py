"""``mpcbench run``: one checkpoint or one export, both parties on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from mpcbench.cli.connection import fixed_seeds_option
from mpcbench.cli.output import json_option, print_record, say
from mpcbench.cli.workload import refuse_early, settings, workload_options, writable


@click.command()
@click.argument("model", default="smollm2-135m")
@click.option("--shares", type=click.Path(path_type=Path), metavar="DIR",
              help="Use this export of MODEL instead of cutting new shares.")  # fmt: skip
@click.option("--material", type=click.Path(path_type=Path), metavar="DIR",
              help="Randomness that `mpcbench preprocess` wrote, instead of a dealer.")  # fmt: skip
@click.option("--accuracy/--no-accuracy", default=False, help="Score the checkpoint in plaintext as well.")
@fixed_seeds_option
@workload_options
@json_option
def command(
    model: str, shares: Path | None, fixed_seeds: int, accuracy: bool, calibration_data: str | None,
    task_data: Path | None, limit: int | None, results: Path, as_json: bool, **options: object,
) -> None:  # fmt: skip
    """Run MODEL (name, Hub id, folder or .gguf file) under two-party computation and record it."""
    from mpcbench.checkpoints import load
    from mpcbench.cli.progress import progress_bars
    from mpcbench.distill import calibration_texts
    from mpcbench.hub import reachable
    from mpcbench.pipeline.single import export_and_run
    from mpcbench.records.store import write
    from mpcbench.report.terminal import terminal_table

    reachable()
    writable(results)
    texts = calibration_texts(calibration_data)
    refuse_early(task_data=task_data, **options)
    with progress_bars() as shown:
        shown.stage(f"loading {model}")
        checkpoint = load(model)
        chosen = replace(settings(checkpoint, **options), fixed_seeds=fixed_seeds)
        scored = (task_data, limit) if accuracy else None
        record = export_and_run(shares, checkpoint, chosen, texts, scored, shown.step, shown.stage)
    try:
        path = write(record, results)
    finally:  # on a full disk the numbers are on the screen at least
        print_record(record, lambda: terminal_table([record]), as_json)
    say(f"wrote {path}")

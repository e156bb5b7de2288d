"""``mpcbench sweep``: a grid of measurements from one file."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mpcbench.cli.output import json_option, messages
from mpcbench.cli.progress import in_words
from mpcbench.cli.workload import DEFAULT_PROMPT, settings, writable

if TYPE_CHECKING:
    from mpcbench.cli.progress import Shown
    from mpcbench.pipeline.sweep import Sweep
    from mpcbench.records.schema import Record


def _show_example(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from mpcbench.pipeline.sweep import example

        click.echo(example(), nl=False)
        context.exit()


@click.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.yaml")
@click.option("--example", is_flag=True, is_eager=True, expose_value=False, callback=_show_example,
              help="Print such a file, to begin with.")  # fmt: skip
@click.option("--estimate", "only_estimate", is_flag=True, help="Print the estimates and run nothing.")
@click.option("--ray", "address", metavar="ADDRESS",
              help="Hand every cell to this Ray cluster; `local` is this machine as one.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=Path("results/sweep"),
              show_default=True, help="Folder for the records and sweep.csv.")  # fmt: skip
@json_option
def command(file: Path, only_estimate: bool, address: str | None, results: Path, as_json: bool) -> None:
    """Measure every combination of model, layers, protocol, tokens, link and seed that FILE.yaml names.

    Estimates come first. A record is written for every cell as soon as it is measured; called again after
    an interruption, the sweep goes on where it stopped.
    """
    import psutil

    from mpcbench.cli.progress import progress_bars
    from mpcbench.errors import UserError
    from mpcbench.pipeline.memory import check_memory
    from mpcbench.pipeline.sweep import read_sweep, unmeasured

    plan = read_sweep(file, results, partial(settings, prompt=DEFAULT_PROMPT, rendezvous="127.0.0.1:0"))
    parameters = _estimates(plan, as_json and only_estimate)
    if only_estimate:
        return
    if address is None:
        wanted = {cell.model for cell in unmeasured(plan)} & parameters.keys()
        check_memory({name: parameters[name] for name in wanted}, psutil.virtual_memory().available)
    writable(results)
    with progress_bars() as shown:
        records, failures = _run(plan, address, parameters, shown)
    _report(records, results, as_json)
    if failures:
        raise UserError(f"{len(plan.cells) - len(records)} of {len(plan.cells)} cells failed: {failures[0]}")


def _run(
    plan: Sweep, address: str | None, parameters: dict[str, int], shown: Shown
) -> tuple[list[Record], list[str]]:
    from mpcbench.pipeline.sweep import run
    from mpcbench.records.store import readable

    records: list[Record] = []
    before = {record.run_id for record in readable(plan.results)[0]}
    started = time.monotonic()

    def done(record: Record) -> None:
        records.append(record)
        measured = sum(record.run_id not in before for record in records)
        shown.stage(progress(len(records), measured, len(plan.cells), time.monotonic() - started))

    if address is None:
        return records, run(plan, shown.step, shown.stage, done)
    from mpcbench.pipeline.sweep_ray import run_on_ray

    return records, run_on_ray(plan, address, parameters, shown.stage, done)


def progress(there: int, measured: int, cells: int, seconds: float) -> str:
    """How many cells are there, and how long the rest will take if each takes as long as the measured ones,
    for which ``seconds`` passed.
    """
    words = f"{there} of {cells} cells are there"
    left = seconds / measured * (cells - there) if measured else 0.0
    return f"{words}, about {in_words(left)} left" if left else words


def _estimates(plan: Sweep, as_json: bool) -> dict[str, int]:
    """Print what every cell will cost; returns the parameters of every model whose configuration is known."""
    from rich.console import Console

    from mpcbench.pipeline.sweep_estimate import architectures, estimates
    from mpcbench.records.store import to_json
    from mpcbench.report.sweep import WIDTH, terminal_sweep

    known, missing = architectures(plan)
    found = estimates(plan, known)
    if as_json:
        click.echo(to_json(found))
    elif found:
        console = Console(stderr=True, width=WIDTH)
        console.print("Estimates; latency is the link's share alone:")
        console.print(terminal_sweep(found))
    for sentence in missing:
        messages().print(f"No estimate: {sentence}", highlight=False, markup=False)
    return {name: architecture.parameters for name, architecture in known.items()}


def _report(records: list[Record], results: Path, as_json: bool) -> None:
    from rich.console import Console

    from mpcbench.records.store import to_json
    from mpcbench.report.sweep import WIDTH, terminal_sweep, write_sweep

    if records:
        written = write_sweep(records, results)
        messages().print(f"wrote {written}", highlight=False, markup=False)
    if as_json:
        click.echo(to_json(records))
    elif records:
        Console(width=WIDTH).print(terminal_sweep(records))

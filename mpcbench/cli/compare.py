"""``mpcbench compare``: the main job."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from mpcbench.cli.output import json_option, say
from mpcbench.cli.workload import numbers, refuse_early, several, workload_options, writable

if TYPE_CHECKING:
    from mpcbench.records.schema import Record


@click.command()
@click.option(
    "--model", default="smollm2-135m", show_default=True, help="Name, Hub id, folder or .gguf file."
)
@click.option(
    "--layers", callback=numbers, default="0,8,16", show_default=True, help="Numbers of polynomial layers."
)
@click.option(
    "--degree", type=int, default=2, show_default=True, help="Degree of the polynomials: 2, 3 or 4."
)
@click.option("--placement", default="least-sensitive", show_default=True,
              help="Which layers: least-sensitive, first, last.")  # fmt: skip
@click.option("--adapters", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER",
              help="Trained adapters, such as a run of distill [default: packaged ones].")  # fmt: skip
@click.option("--calibrated", is_flag=True,
              help="Fit in closed form even where there is a trained adapter.")  # fmt: skip
@click.option("--estimate", "only_estimate", is_flag=True,
              help="Run nothing: the same tables and figures from estimates, marked as such.")  # fmt: skip
@click.option("--hosts", type=click.Path(path_type=Path), metavar="FILE",
              help="Run with the client and the dealer that `mpcbench serve` started elsewhere.")  # fmt: skip
@click.option("--certs", type=click.Path(path_type=Path), metavar="DIR",
              help="With --hosts: party 0's folder of `mpcbench certs`.")  # fmt: skip
@click.option("--insecure-no-tls", is_flag=True, help="With --hosts: talk to them in plaintext.")
@workload_options
@json_option
@click.pass_context
def command(
    context: click.Context, model: str, layers: list[int], degree: int, placement: str,
    adapters: Path | None, calibrated: bool, only_estimate: bool, hosts: Path | None, certs: Path | None,
    insecure_no_tls: bool, calibration_data: str | None, task_data: Path | None, limit: int | None,
    results: Path, as_json: bool, **options: object,
) -> None:  # fmt: skip
    """Measure a model with several numbers of polynomial layers under two-party computation.

    --protocol may name several, with commas between them. Correlated randomness comes from a dealer, a
    process of its own, unless --provider says otherwise.

    Writes one record a number of layers, tables (CSV, Markdown, LaTeX) and figures (PDF, PNG) to
    --results, and prints the table. A trained adapter is used where there is one for the model, else
    polynomials are fitted, to --calibration-data if that is given; the table says which. Called again after
    an interruption, it goes on where it stopped.
    """
    if only_estimate:
        from mpcbench.errors import UserError

        if options["prefix"]:
            raise UserError("--estimate prices no prefix: leave --prefix out, or measure.")
        if context.get_parameter_source("results") is ParameterSource.DEFAULT:
            results = results / "estimated"  # apart from what is measured
        _estimate(model, layers, degree, placement, results, as_json, options)
        return
    from mpcbench.checkpoints import load
    from mpcbench.checkpoints.polyllama import check_degree
    from mpcbench.cli.progress import progress_bars
    from mpcbench.distill import calibration_texts
    from mpcbench.distill.published import published
    from mpcbench.hub import reachable
    from mpcbench.pipeline.compare import Comparison, check_counts, compare
    from mpcbench.records.store import in_order

    reachable()
    writable(results)
    texts = calibration_texts(calibration_data)
    check_degree(degree)
    _one_way(adapters, calibrated, hosts, certs, insecure_no_tls)
    refuse_early(task_data=task_data, **options)
    with _elsewhere(hosts, certs, insecure_no_tls) as elsewhere, progress_bars() as shown:
        shown.stage(f"loading {model}")
        original = load(model)
        check_counts(layers, original.model.config.num_hidden_layers)
        first, *others = several(original, elsewhere=elsewhere, **options)
        plan = Comparison(
            model, layers, degree, placement, texts, first, task_data, limit, results, tuple(others),
            None if calibrated or (calibration_data and not adapters) else adapters or published(),
        )  # fmt: skip
        records = compare(plan, original, shown.step, shown.stage)
    _report(in_order(records), results, as_json)


def _one_way(
    adapters: Path | None, calibrated: bool, hosts: Path | None, certs: Path | None, insecure: bool
) -> None:
    """UserError for options of which one would leave the other without effect."""
    from mpcbench.errors import UserError

    if adapters and calibrated:
        raise UserError("--calibrated takes no trained adapters: leave it or --adapters out.")
    if hosts is None and (certs or insecure):
        raise UserError("--certs and --insecure-no-tls are for other hosts: give --hosts, or leave them out.")


def _estimate(
    model: str, layers: list[int], degree: int, placement: str, results: Path, as_json: bool, options: dict
) -> None:
    from mpcbench.cli.estimate import chosen_links, chosen_protocols
    from mpcbench.distill.placement import check_placement
    from mpcbench.pipeline.estimate import PLACEMENTS, Setting, estimate, read_architecture, variants
    from mpcbench.records.store import in_order, write

    writable(results)
    links = chosen_links(options.get("network") or "loopback")
    protocols = chosen_protocols(options["protocol"], options["provider"])
    check_placement(placement)
    where = placement if placement in PLACEMENTS else "last"  # costs are those of any placement
    found = variants(read_architecture(model), layers, degree, where, options["embedding"])
    records = estimate(found, Setting(protocols, [options["tokens"] or 32], links[:1]))
    for record in records:
        write(record, results)
    _report(in_order(records), results, as_json)


def _elsewhere(hosts: Path | None, certs: Path | None, insecure: bool) -> AbstractContextManager:
    """The client and the dealer on other hosts, or None inside it."""
    if hosts is None:
        return nullcontext()
    from mpcbench.parties.driver import RemoteRuns
    from mpcbench.parties.hosts import read_hosts

    return RemoteRuns(read_hosts(hosts), certs, insecure)


def _report(records: list[Record], results: Path, as_json: bool) -> None:
    from rich.console import Console

    from mpcbench.records.compare import measured_elsewhere
    from mpcbench.records.store import readable, to_json
    from mpcbench.report.figures import write_figures
    from mpcbench.report.tables import write_tables
    from mpcbench.report.terminal import WIDTH, terminal_table

    others, damaged = readable(results)
    for sentence in damaged:
        say(f"passed over: {sentence}")
    elsewhere = measured_elsewhere(records, others)
    written = [*write_tables(records, results, elsewhere), *write_figures(records, results, elsewhere)]
    if as_json:
        click.echo(to_json(records))
    else:
        Console(width=WIDTH).print(terminal_table(records, elsewhere))
    say(f"{len(records)} records, and {len(written)} tables and figures of them, are in {results}")

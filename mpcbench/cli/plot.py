"""``mpcbench plot``: tables and figures again, from records alone."""

from __future__ import annotations

from pathlib import Path

import click

from mpcbench.cli.output import json_option, messages


@click.command()
@click.argument("records", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for tables and figures; by default the folder of the records.",
)
@json_option
def command(records: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Draw tables and figures from RECORDS: folders or files, by default the folder results.

    Nothing runs: the numbers are those that `mpcbench compare` or `mpcbench run` measured.
    """
    from rich.console import Console

    from mpcbench.records.compare import load_for_report
    from mpcbench.records.store import to_json
    from mpcbench.report.figures import write_figures
    from mpcbench.report.tables import write_tables
    from mpcbench.report.terminal import WIDTH, terminal_table

    paths = records or (Path("results"),)
    loaded, elsewhere = load_for_report(paths)
    folder = out or (paths[0] if paths[0].is_dir() else paths[0].parent)
    written = [*write_tables(loaded, folder, elsewhere), *write_figures(loaded, folder, elsewhere)]
    if as_json:
        click.echo(to_json(loaded))
    else:
        Console(width=WIDTH).print(terminal_table(loaded, elsewhere))
    messages().print(f"wrote {len(written)} files to {folder}", highlight=False, markup=False)

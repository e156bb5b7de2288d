"""``mpcbench study``: every recipe on one model, and the table that compares them."""

from __future__ import annotations

from pathlib import Path

import click

from mpcbench.cli.output import json_option, messages


@click.command()
@click.option(
    "--model", default="smollm2-135m", show_default=True, help="Name, Hub id, folder or .gguf file."
)
@click.option("--data", default="arc", show_default=True,
              help="Trained on: arc (train split from the Hub), self, or a file.")  # fmt: skip
@click.option("--task-data", type=click.Path(path_type=Path), metavar="FILE",
              help="Questions as ARC's JSONL. Default: arc_easy from the Hub, or packaged.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1), help="Score the first so many questions [default: 600].")
@click.option("--run", "only", multiple=True, metavar="NAME", help="This run alone; may be repeated.")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True,
              help="Train every run with so many seeds.")  # fmt: skip
@click.option("--quick", is_flag=True, help="A few steps of everything, in minutes: a trial, not a result.")
@click.option("--results", type=click.Path(path_type=Path, file_okay=False),
              help="Folder for study.json, tables and figures [default: results/study, with --quick "
                   "results/study-quick].")  # fmt: skip
@json_option
def command(
    model: str, data: str, task_data: Path | None, limit: int | None, only: tuple[str, ...], seeds: int,
    quick: bool, results: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Train a model by every recipe, score what comes out, and write the study's table and figures.

    Called again after an interruption, the same command goes on where it stopped; rows that are done
    are kept.
    """
    from rich.console import Console

    from mpcbench.checkpoints import load
    from mpcbench.cli.progress import progress_bars
    from mpcbench.cli.workload import writable
    from mpcbench.distill.data import training_texts
    from mpcbench.pipeline.study import StudyPlan, check_memory, study
    from mpcbench.report.study import terminal, write_report

    results = results or Path("results", "study-quick" if quick else "study")
    writable(results)
    with progress_bars() as shown:
        check_memory(model, only, quick)
        shown.stage(f"loading {model}")
        original = load(model)
        texts = training_texts(data, original, shown.step)
        plan = StudyPlan(original, texts, task_data, limit, results, seeds, only, quick)
        done = study(plan, shown.step, shown.stage)
    written = write_report(done, results)
    if as_json:
        click.echo(done.model_dump_json(indent=1))
    else:
        Console(width=160).print(terminal(done))
    messages().print(f"wrote study.json and {len(written)} tables and figures to {results}",
                     highlight=False, markup=False)  # fmt: skip

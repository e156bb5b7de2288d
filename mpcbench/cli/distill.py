"""``mpcbench distill``: train a polynomial Llama by a recipe."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mpcbench.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from mpcbench.checkpoints import Checkpoint
    from mpcbench.distill.distill import Plan
    from mpcbench.distill.memory import Need
    from mpcbench.distill.recipe import Recipe


def _stages(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int | str] | None:
    if text is None:
        return None
    try:
        return [part if part == "all" else int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter("give numbers with commas between them, such as 8,16,all") from None


def _fields(context: click.Context, parameter: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    fields = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign):
            raise click.BadParameter(f"{text} is not FIELD=VALUE, such as optimiser.rate=1e-4")
        try:
            fields[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise click.BadParameter(f"{value} is not a value in YAML") from None
    return fields


@click.command()
@click.option(
    "--model", default="smollm2-135m", show_default=True, help="The original: name, Hub id, folder or GGUF."
)
@click.option("--recipe", "name", default="mpcbench", show_default=True, help="A recipe's name or YAML file.")
@click.option("--data", default="arc", show_default=True,
              help="arc (train split from the Hub), self (sampled from the model), or a file.")  # fmt: skip
@click.option("--teacher", metavar="MODEL", help="A teacher other than the original itself.")
@click.option("--layers", callback=_stages, help="Polynomial layers of the stages, such as 8,16,all.")
@click.option("--degree", type=int, help="Degree of the polynomials: 2, 3 or 4.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16", "nf4"]),
              help="Of the student's frozen weights.")  # fmt: skip
@click.option("--double-quantisation/--no-double-quantisation", default=None, help="Of NF4's block scales.")
@click.option("--steps", type=int, help="Steps of each stage.")
@click.option("--no-clip", is_flag=True, help="Leave gradients as they are.")
@click.option("--seed", type=int)
@click.option("--set", "fields", multiple=True, callback=_fields, metavar="FIELD=VALUE",
              help="Any other field of the recipe, as optimiser.rate=1e-4; may be repeated.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run. Default: in the cache.")
@click.option("--memory", is_flag=True, help="Print how much memory this takes, and do nothing else.")
@json_option
def command(
    model: str, name: str, data: str, teacher: str | None, out: Path | None, memory: bool, as_json: bool,
    fields: dict[str, Any], **options: Any,
) -> None:  # fmt: skip
    """Train a model with polynomial layers, stage by stage, from a teacher.

    Called again after an interruption, the same command goes on where it stopped. The folder of the run
    holds the log, a figure of it, an adapter for each stage, and the last stage as a checkpoint for export.
    """
    from mpcbench.checkpoints import load
    from mpcbench.cli.progress import progress_bars
    from mpcbench.distill.distill import Plan, distill, with_folder
    from mpcbench.distill.memory import config_alone, memory_plan, refuse_too_little
    from mpcbench.distill.sharding import leave_processes

    recipe = _recipe(name, fields, options)
    with progress_bars() as shown:
        config = config_alone(model)  # memory is looked at before weights fill it
        original = load(model) if config is None else None
        needed = memory_plan(config or original.model.config, recipe)
        if memory:
            return _print_memory(needed, as_json)
        refuse_too_little(needed, loaded=original is not None)
        original = original or load(model)
        texts = _texts(data, original, shown.step)
        taught = load(teacher) if teacher else None
        plan = Plan(original, recipe, name, texts, out or Path(), taught)
        plan = plan if out else with_folder(plan)
        adapters = distill(plan, shown.step, shown.stage)
    _report(plan, adapters, as_json)
    leave_processes()


def _recipe(name: str, fields: dict[str, Any], options: dict[str, Any]) -> Recipe:
    """The recipe with what the options change; ``--set`` comes last."""
    from mpcbench.distill.recipe import load_recipe

    named = {
        "layers": "polynomials.layers",
        "degree": "polynomials.degree",
        "precision": "student.precision",
        "double_quantisation": "student.double_quantisation",
        "steps": "optimiser.steps",
        "seed": "seed",
    }
    changes = {named[key]: value for key, value in options.items() if key in named and value is not None}
    if options["no_clip"]:
        changes["optimiser.clip"] = None
    return load_recipe(name, changes | fields)


def _texts(data: str, original: Checkpoint, progress):
    from mpcbench.distill.data import training_texts

    return training_texts(data, original, progress)


def _print_memory(needs: list[Need], as_json: bool) -> None:
    from rich.table import Table

    if as_json:
        return print_json([asdict(need) for need in needs])
    table = Table("what", "where", "GiB")
    for need in needs:
        table.add_row(need.what, need.where, f"{need.size / 2**30:.2f}")
    for where in dict.fromkeys(need.where for need in needs):
        total = sum(need.size for need in needs if need.where == where)
        table.add_row("in all", where, f"{total / 2**30:.2f}", style="bold")
    print_table(table)


def _report(plan: Plan, adapters: list[Path], as_json: bool) -> None:
    import os

    from rich.table import Table

    from mpcbench.distill.adapter import adapter_info
    from mpcbench.distill.log import read_log
    from mpcbench.report.training import write_training_figure

    if int(os.environ.get("RANK", "0")):
        return  # one of several processes reports
    infos = [(path, adapter_info(path)) for path in adapters]
    if read_log(plan.folder / "log.jsonl"):
        write_training_figure(read_log(plan.folder / "log.jsonl"), plan.folder)
    if as_json:
        return print_json([{"adapter": str(path), **info.model_dump(mode="json")} for path, info in infos])
    table = Table("polynomial layers", "held-out KL [nats a token]", "same next token", "steps", "adapter")
    for path, info in infos:
        held_out = info.held_out
        table.add_row(
            str(len(info.polynomial_layers)), f"{held_out.kl:.4f}", f"{held_out.argmax_agreement:.1%}",
            str(info.steps), path.name,
        )  # fmt: skip
    print_table(table)
    click.echo(f"The run's folder: {plan.folder}")

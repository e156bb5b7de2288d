"""``mpcbench generate``: a text, token by token, both parties on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from mpcbench.cli.output import json_option, print_record, say
from mpcbench.cli.workload import link_options, settings, writable

DEFAULT_PROMPT = "The capital of France is"


@click.command()
@click.argument("model", default="smollm2-135m")
@click.option("--prompt", default=DEFAULT_PROMPT, show_default=True, help="The client's text.")
@click.option("--prefix", default="", metavar="TEXT",
              help="Text in front of it that the model owner knows, as constants of the model.")  # fmt: skip
@click.option("--max-new-tokens", "new_tokens", type=click.IntRange(1), default=12, show_default=True,
              help="End after so many tokens, or with the text.")  # fmt: skip
@click.option("--private-logits", is_flag=True,
              help="Find each token under MPC and open its id alone, instead of all logits.")  # fmt: skip
@click.option("--layers", type=click.IntRange(0), default=0, show_default=True,
              help="Polynomial layers: a trained adapter where there is one, else fitted.")  # fmt: skip
@click.option("--degree", type=int, default=2, show_default=True, help="Degree of the polynomials.")
@click.option("--protocol", default="frontier", show_default=True, help="A protocol's name or YAML file.")
@click.option("--provider", help="Who makes the correlated randomness: dealer, or first-party, which is "
              "insecure [default: as the protocol says].")  # fmt: skip
@click.option("--embedding", type=click.Choice(["client", "private"]), default="client", show_default=True,
              help="Where tokens are embedded: a public table at the client, or under MPC.")  # fmt: skip
@click.option("--repetitions", type=click.IntRange(1, 10_000), default=1, show_default=True,
              help="Timed texts; from the second on randomness is dealt ahead.")  # fmt: skip
@click.option(
    "--warmups", type=click.IntRange(0, 10_000), default=0, show_default=True, help="Untimed texts."
)
@click.option("--threads", type=click.IntRange(1), help="Threads of each party [default: half the cores].")
@click.option("--rendezvous", default="127.0.0.1:0", show_default=True,
              help="HOST:PORT where the parties meet; port 0 is a free one.")  # fmt: skip
@link_options
@click.option("--check-ranges", is_flag=True,
              help="Run the graph in plaintext beside, and note the first value out of range.")  # fmt: skip
@click.option("--shares", type=click.Path(path_type=Path), metavar="DIR",
              help="Use this export of MODEL instead of cutting new shares.")  # fmt: skip
@click.option("--calibration-data", metavar="FILE",
              help="Text (a passage a line) or ARC's JSONL. Default: packaged text.")  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), show_default=True,
              default=Path("results/generation"), help="Folder for the record.")  # fmt: skip
@json_option
def command(
    model: str, new_tokens: int, private_logits: bool, layers: int, degree: int, shares: Path | None,
    calibration_data: str | None, results: Path, as_json: bool, **options: object,
) -> None:  # fmt: skip
    """Generate text with MODEL (name, Hub id, folder or .gguf file) under two-party computation.

    Greedy decoding with secret-shared keys and values; the record holds bytes, rounds and times of every
    token, and the text that the same checkpoint gives in plaintext. A figure shows the tokens of all texts
    in --results.
    """
    from mpcbench.checkpoints import load
    from mpcbench.cli.progress import progress_bars
    from mpcbench.distill import calibration_texts
    from mpcbench.distill.published import published
    from mpcbench.hub import reachable
    from mpcbench.pipeline.compare import check_counts, polynomial_checkpoint
    from mpcbench.pipeline.generation import check_length
    from mpcbench.pipeline.single import export_and_run
    from mpcbench.records.store import readable, write
    from mpcbench.report.generation import generation_table
    from mpcbench.report.tokens import write_tokens_figure

    reachable()
    writable(results)
    texts = calibration_texts(calibration_data)
    with progress_bars() as shown:
        shown.stage(f"loading {model}")
        original = load(model)
        chosen = settings(original, tokens=None, **options)
        chosen = replace(chosen, new_tokens=new_tokens, private_logits=private_logits)
        limit = int(original.model.config.max_position_embeddings)
        check_length(chosen.context.shape[1], new_tokens, limit)
        check_counts([layers], original.model.config.num_hidden_layers)
        checkpoint = polynomial_checkpoint(
            original, layers, degree, "least-sensitive", texts, published(), shown.step
        )
        record = export_and_run(shares, checkpoint, chosen, texts, None, shown.step, shown.stage)
    try:
        written = [write(record, results)]
    finally:  # on a full disk the numbers are on the screen at least
        print_record(record, lambda: generation_table(record), as_json)
    texts_there, damaged = readable(results)
    written += write_tokens_figure(texts_there, results)
    for sentence in damaged:
        say(f"passed over: {sentence}")
    say(f"wrote {', '.join(map(str, written))}")

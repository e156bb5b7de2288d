"""Options that ``run`` and ``compare`` share: what is computed, under which protocol, how often."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mpcbench.checkpoints import Checkpoint
    from mpcbench.parties.driver import RemoteRuns
    from mpcbench.parties.network import Backend
    from mpcbench.pipeline.measure import Prefix, Settings

DEFAULT_PROMPT = "The sun rises in the east and sets in the west. The capital of France is"

_LINK = (
    click.option("--network", default="loopback", show_default=True, envvar="MPCBENCH_NETWORK",
                 show_envvar=True, help="The link to emulate: loopback, lan, geo, wan, or a YAML file."),
    click.option("--link-backend", "backend", type=click.Choice(["transport", "netem", "namespaces"]),
                 default="transport", show_default=True,
                 help="Who emulates it: the transport, the kernel (netem), or a line between namespaces."),
)  # fmt: skip


def link_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--network`` and ``--link-backend``."""
    for option in reversed(_LINK):
        function = option(function)
    return function


_OPTIONS = (
    click.option("--protocol", default="crypten", show_default=True, help="A protocol's name or YAML file."),
    click.option("--provider", help="Who makes the correlated randomness: dealer, or first-party, which is "
                 "insecure [default: as the protocol says]."),
    click.option("--prompt", default=DEFAULT_PROMPT, show_default=True, help="The client's text."),
    click.option("--prefix", default="", metavar="TEXT",
                 help="Text in front of it that the model owner knows, as constants of the model."),
    click.option("--tokens", type=click.IntRange(2), help="Cut or repeat the prompt to this many tokens."),
    click.option(
        "--embedding", type=click.Choice(["client", "private"]), default="client", show_default=True,
        help="Where tokens are embedded: a public table at the client, or under MPC.",
    ),
    click.option("--repetitions", type=click.IntRange(1, 10_000), default=3, show_default=True,
                 help="Timed runs."),
    click.option("--warmups", type=click.IntRange(0, 10_000), default=1, show_default=True,
                 help="Untimed runs."),
    click.option("--threads", type=click.IntRange(1),
                 help="Threads of each party [default: half the cores]."),
    click.option("--rendezvous", default="127.0.0.1:0", show_default=True,
                 help="HOST:PORT where the parties meet; port 0 is a free one."),
    link_options,
    click.option("--check-ranges", is_flag=True,
                 help="Run the graph in plaintext beside, and note the first value outside its range."),
    click.option("--calibration-data", metavar="FILE",
                 help="Text (a passage a line) or ARC's JSONL. Default: packaged text."),
    click.option("--task-data", type=click.Path(path_type=Path), metavar="FILE",
                 help="Questions as ARC's JSONL. Default: arc_easy from the Hub, or the packaged set."),
    click.option("--limit", type=click.IntRange(0), default=600, show_default=True,
                 callback=lambda context, parameter, count: count or None,
                 help="Score the first so many questions; 0 scores all."),
    click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=Path("results"),
                 show_default=True, help="Folder for records, tables and figures."),
)  # fmt: skip


def workload_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add all of them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def settings(
    checkpoint: Checkpoint, *, protocol: str, provider: str | None, prompt: str, tokens: int | None,
    embedding: str, repetitions: int, warmups: int, threads: int | None, rendezvous: str,
    check_ranges: bool = False, network: str = "loopback", backend: Backend = "transport",
    material: Path | None = None, elsewhere: RemoteRuns | None = None, prefix: str = "",
) -> Settings:  # fmt: skip
    """The measurement that these options describe; raises UserError for a prompt that is too short."""
    from mpcbench.errors import UserError
    from mpcbench.parties.handshake import address
    from mpcbench.parties.network import load_link
    from mpcbench.pipeline.measure import Settings
    from mpcbench.secure.protocol import load_protocol

    address(rendezvous)
    link = load_link(network)
    chosen = load_protocol(protocol, provider)
    # Whatever a tokenizer puts in front of a text stands in front of the prefix, where there is one.
    ids = checkpoint.tokenizer(prompt, return_tensors="pt", add_special_tokens=not prefix).input_ids
    if tokens is not None and ids.shape[1]:
        ids = ids.repeat(1, -(-tokens // ids.shape[1]))[:, :tokens]
        prompt = checkpoint.tokenizer.decode(ids[0])
    front = prefix_of(checkpoint, prefix)
    limit = int(checkpoint.model.config.max_position_embeddings)
    limit -= 0 if front is None else front.tokens.shape[1]
    if not 2 <= ids.shape[1] <= limit:
        raise UserError(
            f"The prompt has {ids.shape[1]} tokens and the model takes 2 to {limit}: change --prompt."
        )
    threads = threads or max(1, (os.cpu_count() or 2) // 2)
    return Settings(
        protocol, chosen, prompt, ids, embedding, repetitions, warmups, threads, rendezvous, check_ranges,
        link, backend, material, elsewhere=elsewhere, prefix=front,
    )  # fmt: skip


def prefix_of(checkpoint: Checkpoint, text: str) -> Prefix | None:
    """What ``--prefix`` names; None where it is empty."""
    from mpcbench.pipeline.measure import Prefix

    if not text:
        return None
    return Prefix(text, checkpoint.tokenizer(text, return_tensors="pt").input_ids)


def several(checkpoint: Checkpoint, *, protocol: str, provider: str | None, **options: Any) -> list[Settings]:
    """The measurements of one or several protocols."""
    names = split_names(protocol, "--protocol")
    return [settings(checkpoint, protocol=name, provider=provider, **options) for name in names]


def refuse_early(
    *, protocol: str, provider: str | None, network: str, rendezvous: str, task_data: Path | None, **_: Any
) -> None:
    """Raise UserError for a name, a file or an address that is wrong, before a model is fetched."""
    from mpcbench.accuracy.questions import load_questions
    from mpcbench.parties.handshake import address
    from mpcbench.parties.network import load_link
    from mpcbench.secure.protocol import load_protocol

    address(rendezvous)
    load_link(network)
    for name in split_names(protocol, "--protocol"):
        load_protocol(name, provider)
    if task_data is not None:
        load_questions(task_data)


def split_names(text: str, option: str) -> list[str]:
    """Names with commas between them, each once; raises UserError otherwise."""
    from mpcbench.errors import UserError

    names = [name.strip() for name in text.split(",")]
    if len(set(names)) < len(names) or not all(names):
        raise UserError(f"{option} {text} names something twice, or nothing: name each once.")
    return names


def numbers(context: click.Context, parameter: click.Parameter, text: str | None) -> list[int] | None:
    """Click's callback for an option such as ``--layers 0,8,16``; None where it is not given."""
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter("give numbers with commas between them, such as 0,8,16") from None


ROOM_BYTES = 4 << 20
"""What records, tables and figures of a comparison take, generously."""


def writable(folder: Path) -> None:
    """Fail now, not after the measurement, when results cannot be written or the disk is full."""
    from mpcbench.errors import UserError

    probe = folder / f".mpcbench-probe.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(bytes(ROOM_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write to {folder} ({error.strerror}): choose another --results.") from None

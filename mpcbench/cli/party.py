"""``mpcbench party``: one party, here or on another host."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mpcbench.cli.connection import (
    PARTIES_MEET,
    START_SECONDS,
    connection_options,
    fixed_seeds_option,
    places,
)
from mpcbench.cli.workload import link_options, writable

if TYPE_CHECKING:
    import torch

    from mpcbench.cli.connection import Places
    from mpcbench.parties.party import Job, Outcome
    from mpcbench.progress import Progress
    from mpcbench.secure.protocol import Protocol
    from mpcbench.secure.transport import Link


@click.command()
@click.option("--rank", type=click.IntRange(0, 1), required=True, help="0: model owner, listens. 1: client.")
@click.option("--rendezvous", metavar="HOST:PORT", help=f"Where party 0 listens [default: {PARTIES_MEET}].")
@click.option("--shares", type=click.Path(path_type=Path), required=True, help="This party's share folder.")
@click.option("--protocol", default="crypten", show_default=True, help="A protocol's name or YAML file.")
@click.option("--provider", help="Who makes the correlated randomness [default: as the protocol says].")
@click.option(
    "--dealer", metavar="HOST:PORT", help="Where `mpcbench dealer` listens, if the provider is one."
)
@connection_options
@fixed_seeds_option
@link_options
@click.option("--material", type=click.Path(path_type=Path), metavar="DIR",
              help="This party's folder of `mpcbench preprocess`, instead of a dealer.")  # fmt: skip
@click.option("--prompt", help="Client: the text to continue.")
@click.option("--token-ids", type=click.Path(path_type=Path), hidden=True)
@click.option("--max-new-tokens", "new_tokens", type=click.IntRange(1),
              help="Client: generate text of so many tokens [default: one forward pass].")  # fmt: skip
@click.option("--private-logits", is_flag=True,
              help="Client: find each token under MPC, so that no logit is opened.")  # fmt: skip
@click.option("--repetitions", type=click.IntRange(1, 10_000), default=1, show_default=True, help="Client's.")
@click.option("--warmups", type=click.IntRange(0, 10_000), default=0, show_default=True, help="Client's.")
@click.option("--threads", type=click.IntRange(1), help="Threads of this party [default: half the cores].")
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="Client: write the run's record into this folder [default: results, with --hosts].",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write both parties' reports to this JSON file.")
@click.option("--logits", type=click.Path(path_type=Path), hidden=True)
@click.option("--events", is_flag=True, hidden=True)
def command(
    rank: int, shares: Path, rendezvous: str | None, dealer: str | None, hosts: Path | None,
    certs: Path | None, insecure_no_tls: bool, fixed_seeds: int, events: bool, **options: Any,
) -> None:  # fmt: skip
    """Start one party of a two-party run; start the other one too, here or on another host.

    Party 0 owns the model and listens at --rendezvous; party 1 owns the prompt and connects there.
    Each names its own folder of the same `mpcbench export`. On several hosts give all of them the same
    --hosts, and each its own --certs.
    """
    if events:
        threading.Thread(target=end_with_launcher, daemon=True).start()
    if rank == 1 and hosts is not None and options["results"] is None and options["new_tokens"] is None:
        options["results"] = Path("results")
    _check(rank, shares, events, options)
    where = places(f"party{rank}", rendezvous, dealer, hosts, certs, insecure_no_tls)
    # Listening comes before the heavy imports, so that the client can connect meanwhile.
    link = _meet(rank, where, options["wait"], events)
    if fixed_seeds:
        from mpcbench.secure.randomness.prg import fix_seeds

        fix_seeds(fixed_seeds, f"party{rank}")
    try:
        job, outcome = _take_part(rank, shares, link, where, events, **options)
    finally:
        link.close()
    if not events:
        _print(outcome, shares, options["protocol"], options["provider"])
    if options["results"] is not None:
        _record(job, options["prompt"], outcome, where, options["results"])


def end_with_launcher() -> None:
    """The launcher holds our standard input open; when it is gone, so are we."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def _check(rank: int, shares: Path, events: bool, options: dict[str, Any]) -> None:
    """What can be known without a peer is said before waiting for one."""
    from mpcbench.errors import UserError
    from mpcbench.parties.network import load_link

    given = sum(options[name] is not None for name in ("prompt", "token_ids"))
    if rank == 1 and given != 1:
        raise UserError("The client needs a prompt: give --prompt TEXT.")
    if rank == 0 and given:
        raise UserError("The prompt is the client's secret: give --prompt to the party with --rank 1 alone.")
    if rank == 0 and (options["new_tokens"] or options["private_logits"]):
        raise UserError("The client asks for a text: give --max-new-tokens and --private-logits to it alone.")
    if options["private_logits"] and not options["new_tokens"]:
        raise UserError("--private-logits is for generated text: give --max-new-tokens as well.")
    if not shares.is_dir():
        raise UserError(f"There is no folder {shares}: name this party's folder that mpcbench export wrote.")
    load_link(options["network"])
    if options["backend"] == "namespaces" and not events:
        raise UserError("Only run and compare make namespaces: give a party another --link-backend.")
    if options["results"] is not None:
        if rank == 0:
            raise UserError("The client writes the record: give --results to the party with --rank 1 alone.")
        if options["new_tokens"] is not None:
            raise UserError("A record of a generation needs the checkpoint: leave --results out.")
        writable(options["results"])
    for file in (options["out"], options["logits"]):
        if file is not None and (file.is_dir() or not os.access(file.parent, os.W_OK)):
            raise UserError(f"Cannot write {file}: name a file in a folder that exists and can be written.")


def _meet(rank: int, where: Places, wait: float, events: bool) -> Link:
    from mpcbench.secure.meeting import accept, connect, listen

    host, port = where.parties
    peer = ("party 1 (client)", "party 0 (model owner)")[rank]
    if rank == 1:
        return connect(host, port, peer, wait, START_SECONDS, where.credentials)
    with listen(host, port) as server:
        if events:
            emit({"event": "listening", "port": server.getsockname()[1]})
        else:
            click.echo(f"Listening on {host}:{server.getsockname()[1]} for {peer}.", err=True)
        return accept(server, peer, wait, START_SECONDS, where.credentials)


def _take_part(
    rank: int, shares: Path, link: Link, where: Places, events: bool, *, protocol: str, provider: str | None,
    material: Path | None, wait: float, timeout: float, network: str, backend: str, prompt: str | None,
    token_ids: Path | None, new_tokens: int | None, private_logits: bool, repetitions: int, warmups: int,
    threads: int | None, results: Path | None, out: Path | None, logits: Path | None,
) -> tuple[Job, Outcome]:  # fmt: skip
    """``results`` is not for here: a record is written when everything has been said and done."""
    import torch
    from safetensors.torch import load_file, save_file

    from mpcbench.errors import PeerError, UserError
    from mpcbench.parties.network import load_link
    from mpcbench.parties.party import Job, take_part
    from mpcbench.secure.protocol import load_protocol

    try:
        tokens, stop = None, ()
        if rank == 1:
            asked = load_file(token_ids) if token_ids else _tokenize(shares, prompt)
            tokens, stop = asked["tokens"], tuple(asked["stop"].tolist())
        threads = threads or max(1, (os.cpu_count() or 2) // 2)
        chosen = load_protocol(protocol, provider)
        _check_provider(chosen, material)
        source = _dealer(chosen, where, wait) if material is None else None
        job = Job(
            rank, shares, chosen, threads, tokens, repetitions, warmups, source, load_link(network),
            backend, material, new_tokens or 0, private_logits, stop, timeout, _stages(events),
        )  # fmt: skip
    except (UserError, PeerError) as error:
        link.fail(str(error))
        raise
    with _progress(events) as progress:
        outcome = take_part(job, link, progress)
    if out is not None:
        reports = [result.model_dump() for result in outcome.results]
        out.write_text(json.dumps(reports), encoding="utf-8")
    if logits is not None and rank == 1:
        learned = {"generated": torch.tensor(outcome.tokens, dtype=torch.long)}
        save_file(learned if outcome.logits is None else {**learned, "logits": outcome.logits}, logits)
    return job, outcome


def _record(job: Job, prompt: str | None, outcome: Outcome, where: Places, results: Path) -> None:
    from mpcbench.cli.output import messages
    from mpcbench.pipeline.distributed import record_of_client
    from mpcbench.records.store import write

    record = record_of_client(job, prompt, outcome, where.remote, where.credentials is not None)
    messages().print(f"wrote {write(record, results)}", highlight=False, markup=False)


def _stages(events: bool) -> Callable[[str], None]:
    return (lambda stage: emit({"event": "stage", "stage": stage})) if events else (lambda stage: None)


def _dealer(protocol: Protocol, where: Places, wait: float) -> Link | None:
    """The link to the dealer, where the protocol has one."""
    from mpcbench.errors import UserError
    from mpcbench.secure.meeting import connect

    if protocol.provider != "dealer":
        return None
    if where.dealer is None:
        raise UserError(
            f"Protocol {protocol.name} takes its correlated randomness from a dealer: start "
            "`mpcbench dealer` and name it with --dealer HOST:PORT or in --hosts, or give --material, or "
            "choose --provider first-party, which is insecure."
        )
    return connect(*where.dealer, "the dealer", wait, START_SECONDS, where.credentials, "dealer")


def _check_provider(protocol: Protocol, material: Path | None) -> None:
    """Material stands in for the dealer and for nobody else."""
    from mpcbench.errors import UserError

    if material is not None and protocol.provider != "dealer":
        raise UserError(
            f"Material comes from a dealer and protocol {protocol.name} has another provider: "
            "give --provider dealer as well."
        )


def _tokenize(shares: Path, prompt: str) -> dict[str, torch.Tensor]:
    """The prompt's ``tokens``, and which ones ``stop`` a text, as the client's tokenizer has them."""
    import torch

    from mpcbench.errors import UserError
    from mpcbench.graph.decoding import prefix_length
    from mpcbench.graph.secure_graph import SecureGraph
    from mpcbench.parties.tokenizer import read_tokenizer

    tokenizer = read_tokenizer(shares)
    behind = prefix_length(SecureGraph.read(shares / "graph.json")) > 0
    tokens = tokenizer(prompt, return_tensors="pt", add_special_tokens=not behind).input_ids
    if tokens.shape[1] < 2:
        raise UserError("The prompt is shorter than two tokens: give a longer --prompt.")
    end = tokenizer.eos_token_id
    return {"tokens": tokens, "stop": torch.tensor([] if end is None else [end], dtype=torch.long)}


@contextmanager
def _progress(events: bool) -> Iterator[Progress]:
    if events:
        event = {"event": "progress"}
        yield lambda what, done, total: emit({**event, "what": what, "done": done, "total": total})
        return
    from mpcbench.cli.progress import progress_bars

    with progress_bars() as shown:
        yield shown.step


def emit(event: dict) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _print(outcome: Outcome, shares: Path, protocol: str, provider: str | None) -> None:
    from mpcbench.parties.result import later_steps, merge_latency, merge_ledgers
    from mpcbench.secure.protocol import load_protocol

    ledger, latency = merge_ledgers(outcome.results), merge_latency(outcome.results)
    online = ledger.online
    click.echo(
        f"online: {online.bytes / 1e6:.3f} MB by both parties, {online.rounds} rounds, "
        f"{latency.median_seconds:.2f} s (median of {len(latency.online_seconds)})"
    )
    if load_protocol(protocol, provider).provider == "first-party":
        click.echo("† Not secure, for development only: party 0 made the correlated randomness.")
    mine = outcome.results[0]
    if mine.fixed_seeds:
        click.echo(f"† Not secure, a test: all masks follow from the fixed number {mine.fixed_seeds}.")
    emulation = "" if mine.link_backend == "none" else f", emulated ({mine.link_backend})"
    click.echo(
        f"link: {mine.round_trip_seconds * 1e3:.3g} ms round trip, "
        f"{mine.bandwidth_bytes_per_second * 8e-6:,.3g} Mbit/s measured{emulation}"
    )
    for online, _, latency, _ in later_steps(outcome.results):
        click.echo(f"next token: {online.bytes / 1e6:.3f} MB, {online.rounds} rounds, "
                   f"{latency.median_seconds:.2f} s")  # fmt: skip
    if outcome.tokens:
        from mpcbench.parties.tokenizer import read_tokenizer

        click.echo(f"text: {read_tokenizer(shares).decode(outcome.tokens)!r}")
    elif outcome.logits is not None:
        from mpcbench.parties.tokenizer import read_tokenizer

        text = read_tokenizer(shares).decode([int(outcome.logits.argmax())])
        click.echo(f"next token: {text!r}")

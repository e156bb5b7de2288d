"""Start both parties, and a dealer if the protocol has one, as processes of this machine on loopback.

The parties are two runs of ``mpcbench party``, as on two hosts, and the dealer one of ``mpcbench dealer``.
They write one JSON object a line on standard output for the launcher, and end when it ends: each watches
its standard input, which closes with the launcher, however that dies.
"""

from __future__ import annotations

import json
import queue
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mpcbench.parties.namespaces import Namespaces, namespaces
from mpcbench.parties.network import NO_EMULATION, Backend, LinkProfile
from mpcbench.parties.party import Outcome, party_name
from mpcbench.parties.process import DEALER, Child, Events, end_all, listening, watch
from mpcbench.parties.result import PartyResult
from mpcbench.progress import Progress, silent
from mpcbench.secure.protocol import load_protocol

WAIT_SECONDS = 120
"""How long processes wait for each other to come; the launcher notices at once when one has died."""
_DEALER_HOST = 2
FIXED_SEEDS = "--insecure-fixed-seeds"
TOKENS, LOGITS = "tokens.safetensors", "logits.safetensors"


@dataclass(frozen=True)
class LocalRun:
    """Both parties here: folder with ``party0`` and ``party1``, protocol name or file, token ids (1, S).

    ``provider`` makes the correlated randomness; None leaves that to the protocol file. ``network`` is the
    link to emulate, ``backend`` who does it, see :data:`mpcbench.parties.network.BACKENDS`. ``material`` is a
    folder with ``party0`` and ``party1`` of what a dealer made ahead of time. ``new_tokens``,
    ``private_logits`` and ``stop`` are of a generation, see :class:`~mpcbench.parties.party.Job`.
    ``protection`` are the options of ``mpcbench party`` that protect its connections to other hosts.
    ``fixed_seeds``, insecure and for tests, is what all seeds follow from.
    """

    shares: Path
    protocol: str
    tokens: torch.Tensor
    repetitions: int
    warmups: int
    threads: int
    rendezvous: str = "127.0.0.1:0"
    provider: str | None = None
    network: LinkProfile = NO_EMULATION
    backend: Backend = "transport"
    material: Path | None = None
    new_tokens: int = 0
    private_logits: bool = False
    stop: tuple[int, ...] = ()
    protection: tuple[str, ...] = ()
    fixed_seeds: int = 0


def run_here(run: LocalRun, progress: Progress = silent) -> Outcome:
    """Run both parties to the end.

    Raises PeerError or UserError with the sentence of the party that failed first; no process is left
    behind, also on Ctrl-C.
    """
    with tempfile.TemporaryDirectory(prefix="mpcbench-run-") as scratch, _place(run) as place:
        folder = Path(scratch)
        write_tokens(run, folder)
        started: list[Child] = []
        events: Events = queue.Queue()

        def start(host: int, command: list[str]) -> Child:
            name = DEALER if host == _DEALER_HOST else party_name(host)
            words, descriptors = place.inside(host, command)
            started.append(Child(name, words, events, descriptors))
            return started[-1]

        try:
            dealer = None
            if needs_dealer(run):
                where = place.address(_DEALER_HOST)
                process = start(_DEALER_HOST, _dealer_command(run, f"{where}:0"))
                dealer = f"{where}:{listening(process, events)}"
            meet = run.rendezvous if run.backend != "namespaces" else f"{place.address(0)}:0"
            owner = start(0, party_command(run, 0, meet, dealer, folder))
            meet = f"{meet.rpartition(':')[0]}:{listening(owner, events)}"
            start(1, party_command(run, 1, meet, dealer, folder))
            watch(started, events, progress)
        finally:
            end_all(started)
        given = load_file(folder / LOGITS)
        results = read_results(folder / "result1.json")
        return Outcome(results, given.get("logits"), tuple(given["generated"].tolist()))


def needs_dealer(run: LocalRun) -> bool:
    """Whether the run's randomness comes from a dealer that has to be there."""
    return run.material is None and load_protocol(run.protocol, run.provider).provider == "dealer"


def write_tokens(run: LocalRun, folder: Path) -> None:
    """Write what the client's process reads: its tokens, and those that end a generation."""
    asked = {"tokens": run.tokens, "stop": torch.tensor(run.stop, dtype=torch.long)}
    save_file(asked, folder / TOKENS)


def read_results(path: Path) -> tuple[PartyResult, PartyResult]:
    """Both parties' reports, as ``mpcbench party --out`` wrote them."""
    first, second = json.loads(path.read_text(encoding="utf-8"))
    return PartyResult.model_validate(first), PartyResult.model_validate(second)


class _Here:
    """This machine's own loopback: the place of a run that needs no namespaces."""

    def address(self, host: int) -> str:
        return "127.0.0.1"

    def inside(self, host: int, command: list[str]) -> tuple[list[str], list[int]]:
        return command, []


def _place(run: LocalRun) -> AbstractContextManager[Namespaces | _Here]:
    return namespaces(run.network) if run.backend == "namespaces" else nullcontext(_Here())


def _protection(run: LocalRun) -> list[str]:
    """Namespaces of our own have addresses that are not loopback, and yet nobody else is on their line."""
    return ["--insecure-no-tls"] if run.backend == "namespaces" else list(run.protection)


def _seeds(run: LocalRun) -> list[str]:
    return [FIXED_SEEDS, str(run.fixed_seeds)] if run.fixed_seeds else []


def _dealer_command(run: LocalRun, rendezvous: str) -> list[str]:
    return [
        sys.executable, "-m", "mpcbench", "dealer", "--rendezvous", rendezvous, "--threads", str(run.threads),
        "--wait", str(WAIT_SECONDS), "--events", *_protection(run), *_seeds(run),
    ]  # fmt: skip


def party_command(
    run: LocalRun, rank: int, rendezvous: str, dealer: str | None, folder: Path
) -> list[str]:  # fmt: skip
    """The command of one party, whose files are in ``folder``: what it takes, and what it leaves there."""
    command = [
        sys.executable, "-m", "mpcbench", "party", "--rank", str(rank), "--rendezvous", rendezvous,
        "--shares", str(run.shares / f"party{rank}"), "--protocol", run.protocol,
        "--threads", str(run.threads), "--network", run.network.origin, "--link-backend", run.backend,
        "--wait", str(WAIT_SECONDS), "--events", *_protection(run), *_seeds(run),
        "--out", str(folder / f"result{rank}.json"),
    ]  # fmt: skip
    if run.provider is not None:
        command += ["--provider", run.provider]
    if dealer is not None:
        command += ["--dealer", dealer]
    if run.material is not None:
        command += ["--material", str(run.material / f"party{rank}")]
    if rank == 1:
        command += [
            "--token-ids", str(folder / TOKENS), "--logits", str(folder / LOGITS),
            "--repetitions", str(run.repetitions), "--warmups", str(run.warmups),
        ]  # fmt: skip
        command += ["--max-new-tokens", str(run.new_tokens)] if run.new_tokens else []
        command += ["--private-logits"] if run.private_logits else []
    return command

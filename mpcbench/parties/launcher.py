"""Start both parties, and a dealer if the protocol has one, as processes of this machine on loopback.

The parties are two runs of ``mpcbench party``, as on two hosts, and the dealer one of ``mpcbench dealer``.
They write one JSON object a line on standard output for the launcher, and end when it ends: each watches
its standard input, which closes with the launcher, however that dies.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mpcbench.errors import PeerError, UserError
from mpcbench.parties.namespaces import Namespaces, namespaces
from mpcbench.parties.network import NO_EMULATION, Backend, LinkProfile
from mpcbench.parties.party import Outcome, party_name
from mpcbench.parties.result import PartyResult
from mpcbench.progress import Progress, silent
from mpcbench.secure.protocol import load_protocol

GRACE_SECONDS = 5.0
"""How long a party may take to end after the other has failed."""
DEALER = "the dealer"
_DEALER_HOST = 2


@dataclass(frozen=True)
class LocalRun:
    """Both parties here: folder with ``party0`` and ``party1``, protocol name or file, token ids (1, S).

    ``provider`` makes the correlated randomness; None leaves that to the protocol file. ``network`` is the
    link to emulate, ``backend`` who does it, see :data:`mpcbench.parties.network.BACKENDS`. ``material`` is a
    folder with ``party0`` and ``party1`` of what a dealer made ahead of time. ``new_tokens``,
    ``private_logits`` and ``stop`` are of a generation, see :class:`~mpcbench.parties.party.Job`.
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


def run_here(run: LocalRun, progress: Progress = silent) -> Outcome:
    """Run both parties to the end.

    Raises PeerError or UserError with the sentence of the party that failed first; no process is left
    behind, also on Ctrl-C.
    """
    with tempfile.TemporaryDirectory(prefix="mpcbench-run-") as scratch, _place(run) as place:
        folder = Path(scratch)
        asked = {"tokens": run.tokens, "stop": torch.tensor(run.stop, dtype=torch.long)}
        save_file(asked, folder / "tokens.safetensors")
        started: list[_Process] = []
        events: queue.Queue[tuple[str, dict[str, Any] | None]] = queue.Queue()

        def start(host: int, command: list[str]) -> _Process:
            name = DEALER if host == _DEALER_HOST else party_name(host)
            started.append(_Process(name, *place.inside(host, command), events))
            return started[-1]

        try:
            dealer = None
            if run.material is None and load_protocol(run.protocol, run.provider).provider == "dealer":
                where = place.address(_DEALER_HOST)
                process = start(_DEALER_HOST, _dealer_command(run, f"{where}:0"))
                dealer = f"{where}:{_listening(process, events)}"
            meet = run.rendezvous if run.backend != "namespaces" else f"{place.address(0)}:0"
            owner = start(0, _command(run, 0, meet, dealer, folder))
            meet = f"{meet.rpartition(':')[0]}:{_listening(owner, events)}"
            start(1, _command(run, 1, meet, dealer, folder))
            _watch(started, events, progress)
        finally:
            for process in started:
                process.end()
        report = json.loads((folder / "result1.json").read_text(encoding="utf-8"))
        results = tuple(PartyResult.model_validate(item) for item in report)
        given = load_file(folder / "logits.safetensors")
        return Outcome(results, given.get("logits"), tuple(given["generated"].tolist()))


class _Here:
    """This machine's own loopback: the place of a run that needs no namespaces."""

    def address(self, host: int) -> str:
        return "127.0.0.1"

    def inside(self, host: int, command: list[str]) -> tuple[list[str], list[int]]:
        return command, []


def _place(run: LocalRun) -> AbstractContextManager[Namespaces | _Here]:
    return namespaces(run.network) if run.backend == "namespaces" else nullcontext(_Here())


def _dealer_command(run: LocalRun, rendezvous: str) -> list[str]:
    return [
        sys.executable, "-m", "mpcbench", "dealer", "--rendezvous", rendezvous,
        "--threads", str(run.threads), "--wait", "30", "--events",
    ]  # fmt: skip


def _command(run: LocalRun, rank: int, rendezvous: str, dealer: str | None, folder: Path) -> list[str]:
    command = [
        sys.executable, "-m", "mpcbench", "party", "--rank", str(rank), "--rendezvous", rendezvous,
        "--shares", str(run.shares / f"party{rank}"), "--protocol", run.protocol,
        "--threads", str(run.threads), "--network", run.network.origin,
        "--link-backend", run.backend, "--events",
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
            "--token-ids", str(folder / "tokens.safetensors"), "--logits", str(folder / "logits.safetensors"),
            "--repetitions", str(run.repetitions), "--warmups", str(run.warmups),
        ]  # fmt: skip
        command += ["--max-new-tokens", str(run.new_tokens)] if run.new_tokens else []
        command += ["--private-logits"] if run.private_logits else []
    return command


class _Process:
    """A process of the run and a thread that reads its events."""

    def __init__(self, name: str, command: list[str], descriptors: list[int], events: queue.Queue):
        self.name = name
        # A session of its own: Ctrl-C reaches the launcher alone, which then ends the parties in order.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True, pass_fds=descriptors,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read_events, args=(events,), daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_events(self, events: queue.Queue) -> None:
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a library printed something
            if isinstance(event, dict):
                events.put((self.name, event))
        events.put((self.name, None))

    def _read_errors(self) -> None:
        self.errors.extend(self.process.stderr)

    def failure(self) -> Exception:
        """What this process's end means for the user."""
        code = self.process.wait()
        self._threads[1].join(timeout=1)
        text = "".join(self.errors).strip()
        mark = "mpcbench: "
        sentences = [line.removeprefix(mark) for line in text.splitlines() if line.startswith(mark)]
        name = self.name
        if code < 0:
            return PeerError(f"{name} was killed by signal {-code}: this run is lost, so run it again.")
        if sentences and code in (UserError.exit_code, PeerError.exit_code):
            kind = PeerError if code == PeerError.exit_code else UserError
            return kind(f"{name}: {sentences[-1]}")
        return RuntimeError(f"{name} ended with code {code}:\n{text}")

    def end(self) -> None:
        """End the process if it still runs; politely, then not."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for thread in self._threads:
            thread.join(timeout=1)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


def _listening(process: _Process, events: queue.Queue) -> int:
    """The port at which ``process`` listens; what others say meanwhile means that they have ended."""
    while True:
        name, event = events.get()
        if event is None and name == process.name:
            raise process.failure()
        if event is not None and "port" in event:
            return int(event["port"])


def _watch(processes: list[_Process], events: queue.Queue, progress: Callable[[str, int, int], None]) -> None:
    """Until all have ended well; raises what the first failure means."""
    running = {process.name: process for process in processes}
    while running:
        name, event = events.get()
        if event is None:
            ended = running.pop(name)
            if ended.process.wait() != 0:
                raise _first_cause(processes, ended)
        elif name == party_name(1) and event.get("event") == "progress":
            progress(event["what"], event["done"], event["total"])


def _first_cause(processes: list[_Process], ended: _Process) -> Exception:
    """A process that lost its peer says so; the peer knows better why, if it ends by itself soon.

    The dealer never knows: parties that refuse each other leave it alone.
    """
    others = [process for process in processes if process is not ended]
    deadline = time.monotonic() + GRACE_SECONDS
    mine = ended.failure()
    lost_its_peer = isinstance(mine, PeerError) and ended.process.returncode > 0
    while lost_its_peer and time.monotonic() < deadline:
        for other in others:
            if other.process.poll() not in (None, 0, PeerError.exit_code):
                return other.failure()
        if all(other.process.poll() is not None for other in others):
            break
        time.sleep(0.05)
    if lost_its_peer and ended.name == DEALER:
        refused = [other for other in others if other.process.poll() == PeerError.exit_code]
        return refused[0].failure() if refused else mine
    return mine

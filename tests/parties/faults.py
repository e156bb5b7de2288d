"""A run of two parties and a dealer in which one of the three is killed or stopped at a given moment.

Processes are forked from one that has imported everything, so that a run takes a second.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import mpcbench.parties.party
import mpcbench.pipeline.distributed
import mpcbench.secure.randomness.server  # noqa: F401  (what the processes are going to need)
from mpcbench.secure.meeting import listen

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])
ROLES = ("party0", "party1", "dealer")
NAMES = {"party0": "party 0 (model owner)", "party1": "party 1 (client)", "dealer": "the dealer"}
TIMEOUT = 4
"""Seconds that a stopped process is waited for; a busy machine may well keep a process waiting for two."""


@dataclass(frozen=True)
class Fault:
    """Who sends which signal to which process (0: itself) at its ``entry``-th entry into a stage."""

    stage: str
    signal: int
    process: int = 0
    entry: int = 1


@dataclass
class Run:
    """The three processes by role, and their output in files."""

    folder: Path
    ports: tuple[int, ...] = ()
    processes: dict[str, BaseProcess] = field(default_factory=dict)

    def start(
        self, role: str, *words: str, fault: Fault | None = None, inside: str | None = None,
        record: Path | None = None,
    ) -> BaseProcess:  # fmt: skip
        """``mpcbench`` with these words, in a network namespace; what it receives goes to ``record``."""
        arguments = (words, self.folder / f"{role}.log", fault, inside, record)
        process = CONTEXT.Process(target=child, args=arguments)
        process.start()
        self.processes[role] = process
        return process

    def log(self, role: str) -> str:
        """What the process has printed."""
        return (self.folder / f"{role}.log").read_text()

    def sentence(self, role: str) -> str:
        """The last words of a process that gave up; nothing but a sentence."""
        text = self.log(role)
        assert "Traceback" not in text, text
        (line,) = [line for line in text.splitlines() if line.startswith("mpcbench: ")]
        return line.removeprefix("mpcbench: ")

    def end(self) -> None:
        """Leave nothing behind."""
        for process in self.processes.values():
            if process.is_alive():
                process.kill()
            process.join()


def child(
    words: tuple[str, ...], log: Path, fault: Fault | None, inside: str | None, record: Path | None
) -> None:
    """In the new process: ``mpcbench WORDS``."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    if inside is not None:
        _enter_namespace(inside)
    if fault is not None:
        import mpcbench.cli.party

        mpcbench.cli.party._stages = lambda events: _strike(fault)
    from mpcbench.cli import main
    from tests.parties import recorded

    written = recorded.install(record) if record is not None else lambda: None
    try:
        main(list(words))
    finally:
        written()


def _strike(fault: Fault) -> Callable[[str], None]:
    entries = 0

    def on_stage(stage: str) -> None:
        nonlocal entries
        entries += stage == fault.stage
        if stage == fault.stage and entries == fault.entry:
            os.kill(fault.process or os.getpid(), fault.signal)

    return on_stage


def _enter_namespace(name: str) -> None:
    with open(f"/run/netns/{name}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")


def free_port() -> int:
    """A port that was free a moment ago."""
    with listen("127.0.0.1", 0) as server:
        return server.getsockname()[1]


def faulty_run(
    folder: Path, shares: Path, tokens: Path, who: str, stage: str, number: signal.Signals, *client: str
) -> tuple[Run, float]:
    """Start all three, with more ``client`` words; returns when ``who`` was hit, with the time of that."""
    # The first inference is dealt to in line, so that its online phase is one with its offline phase.
    fault = Fault(stage, number, entry=2 if stage == "online" else 1)
    run = started_run(folder, shares, tokens, fault, who, *client)
    hit = run.processes[who].pid
    deadline = time.monotonic() + 240
    while not _is_hit(hit):
        ended = [role for role in ROLES if role != who and not run.processes[role].is_alive()]
        assert not ended or _is_hit(hit), [run.log(role) for role in ended]
        assert time.monotonic() < deadline, [run.log(role) for role in ROLES]
        time.sleep(0.01)
    return run, time.monotonic()


def started_run(
    folder: Path, shares: Path, tokens: Path, fault: Fault | None = None, who: str = "", *client: str
) -> Run:
    """Two parties and a dealer that have just started, of which ``who`` is going to be hit."""
    run = Run(folder, (free_port(), free_port()))
    meet, dealt = (f"127.0.0.1:{port}" for port in run.ports)
    usual = ("--timeout", str(TIMEOUT), "--wait", "240")
    dealer = run.start("dealer", "dealer", "--rendezvous", dealt, *usual)
    for rank in (0, 1):
        words = ["party", "--rank", str(rank), "--shares", str(shares / f"party{rank}"), "--provider",
                 "dealer", "--rendezvous", meet, "--dealer", dealt, "--threads", "1", *usual]  # fmt: skip
        if rank == 1:
            words += ["--token-ids", str(tokens), "--repetitions", "3", *client]
        own = fault if who == f"party{rank}" else None
        if fault is not None and who == "dealer" and rank == 1:
            own = replace(fault, process=dealer.pid)
        run.start(f"party{rank}", *words, fault=own)
    return run


def _is_hit(pid: int) -> bool:
    """Whether a process is stopped or dead."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "TZX"
    except (FileNotFoundError, ProcessLookupError):  # gone before it was opened, or before it was read
        return True

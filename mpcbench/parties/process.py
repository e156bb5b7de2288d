"""Processes of a run, as whoever started them sees them: events, an end, and what that end means.

A process here (:class:`Child`) writes one JSON object a line on standard output; one elsewhere
(:class:`~mpcbench.parties.driver.RemoteClient`) says the same over a link.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence

from mpcbench.errors import PeerError, UserError
from mpcbench.parties.party import STAGES, Stage, party_name
from mpcbench.progress import Progress

GRACE_SECONDS = 1.0
"""How long a party may take to end by itself after the other has failed, and again after it was told to."""
DEALER = "the dealer"

Events = queue.Queue  # of (name, event), where None as event means that the process has ended


class Started(ABC):
    """A process of the run, wherever it runs."""

    name: str
    stage: Stage = "setup"
    """What it was doing when it last said so."""

    @abstractmethod
    def poll(self) -> int | None:
        """Its exit code, None while it runs; negative for a signal that killed it."""

    @abstractmethod
    def failure(self) -> Exception:
        """What its end means for the user, once it has ended badly."""

    @abstractmethod
    def end(self) -> None:
        """End it if it still runs."""


class Child(Started):
    """A process of this machine that inherits ``descriptors``, and threads that read what it says."""

    def __init__(
        self, name: str, command: Sequence[str], events: Events, descriptors: Sequence[int] = ()
    ):  # fmt: skip
        self.name = name
        # A session of its own: Ctrl-C reaches the launcher alone, which then ends the parties in order.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=descriptors,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read_events, args=(events,), daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_events(self, events: Events) -> None:
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # a library printed something
            if isinstance(event, dict):
                if event.get("event") == "stage":
                    self.stage = event["stage"]
                events.put((self.name, event))
        events.put((self.name, None))

    def _read_errors(self) -> None:
        self.errors.extend(self.process.stderr)

    def poll(self) -> int | None:
        return self.process.poll()

    def failure(self) -> Exception:
        code = self.process.wait()
        self._threads[1].join(timeout=1)
        text = "".join(self.errors).strip()
        mark = "mpcbench: "
        sentences = [line.removeprefix(mark) for line in text.splitlines() if line.startswith(mark)]
        name = self.name
        if code < 0:
            when = f"by signal {-code} {STAGES[self.stage]}"
            return PeerError(f"{name} was killed {when}: this run is lost, so run it again.")
        if sentences and code in (UserError.exit_code, PeerError.exit_code):
            kind = PeerError if code == PeerError.exit_code else UserError
            return kind(f"{name}: {sentences[-1]}")
        return RuntimeError(f"{name} ended with code {code}:\n{text}")

    def tell_to_end(self) -> None:
        """Ask it politely, and wait for nothing."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)  # one that was stopped would not hear it

    def end(self) -> None:
        """Politely, then not."""
        self.tell_to_end()
        try:
            self.process.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join(timeout=1)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            stream.close()


def end_all(processes: Sequence[Child]) -> None:
    """End those that still run, all at the same time."""
    for process in processes:
        process.tell_to_end()
    for process in processes:
        process.end()


def listening(process: Started, events: Events) -> int:
    """The port at which ``process`` listens; what others say meanwhile means that they have ended."""
    while True:
        name, event = events.get()
        if event is None and name == process.name:
            raise process.failure()
        if event is not None and "port" in event:
            return int(event["port"])


def watch(processes: Sequence[Started], events: Events, progress: Progress) -> None:
    """Until all have ended well; raises what the first failure means. Progress is the client's."""
    running = {process.name: process for process in processes}
    while running:
        name, event = events.get()
        if event is None:
            ended = running.pop(name)
            if _code(ended) != 0:
                raise _first_cause(processes, ended)
        elif name == party_name(1) and event.get("event") == "progress":
            progress(event["what"], event["done"], event["total"])
        elif name == party_name(1) and event.get("event") == "stage" and DEALER in running:
            running[DEALER].stage = event["stage"]


def _first_cause(processes: Sequence[Started], ended: Started) -> Exception:
    """A process that lost its peer says so; the peer knows better why, if it ends by itself soon.

    The dealer never knows: parties that refuse each other leave it alone.
    """
    others = [process for process in processes if process is not ended]
    deadline = time.monotonic() + GRACE_SECONDS
    mine = ended.failure()
    lost_its_peer = isinstance(mine, PeerError) and _code(ended) > 0
    while lost_its_peer and time.monotonic() < deadline:
        for other in others:
            if other.poll() not in (None, 0, PeerError.exit_code):
                return other.failure()
        if all(other.poll() is not None for other in others):
            break
        time.sleep(0.05)
    if lost_its_peer and ended.name == DEALER:
        refused = [other for other in others if other.poll() == PeerError.exit_code]
        return refused[0].failure() if refused else mine
    return mine


def _code(ended: Started) -> int:
    """The exit code of a process whose last event has come; the process itself may need a moment more."""
    while (code := ended.poll()) is None:
        time.sleep(0.01)
    return code

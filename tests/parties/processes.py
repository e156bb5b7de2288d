"""Looking after processes that a test has started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

ROOT = Path(__file__).parents[2]
Found = TypeVar("Found")


def start(*command: str, prefix: tuple[str, ...] = (), stdin: bool = False) -> subprocess.Popen:
    """``python -m COMMAND`` in this checkout, behind ``prefix``, with its output as text in pipes.

    ``stdin`` asks for a pipe there too, otherwise it is empty.
    """
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for(look: Callable[[], Found], seconds: float, what: str) -> Found:
    """The first true answer of ``look`` within some seconds; fails the test when there is none."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.02)
    return found


def parties_of(launcher: int) -> list[psutil.Process]:
    """The two parties that a launcher has started, party 0 first; empty until both run."""
    found = {}
    for child in psutil.Process(launcher).children(recursive=True):
        try:
            words = child.cmdline()
        except psutil.Error:
            continue
        if "party" in words and "--rank" in words:
            found[words[words.index("--rank") + 1]] = child
    return [found["0"], found["1"]] if len(found) == 2 else []


def port_of(parties: list[psutil.Process]) -> int:
    """Where the parties meet."""
    words = parties[1].cmdline()
    return int(words[words.index("--rendezvous") + 1].rpartition(":")[2])


def all_gone(parties: list[psutil.Process]) -> bool:
    """Whether none of them runs any more."""
    return not any(party.is_running() and party.status() != psutil.STATUS_ZOMBIE for party in parties)


def port_is_free(port: int) -> bool:
    """Whether a new run could listen there at once."""
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True

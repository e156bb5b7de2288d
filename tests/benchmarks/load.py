"""Runs back to back with servers that stay: ``python -m tests.benchmarks.load --runs 50``.

Memory, descriptors and children of the client's server, of the dealer and of the model owner are looked at
after every run; they have to be what they were after the second.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
import torch

from mpcbench.checkpoints import load
from mpcbench.distill import Texts
from mpcbench.parties.driver import RemoteRuns
from mpcbench.parties.hosts import Hosts
from mpcbench.parties.launcher import LocalRun
from mpcbench.pipeline.export import export
from mpcbench.secure.meeting import listen
from tests.parties.processes import start
from tests.tiny import tiny_folder, tiny_texts

TOKENS = torch.tensor([[5, 9, 33, 60, 3, 17, 17]])
SETTLED = 2
"""After so many runs everything has been imported and every buffer been made."""


@dataclass(frozen=True)
class Sample:
    """One process after one run: resident bytes, open descriptors, children."""

    memory: int
    descriptors: int
    children: int

    @classmethod
    def of(cls, pid: int, servers: frozenset[int] = frozenset()) -> Sample:
        """``servers`` are children that are meant to be there."""
        process = psutil.Process(pid)
        children = [child.pid for child in process.children() if child.pid not in servers]
        return cls(process.memory_info().rss, process.num_fds(), len(children))


def samples(shares: Path, protocol: str, runs: int) -> dict[str, list[Sample]]:
    """Run so many times with one client's server and one dealer; a sample a run of each process."""
    taken: dict[str, list[Sample]] = {"model owner": [], "client": [], "dealer": []}
    with _servers(shares.parent) as (hosts, client, dealer), RemoteRuns(hosts) as site:
        servers = frozenset((client, dealer))
        for _ in range(runs):
            site.run(LocalRun(shares, protocol, TOKENS, 1, 0, 1))
            taken["model owner"].append(Sample.of(psutil.Process().pid, servers))
            taken["client"].append(Sample.of(client))
            taken["dealer"].append(Sample.of(dealer))
    return taken


@contextmanager
def _servers(folder: Path) -> Iterator[tuple[Hosts, int, int]]:
    ports = []
    for _ in range(3):
        with listen("127.0.0.1", 0) as server:
            ports.append(server.getsockname()[1])
    places = [{"host": "127.0.0.1", "port": port} for port in ports]
    hosts = Hosts(parties=({"rank": 0, **places[0]}, {"rank": 1, **places[1]}), dealer=places[2])
    path = folder / "hosts.yaml"
    path.write_text(hosts.model_dump_json())  # JSON is YAML
    started: list[subprocess.Popen] = []
    try:
        for role in ("client", "dealer"):
            started.append(start("mpcbench", "serve", role, "--hosts", str(path)))
        yield hosts, started[0].pid, started[1].pid
        assert [process.wait(timeout=60) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
            process.communicate()


@click.command()
@click.option("--runs", type=click.IntRange(SETTLED + 1), default=50, show_default=True)
@click.option("--protocol", default="frontier", show_default=True)
def main(runs: int, protocol: str) -> None:
    """Print how memory and descriptors of each process went, and fail when they grew."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        texts = Texts(tiny_texts(), "random words", "0")
        export(load(str(tiny_folder(folder / "model"))), folder / "shares", "client", 16, texts)
        taken = samples(folder / "shares", protocol, runs)
    for name, series in taken.items():
        first, last = series[SETTLED - 1], series[-1]
        growth = last.memory / first.memory - 1
        click.echo(
            f"{name}: {first.memory / 1e6:.1f} MB after run {SETTLED}, {last.memory / 1e6:.1f} MB after run "
            f"{runs} ({growth:+.1%}); descriptors {first.descriptors}, {last.descriptors}; children "
            f"{last.children}"
        )
        if abs(growth) > 0.05 or last.descriptors > first.descriptors or last.children:
            sys.exit(f"{name} grows")


if __name__ == "__main__":
    main()

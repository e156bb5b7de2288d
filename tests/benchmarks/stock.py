"""The benchmarks' layers under CrypTen as it ships: its own communicator over gloo, its own provider.

    python -m tests.benchmarks.stock --beside results/benchmarks.json
    mpcbench export smollm2-135m --out shares && python -m tests.benchmarks.stock shares

The first says how much faster ``frontier`` was in that file; the second runs a whole forward pass of a model
that was exported for protocol ``crypten``.

Protocol ``crypten`` runs the same functions over mpcbench's transport, with a dealer and with CrypTen's
configuration read once; this is what a user of CrypTen has without any of that. Bytes and rounds are its own
count, whose bytes are those that one party sent and received, which is what both parties send. Times are
medians after a warm-up, without that count, which slows CrypTen down.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import socket
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from tests.benchmarks.table import by_work, machine

TOKENS, WIDTH, CHANNELS, HEADS = 32, 576, 1536, 9
REPETITIONS, PASSES = 5, 3
COUNTING = {"communicator.verbose": True}
HEAD = ("work", "online MB", "rounds", "ms", "error")
AGAINST = ("frontier, online: faster", "with dealer: faster")
NAMES = ("SwiGLU MLP", "quadratic MLP", "softmax, causal", "RMSNorm")


def work(name: str) -> tuple[Callable, list[torch.Tensor]]:
    """A function of tensors, shared or not, and its inputs, all of which are secret."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, fan_in: int = 1) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / fan_in**0.5

    if name == "softmax, causal":
        mask = torch.full((TOKENS, TOKENS), -64.0).triu(1)
        return lambda s: (s + mask).softmax(-1), [3 * normal(HEADS, TOKENS, TOKENS)]
    x = normal(TOKENS, WIDTH)
    if name == "RMSNorm":
        return lambda x: x * _inverse_root((x * x).mean(-1, keepdim=True) + 1e-5), [x]
    gate, up = normal(WIDTH, CHANNELS, fan_in=WIDTH), normal(WIDTH, CHANNELS, fan_in=WIDTH)
    inputs = [x, gate, up, normal(CHANNELS, WIDTH, fan_in=CHANNELS)]
    if name == "SwiGLU MLP":
        return lambda x, g, u, d: _silu(x.matmul(g)).mul(x.matmul(u)).matmul(d), inputs
    rows = [normal(CHANNELS) / 5 for _ in range(3)]

    def quadratic(x, g, u, d, c, b, a):
        h = x.matmul(g)
        return (((a * h + b) * h + c) * x.matmul(u)).matmul(d)

    return quadratic, [*inputs, *rows]


def _silu(x: Any) -> Any:
    return x * x.sigmoid()


def _inverse_root(x: Any) -> Any:
    return x.rsqrt() if isinstance(x, torch.Tensor) else x.inv_sqrt()


def _joined(rank: int, port: int) -> Any:
    """CrypTen, set up as party ``rank`` by its own means."""
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": "2", "RENDEZVOUS": f"tcp://127.0.0.1:{port}",
        "DISTRIBUTED_BACKEND": "gloo", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    from mpcbench.compat import import_crypten

    crypten = import_crypten()
    torch.set_num_threads(1)
    crypten.init()
    return crypten


def _counted(crypten: Any, run: Callable[[], Any]) -> tuple[int, int]:
    """Bytes and rounds of ``run`` by CrypTen's own count, which ``COUNTING`` turns on."""
    communicator = crypten.communicator.get()
    communicator.reset_communication_stats()
    run()
    return communicator.comm_bytes, communicator.comm_rounds


def _layers(rank: int, port: int, results: Any) -> None:
    crypten = _joined(rank, port)
    for name in NAMES:
        function, plain = work(name)
        shared = [crypten.cryptensor(value, src=0) for value in plain]
        run = partial(function, *shared)
        opened = run().get_plain_text()
        error = float((opened - function(*plain)).pow(2).mean().sqrt())
        seconds = [_seconds(run) for _ in range(REPETITIONS)]
        with crypten.cfg.temp_override(COUNTING):
            counted = _counted(crypten, run)
        if rank == 0:
            results.put((name, *counted, statistics.median(seconds), error))
    crypten.uninit()


def _model(rank: int, port: int, results: Any, shares: Path) -> None:
    """A whole forward pass: protocol ``crypten``'s operators are CrypTen's own functions."""
    crypten = _joined(rank, port)
    from mpcbench.graph.shares import read_shares
    from mpcbench.secure.interpreter import CLIENT, SecureInterpreter
    from mpcbench.secure.ledger import Ledger
    from mpcbench.secure.protocol import load_protocol

    communicator = crypten.communicator.get()
    # What the interpreter expects of ours; CrypTen's own neither enters nor guards anything.
    communicator.ledger, communicator.guard, communicator.common_seed = Ledger(), _NoGuard(), bytes(16)
    folder = read_shares(shares / f"party{rank}")
    generator = torch.Generator().manual_seed(0)
    vocabulary = folder.graph.vocab_size
    tokens = torch.randint(vocabulary, (1, TOKENS), generator=generator) if rank == CLIENT else None

    def prepared() -> Callable[[], Any]:  # an interpreter keeps CrypTen's configuration of when it was made
        interpreter = SecureInterpreter(folder, load_protocol("crypten"), communicator)
        return lambda: interpreter.infer(tokens, TOKENS)

    with crypten.no_grad():
        _, *seconds = [_seconds(prepared()) for _ in range(1 + PASSES)]
        with crypten.cfg.temp_override(COUNTING):
            counted = _counted(crypten, prepared())
    if rank == 0:
        results.put(
            (f"{folder.graph.model['name']}, forward pass", *counted, statistics.median(seconds), None)
        )
    crypten.uninit()


class _NoGuard:
    def output(self, name: str) -> AbstractContextManager:
        return nullcontext()


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _next(results: Any, parties: list[Any]) -> tuple:
    """The next row, as long as both parties live."""
    while True:
        try:
            return results.get(timeout=1)
        except queue.Empty:
            if any(party.exitcode for party in parties):
                for party in parties:
                    party.kill()
                sys.exit("A party has ended with the error above.")


@click.command()
@click.argument("shares", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--beside", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The benchmarks of the same machine, for how much faster frontier is.")  # fmt: skip
def main(shares: Path | None, beside: Path | None) -> None:
    """Print the table, in Markdown."""
    from importlib.metadata import version

    ours = by_work(beside, "frontier") if beside else {}
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    target, extra = (_model, (shares,)) if shares else (_layers, ())
    parties = [context.Process(target=target, args=(rank, port, results, *extra)) for rank in (0, 1)]
    for party in parties:
        party.start()
    print(f"CrypTen {version('crypten')} as it ships, gloo on loopback, 32 tokens; both parties together.")
    print(f"{machine()}\n")
    head = [*HEAD, *(AGAINST if ours else ())]
    print(f"| {' | '.join(head)} |\n|:---|{'---:|' * (len(head) - 1)}")
    for _ in range(1) if shares else NAMES:
        row = _next(results, parties)
        print(f"| {' | '.join(_cells(row) + (_against(row, ours) if ours else []))} |", flush=True)
    for party in parties:
        party.join(timeout=30)


def _cells(row: tuple) -> list[str]:
    name, sent, rounds, seconds, error = row
    shown = "" if error is None else f"{error:.1e}"
    return [name, f"{sent / 1e6:.3f}", str(rounds), f"{1e3 * seconds:.0f}", shown]


def _against(row: tuple, ours: dict[str, dict]) -> list[str]:
    """How many times as long CrypTen takes, which makes its tuples meanwhile, as ``frontier``."""
    name, _, _, seconds, _ = row
    found = ours.get(name)
    if found is None:
        return ["–"] * len(AGAINST)
    online = found["online_seconds"]
    return [f"{seconds / online:.1f}×", f"{seconds / (online + found['offline_seconds']):.1f}×"]


if __name__ == "__main__":
    main()

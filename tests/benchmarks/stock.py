"""The benchmarks' layers under CrypTen as it ships: its own communicator over gloo, its own provider.

    python -m tests.benchmarks.stock

Protocol ``crypten`` runs the same functions over mpcbench's transport, with a dealer and with CrypTen's
configuration read once; this is what a user of CrypTen has without any of that. Bytes and rounds are its own
count, whose bytes are those that one party sent and received, which is what both parties send. Times are
medians without that count, which slows CrypTen down.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

TOKENS, WIDTH, CHANNELS, HEADS = 32, 576, 1536, 9
REPETITIONS = 5
NAMES = ("SwiGLU MLP", "quadratic MLP", "causal softmax", "RMSNorm")


def work(name: str) -> tuple[Callable, list[torch.Tensor]]:
    """A function of tensors, shared or not, and its inputs, all of which are secret."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, fan_in: int = 1) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / fan_in**0.5

    if name == "causal softmax":
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


def _party(rank: int, port: int, results: Any) -> None:
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": "2", "RENDEZVOUS": f"tcp://127.0.0.1:{port}",
        "DISTRIBUTED_BACKEND": "gloo", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    from mpcbench.compat import import_crypten

    crypten = import_crypten()
    torch.set_num_threads(1)
    crypten.init()
    for name in NAMES:
        function, plain = work(name)
        shared = [crypten.cryptensor(value, src=0) for value in plain]
        opened = function(*shared).get_plain_text()
        error = float((opened - function(*plain)).pow(2).mean().sqrt())
        seconds = []
        for _ in range(REPETITIONS):
            start = time.perf_counter()
            function(*shared)
            seconds.append(time.perf_counter() - start)
        with crypten.cfg.temp_override({"communicator.verbose": True}):
            communicator = crypten.communicator.get()
            communicator.reset_communication_stats()
            function(*shared)
            counted = communicator.comm_bytes, communicator.comm_rounds
        if rank == 0:
            results.put((name, *counted, statistics.median(seconds), error))
    crypten.uninit()


def main() -> None:
    """The table, in Markdown."""
    from importlib.metadata import version

    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    parties = [context.Process(target=_party, args=(rank, port, results)) for rank in (0, 1)]
    for party in parties:
        party.start()
    print(f"CrypTen {version('crypten')} as it ships, gloo on loopback, 32 tokens; both parties together.\n")
    print("| work | online MB | rounds | ms | error |\n|:---|---:|---:|---:|---:|")
    for _ in NAMES:
        name, sent, rounds, seconds, error = results.get(timeout=120)
        row = (name, f"{sent / 1e6:.3f}", str(rounds), f"{1e3 * seconds:.0f}", f"{error:.1e}")
        print(f"| {' | '.join(row)} |", flush=True)
    for party in parties:
        party.join(timeout=30)


if __name__ == "__main__":
    main()

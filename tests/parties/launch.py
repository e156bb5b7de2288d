"""A launcher as a process of its own: ``python -m tests.parties.launch SHARES TOKENS``.

Runs both parties for as long as anybody lets it, and prints a line when the first inference has begun.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import torch

from mpcbench.cli.errors import reported
from mpcbench.parties.launcher import LocalRun, run_here


def main() -> None:
    """Run until a signal comes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    tokens = torch.tensor([[int(token) for token in sys.argv[2].split(",")]])
    run = LocalRun(Path(sys.argv[1]), "crypten", tokens, repetitions=5000, warmups=0, threads=1,
                   provider="first-party")  # fmt: skip
    with reported():
        run_here(run, lambda what, done, total: print(what, done, flush=True))


if __name__ == "__main__":
    main()

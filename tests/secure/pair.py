"""Two real party processes for a test: a function runs in both, over a real link."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from typing import Any

from mpcbench.secure.transport import accept, connect, listen


def run_pair(function: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """``function(communicator, *args)`` in two spawned processes; returns both results, party 0's first.

    ``function`` must be importable, and ``args`` and results picklable; an exception in either process
    fails the test with its traceback.
    """
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    port = context.Queue()
    processes = [
        context.Process(target=_party, args=(rank, port, results, function, args), daemon=True)
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    try:
        outcomes = dict(results.get(timeout=240) for _ in processes)
    finally:
        for process in processes:
            process.join(timeout=5)
            process.kill()
    for rank in (0, 1):
        ok, value = outcomes[rank]
        assert ok, f"party {rank}:\n{value}"
    return outcomes[0][1], outcomes[1][1]


def _party(rank: int, port: Any, results: Any, function: Callable[..., Any], args: tuple) -> None:
    try:
        results.put((rank, (True, _run(rank, port, function, args))))
    except BaseException:
        results.put((rank, (False, traceback.format_exc())))


def _run(rank: int, port: Any, function: Callable[..., Any], args: tuple) -> Any:
    import torch

    from mpcbench.secure.communicator import LinkCommunicator
    from mpcbench.secure.provider import FirstPartyProvider
    from mpcbench.secure.substrate import install

    torch.set_num_threads(1)
    if rank == 0:
        with listen("127.0.0.1", 0) as server:
            port.put(server.getsockname()[1])
            link = accept(server, "party 1", 60, 60)
    else:
        link = connect("127.0.0.1", port.get(timeout=60), "party 0", 60, 60)
    communicator = LinkCommunicator(rank, link)
    with communicator.ledger.scope("setup", None, "seeds", "seeds"):
        install(communicator, FirstPartyProvider(communicator), 16, {})
    return function(communicator, *args)

"""Two real party processes for a test, with a dealer if wanted: a function runs in both, over a real link."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from typing import Any

from mpcbench.secure.meeting import accept, connect, listen


def run_pair(function: Callable[..., Any], *args: Any, provider: str = "first-party") -> tuple[Any, Any]:
    """``function(communicator, *args)`` in two spawned processes; returns both results, party 0's first.

    ``function`` must be importable, and ``args`` and results picklable; an exception in either process
    fails the test with its traceback. ``provider`` is ``dealer`` or ``first-party``.
    """
    context = multiprocessing.get_context("spawn")
    results, ports = context.Queue(), [context.Queue(), context.Queue()]
    processes = [
        context.Process(target=_party, args=(rank, ports, results, function, args, provider), daemon=True)
        for rank in (0, 1)
    ]
    if provider == "dealer":
        processes.append(context.Process(target=deal, args=(ports[1], 2), daemon=True))
    for process in processes:
        process.start()
    try:
        outcomes = dict(results.get(timeout=240) for _ in (0, 1))
    finally:
        for process in processes:
            process.join(timeout=5)
            process.kill()
    for rank in (0, 1):
        ok, value = outcomes[rank]
        assert ok, f"party {rank}:\n{value}"
    return outcomes[0][1], outcomes[1][1]


def deal(port: Any, announced: int) -> None:
    """A dealer for one run; its port goes into the queue ``announced`` times."""
    import torch

    from mpcbench.allocator import keep_freed_memory
    from mpcbench.secure.randomness.server import serve, welcome

    torch.set_num_threads(1)
    keep_freed_memory()
    with listen("127.0.0.1", 0, backlog=2) as server:
        for _ in range(announced):
            port.put(server.getsockname()[1])
        links = [accept(server, "a party", 60, 60) for _ in range(2)]
    serve(*welcome(links))


def _party(
    rank: int, ports: list[Any], results: Any, function: Callable[..., Any], args: tuple, provider: str
) -> None:
    try:
        results.put((rank, (True, _run(rank, ports, function, args, provider))))
    except BaseException:
        results.put((rank, (False, traceback.format_exc())))


def _run(rank: int, ports: list[Any], function: Callable[..., Any], args: tuple, provider: str) -> Any:
    import torch

    torch.set_num_threads(1)
    communicator = connected(rank, ports, provider)
    try:
        return function(communicator, *args)
    finally:
        from mpcbench.secure.substrate import provider as current

        current().close()


def connected(rank: int, ports: list[Any], provider: str) -> Any:
    """Party ``rank``'s communicator, with CrypTen set up over it."""
    from mpcbench.secure.communicator import LinkCommunicator
    from mpcbench.secure.dealt import DealerProvider
    from mpcbench.secure.provider import FirstPartyProvider
    from mpcbench.secure.substrate import install

    if rank == 0:
        with listen("127.0.0.1", 0) as server:
            ports[0].put(server.getsockname()[1])
            link = accept(server, "party 1", 60, 60)
    else:
        link = connect("127.0.0.1", ports[0].get(timeout=60), "party 0", 60, 60)
    communicator = LinkCommunicator(rank, link)
    if provider == "dealer":
        dealer = connect("127.0.0.1", ports[1].get(timeout=60), "the dealer", 60, 60)
        source = DealerProvider(communicator, dealer)
    else:
        source = FirstPartyProvider(communicator)
    with communicator.ledger.scope("setup", None, "seeds", "seeds"):
        install(communicator, source, 16, {})
    return communicator

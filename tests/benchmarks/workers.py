"""Two party processes that stay up, so that a benchmark times the computation and not the start."""

from __future__ import annotations

import multiprocessing
from typing import Any

import torch

from mpcbench.graph.secure_graph import Node, SecureGraph, Weight
from mpcbench.graph.shares import ShareFolder, encode
from mpcbench.secure.transport import accept, connect, listen

FRACTION_BITS = 16


def mlp_graph(glu: str, width: int, channels: int) -> SecureGraph:
    """One gated MLP: two projections of the same input, the GLU, one projection back."""
    shapes = {
        "gate.weight": (channels, width),
        "up.weight": (channels, width),
        "down.weight": (width, channels),
    }
    extra: dict[str, tuple[int, ...]] = {"quadratic_glu": {"offset": (channels,)}}.get(glu, {})
    nodes = [
        Node("x", "tokens"),
        Node("gate", "linear", ("x",), ("gate.weight",), layer=0, module="mlp.gate_proj"),
        Node("up", "linear", ("x",), ("up.weight",), layer=0, module="mlp.up_proj"),
        Node("glu", glu, ("gate", "up"), tuple(extra), layer=0, module="mlp"),
        Node("down", "linear", ("glu",), ("down.weight",), layer=0, module="mlp.down_proj"),
    ]
    weights = {name: Weight(shape) for name, shape in {**shapes, **extra}.items()}
    return SecureGraph(nodes, weights, "client", 0, 4096)


class Pair:
    """Both parties of a benchmark; ``run`` does one pass and returns each party's ledger totals."""

    def __init__(self, graph: SecureGraph, tokens: int, width: int, protocol: str):
        context = multiprocessing.get_context("spawn")
        port = context.Queue()
        self.pipes, self.processes = [], []
        for rank in (0, 1):
            mine, theirs = context.Pipe()
            args = (rank, port, theirs, graph.to_json(), (1, tokens, width), protocol)
            process = context.Process(target=_serve, args=args, daemon=True)
            process.start()
            self.pipes.append(mine)
            self.processes.append(process)
        for pipe in self.pipes:
            assert pipe.recv() == "ready"

    def run(self) -> list[dict[str, Any]]:
        for pipe in self.pipes:
            pipe.send("run")
        return [pipe.recv() for pipe in self.pipes]

    def close(self) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            pipe.send("stop")
            process.join(timeout=5)
            process.kill()


def _serve(rank: int, port: Any, pipe: Any, graph_json: str, shape: tuple[int, ...], protocol: str) -> None:
    from mpcbench.secure.communicator import LinkCommunicator
    from mpcbench.secure.interpreter import SecureInterpreter
    from mpcbench.secure.ledger import Ledger
    from mpcbench.secure.protocol import load_protocol
    from mpcbench.secure.provider import FirstPartyProvider
    from mpcbench.secure.substrate import crypten, install

    torch.set_num_threads(1)
    communicator = LinkCommunicator(rank, _meet(rank, port))
    with communicator.ledger.scope("setup", None, "seeds", "seeds"):
        install(communicator, FirstPartyProvider(communicator), FRACTION_BITS, {})
    graph = SecureGraph.from_json(graph_json)
    folder = ShareFolder(rank, "", FRACTION_BITS, graph, _random_shares(graph, rank), {})
    interpreter = SecureInterpreter(folder, load_protocol(protocol), communicator)
    x = crypten.cryptensor(torch.randn(shape, generator=torch.Generator().manual_seed(0)), src=0)
    pipe.send("ready")
    while pipe.recv() == "run":
        communicator.ledger = Ledger()
        interpreter.run(x)
        online, offline = communicator.ledger.total("online"), communicator.ledger.total("offline")
        pipe.send({"bytes": online.bytes_sent, "rounds": online.rounds, "online_seconds": online.seconds,
                   "offline_seconds": offline.seconds})  # fmt: skip


def _meet(rank: int, port: Any) -> Any:
    if rank == 1:
        return connect("127.0.0.1", port.get(timeout=60), "party 0", 60, 60)
    with listen("127.0.0.1", 0) as server:
        port.put(server.getsockname()[1])
        return accept(server, "party 1", 60, 60)


def _random_shares(graph: SecureGraph, rank: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shares = {}
    for name, declared in graph.weights.items():
        value = encode(
            torch.randn(declared.shape, generator=generator) / declared.shape[-1] ** 0.5, FRACTION_BITS
        )
        mask = torch.randint(-(2**62), 2**62, declared.shape, generator=generator)
        shares[name] = mask if rank == 0 else value - mask
    return shares

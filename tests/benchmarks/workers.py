"""Two parties and a dealer that stay up, so that a benchmark times the computation and not the start."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from typing import Any

import torch

from mpcbench.allocator import keep_freed_memory
from mpcbench.graph.interpreter import PlaintextInterpreter, causal_mask
from mpcbench.graph.secure_graph import Node, SecureGraph, Weight
from mpcbench.graph.shares import ShareFolder, encode
from tests.secure.pair import connected, deal

FRACTION_BITS = 16


RANGES = {"gate": [0.0, 6.0], "up": [0.0, 6.0], "product": [0.0, 30.0]}
"""What calibration would find for standard normal inputs."""


GLU_WEIGHTS = {"quadratic_glu": ("offset",), "nested_glu": ("e", "m", "n")}
"""Numbers a channel that a gated unit reads."""
FREQUENCIES = "frequencies"
"""The angles a position of a rotation, in radians, which are public."""
SECOND = "second"
"""The name of a second input, which takes the place of what an earlier step has left."""


def _input(largest: float) -> dict:
    return {"range": {"input": [0.0, largest]}}


def mlp_graph(glu: str, width: int, channels: int) -> SecureGraph:
    """One gated MLP: two projections of the same input, the GLU, one projection back."""
    shapes = {
        "gate.weight": (channels, width),
        "up.weight": (channels, width),
        "down.weight": (width, channels),
    }
    extra = dict.fromkeys(GLU_WEIGHTS.get(glu, ()), (channels,))
    nodes = [
        Node("x", "tokens"),
        Node("gate", "linear", ("x",), ("gate.weight",), _input(5.0), 0, "mlp.gate_proj"),
        Node("up", "linear", ("x",), ("up.weight",), _input(5.0), 0, "mlp.up_proj"),
        Node("glu", glu, ("gate", "up"), tuple(extra), {"range": RANGES, "degree": 4}, 0, "mlp"),
        Node("down", "linear", ("glu",), ("down.weight",), _input(30.0), 0, "mlp.down_proj"),
    ]
    weights = {name: Weight(shape) for name, shape in {**shapes, **extra}.items()}
    return SecureGraph(nodes, weights, "client", 0, 4096)


def softmax_graph(keys: int, heads: int, groups: int) -> SecureGraph:
    """Causal softmax of grouped scores, (1, heads / groups, groups * keys, keys)."""
    ranges = {"scores": [-14.0, 14.0], "spread": [0.0, 24.0]}
    node = Node("p", "softmax", ("x",), (), {"groups": groups, "range": ranges}, 0, "attention")
    return SecureGraph([Node("x", "tokens"), node], {}, "client", 0, 4096)


def norm_graph() -> SecureGraph:
    """RMSNorm whose mean squares lie within a factor of ten."""
    ranges = {"first": [0.3, 3.0], "rest": [0.3, 3.0]}
    node = Node("y", "rms_norm", ("x",), (), {"eps": 1e-5, "range": ranges}, 0, "norm")
    return SecureGraph([Node("x", "tokens"), node], {}, "client", 0, 4096)


def linear_graph(width: int, out: int) -> SecureGraph:
    """One linear layer."""
    node = Node("y", "linear", ("x",), ("w",), _input(5.0), 0, "linear")
    return SecureGraph([Node("x", "tokens"), node], {"w": Weight((out, width))}, "client", 0, 4096)


def glu_graph(glu: str, channels: int) -> SecureGraph:
    """A gated unit alone: the gate is the input, the up value the ``second``."""
    extra = GLU_WEIGHTS.get(glu, ())
    node = Node("y", glu, ("x", SECOND), extra, {"range": RANGES, "degree": 4}, 0, "mlp")
    weights = {name: Weight((channels,)) for name in extra}
    return SecureGraph([Node("x", "tokens"), Node(SECOND, "past"), node], weights, "client", 0, 4096)


def product_graph(groups: int | None = None) -> SecureGraph:
    """A product of two activations, the input and the ``second``; ``groups``: behind a causal softmax."""
    attrs: dict = {"range": {"left": [0.0, 6.0], "right": [0.0, 6.0]}}
    attrs |= {"groups": groups} if groups else {}
    node = Node("y", "matmul", ("x", SECOND), (), attrs, 0, "attention")
    return SecureGraph([Node("x", "tokens"), Node(SECOND, "past"), node], {}, "client", 0, 4096)


def attention_graph(width: int, heads: int, groups: int) -> SecureGraph:
    """A whole attention layer: RMSNorm, projections, rotations, scores, softmax, values, projection back."""
    dim, key_heads = width // heads, heads // groups
    shapes = {"q": (width, width), "k": (key_heads * dim, width), "v": (key_heads * dim, width)}
    near = {"eps": 1e-5, "range": {"first": [0.3, 3.0], "rest": [0.3, 3.0]}}
    nodes = [Node("x", "tokens"), Node("norm", "rms_norm", ("x",), (), near, 0, "norm")]
    for name in shapes:
        count = heads if name == "q" else key_heads
        split = {"shape": [1, -1, count, dim]}
        nodes += [
            Node(name, "linear", ("norm",), (f"{name}.weight",), _input(6.0), 0, f"attention.{name}_proj"),
            Node(f"{name}_split", "reshape", (name,), (), split, 0, "attention"),
            Node(f"{name}_heads", "transpose", (f"{name}_split",), (), {"dims": [1, 2]}, 0, "attention"),
        ]
    for name in ("q", "k"):
        turned, table = (f"{name}_heads",), (FREQUENCIES,)
        nodes.append(Node(f"{name}_turned", "rope", turned, table, {"scale": 1.0}, 0, "attention"))
    product, mixed, scores = (
        {"range": {"left": [0.0, 1.5], "right": [0.0, 6.0]}},
        {"groups": groups, "range": {"left": [0.0, 1.0], "right": [0.0, 6.0]}},
        {"groups": groups, "range": {"scores": [-10.0, 10.0], "spread": [0.0, 16.0]}},
    )
    grouped, joined = {"shape": [1, key_heads, -1, dim]}, {"shape": [1, heads, -1, dim]}
    nodes += [
        Node("rows", "reshape", ("q_turned",), (), grouped, 0, "attention"),
        Node("columns", "transpose", ("k_turned",), (), {"dims": [2, 3]}, 0, "attention"),
        Node("scores", "matmul", ("rows", "columns"), (), product, 0, "attention"),
        Node("softmax", "softmax", ("scores",), (), scores, 0, "attention"),
        Node("mix", "matmul", ("softmax", "v_heads"), (), mixed, 0, "attention"),
        Node("heads", "reshape", ("mix",), (), joined, 0, "attention"),
        Node("back", "transpose", ("heads",), (), {"dims": [1, 2]}, 0, "attention"),
        Node("joined", "reshape", ("back",), (), {"shape": [1, -1, width]}, 0, "attention"),
        Node("o", "linear", ("joined",), ("o.weight",), _input(6.0), 0, "attention.o_proj"),
    ]
    weights = {f"{name}.weight": Weight(shape) for name, shape in {**shapes, "o": (width, width)}.items()}
    weights[FREQUENCIES] = Weight((dim // 2,), secret=False)
    return SecureGraph(nodes, weights, "client", 0, 4096)


def argmax_graph() -> SecureGraph:
    """The index of the largest logit."""
    return SecureGraph([Node("x", "tokens"), Node("y", "argmax", ("x",))], {}, "client", 0, 4096)


@dataclass(frozen=True)
class Work:
    """What a benchmark measures: a graph, and the shapes of its input and, if it has one, its ``second``."""

    graph: SecureGraph
    shape: tuple[int, ...]
    second: tuple[int, ...] | None = None

    def inputs(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Standard normal values; scores are three times larger, and hidden attention weights zero."""
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(self.shape, generator=generator)
        node = self.graph.nodes[-1]
        if node.op == "softmax":
            x = 3 * x
        if node.op == "matmul" and "groups" in node.attrs:
            x = x * causal_mask(*self.shape[-2:], node.attrs["groups"])
        return x, None if self.second is None else torch.randn(self.second, generator=generator)


class Pair:
    """Both parties of a benchmark and their dealer; ``run`` does one pass, each party's ledger totals."""

    def __init__(self, work: Work, protocol: str, provider: str = "dealer"):
        context = multiprocessing.get_context("spawn")
        ports = [context.Queue(), context.Queue()]
        self.pipes, self.processes = [], []
        for rank in (0, 1):
            mine, theirs = context.Pipe()
            args = (rank, ports, theirs, work, protocol, provider)
            self.pipes.append(mine)
            self.processes.append(context.Process(target=_serve, args=args, daemon=True))
        if provider == "dealer":
            self.processes.append(context.Process(target=deal, args=(ports[1], 2), daemon=True))
        for process in self.processes:
            process.start()
        for pipe in self.pipes:
            assert pipe.recv() == "ready"

    def run(self) -> list[dict[str, Any]]:
        for pipe in self.pipes:
            pipe.send("run")
        return [pipe.recv() for pipe in self.pipes]

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.send("stop")
        for process in self.processes:
            process.join(timeout=5)
            process.kill()


def _serve(rank: int, ports: Any, pipe: Any, work: Work, protocol: str, provider: str) -> None:
    from mpcbench.records.schema import REPETITION
    from mpcbench.secure.interpreter import SecureInterpreter
    from mpcbench.secure.ledger import Ledger
    from mpcbench.secure.protocol import load_protocol
    from mpcbench.secure.substrate import crypten
    from mpcbench.secure.substrate import provider as current

    torch.set_num_threads(1)
    keep_freed_memory()  # as every process of the command line does
    communicator = connected(rank, ports, provider)
    graph = work.graph
    public = {name: value for name, value in _weights(graph).items() if not graph.weights[name].secret}
    folder = ShareFolder(rank, "", FRACTION_BITS, graph, _random_shares(graph, rank), public)
    interpreter = SecureInterpreter(folder, load_protocol(protocol), communicator)
    interpreter.use(graph, work.shape[1])
    x, second = work.inputs()
    secret = crypten.cryptensor(x, src=0)
    if second is not None:
        interpreter.cache[SECOND] = crypten.cryptensor(second, src=0)
    pipe.send("ready")
    while pipe.recv() == "run":
        communicator.ledger = ledger = Ledger()
        started = time.perf_counter()
        current().prepare()
        ahead = time.perf_counter() - started
        communicator.link.swap_control({})  # the online clocks start together
        value = interpreter.run(secret)
        online, offline = ledger.total("online"), ledger.total("offline")
        again = [
            tally for scope, tally in ledger.tallies.items()
            if scope.operator == REPETITION and scope.phase == "online"
        ]  # fmt: skip
        report = {
            "bytes": online.bytes_sent - sum(t.bytes_sent for t in again),
            "rounds": online.rounds - sum(t.rounds for t in again),
            "online_seconds": online.seconds, "offline_seconds": ahead + offline.seconds,
            "dealt_bytes": offline.bytes_sent, "tuples": sum(offline.tuples.values()),
            "dealer_seconds": current().dealer_seconds(),
        }  # fmt: skip
        with ledger.scope("online", None, "test", "output"), communicator.guard.output("result"):
            shared = value.reveal().double() / value.encoder.scale
        pipe.send({**report, "error": _error(work, shared)})
    current().close()


def _error(work: Work, value: torch.Tensor) -> float:
    """Root mean square of the difference to floating point."""
    x, second = work.inputs()
    plain = PlaintextInterpreter(work.graph, _weights(work.graph))
    plain.cache[SECOND] = second
    expected = plain.run(x)
    return float((value - expected).pow(2).mean().sqrt())


def _weights(graph: SecureGraph) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: torch.randn(declared.shape, generator=generator) / declared.shape[-1] ** 0.5
        for name, declared in graph.weights.items()
    }
    if FREQUENCIES in weights:
        pairs = len(weights[FREQUENCIES])
        weights[FREQUENCIES] = 10000.0 ** (-torch.arange(pairs) / pairs)
        weights["q.weight"] /= (2 * pairs) ** 0.5  # the scale of attention, as it is folded in
    return weights


def _random_shares(graph: SecureGraph, rank: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    shares = {}
    for name, weight in _weights(graph).items():
        if not graph.weights[name].secret:
            continue
        mask = torch.randint(-(2**62), 2**62, weight.shape, generator=generator)
        shares[name] = mask if rank == 0 else encode(weight, FRACTION_BITS) - mask
    return shares

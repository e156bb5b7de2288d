"""The cost interpreter: the ledger of a run, added up from what operators declare, without a run.

It walks the graph that the parties would run, with tensors on the meta device, which have shapes and no
content. A test holds its ledger against that of real runs, entry by entry. Openings that ``frontier`` has to
repeat depend on chance and are not foreseen.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import torch

from mpcbench.cost.declared import RING_BYTES, Cost
from mpcbench.errors import UserError
from mpcbench.graph.decoding import continued, with_cache
from mpcbench.graph.interpreter import FUNCTIONS, Interpreter
from mpcbench.graph.secure_graph import Node, SecureGraph
from mpcbench.records.schema import PHASES, Entry, Ledger, Phase, PhaseLedger
from mpcbench.secure.dealt import DealerProvider
from mpcbench.secure.protocol import Protocol
from mpcbench.secure.provider import FirstPartyProvider
from mpcbench.secure.substrate import SEED_WORDS

Scope = tuple[Phase, int | None, str, str]


def predict(graph: SecureGraph, protocol: Protocol, tokens: int, cached: int = 0) -> Ledger:
    """The ledger of one inference over ``tokens`` tokens, with all times zero.

    ``cached``: how many tokens came before, whose keys and values the parties have kept; the ledger is then
    that of a step of generation, which takes any number of tokens. Raises UserError for a number of tokens
    that the model does not take, and for an operator that refuses the graph, such as one that finds no
    calibrated range.
    """
    most = graph.max_tokens - (tokens if cached else 0)
    if not 2 <= (cached or tokens) <= most:
        raise UserError(f"--tokens {cached or tokens}: this model takes 2 to {most} tokens.")
    interpreter = CostInterpreter(with_cache(graph) if cached else graph, protocol)
    with torch.no_grad():
        if cached:
            interpreter.pass_over(cached)
        interpreter.infer(tokens)
    return interpreter.ledger()


@dataclass
class _Line:
    """What one scope causes; bytes by sender, in the offline phase by receiver."""

    calls: int = 0
    sent: Counter[int] = field(default_factory=Counter)
    rounds: int = 0
    tuples: Counter[str] = field(default_factory=Counter)
    dealt: Counter[int] = field(default_factory=Counter)
    unseeded: int = 0

    def entry(self, scope: Scope) -> Entry:
        phase, layer, module, operator = scope
        material = phase != "online"
        return Entry(
            layer=layer, module=module, operator=operator, calls=self.calls, rounds=self.rounds,
            bytes_sent=(self.sent[0], self.sent[1]), seconds=0.0, wait_seconds=0.0, tuples=dict(self.tuples),
            dealt_bytes=(self.dealt[0], self.dealt[1]) if material else None,
            unseeded_bytes=(self.unseeded, self.unseeded) if material else None,
        )  # fmt: skip


class CostInterpreter(Interpreter[torch.Tensor]):
    """Values and weights lie on the meta device; the plaintext functions compute their shapes."""

    def __init__(self, graph: SecureGraph, protocol: Protocol):
        super().__init__(protocol.arranged(graph))
        self.protocol, self.source = protocol, graph
        self.weights = {name: _shaped(*weight.shape) for name, weight in graph.weights.items()}
        self._lines: dict[Scope, _Line] = {}
        self._setup()

    def pass_over(self, tokens: int) -> None:
        """Cache the keys and values of so many tokens, at no cost, and go on behind them.

        The graph must be one :func:`~mpcbench.graph.decoding.with_cache`.
        """
        lines = dict(self._lines)
        self.infer(tokens)
        self._lines = lines
        self.source = continued(self.source, tokens)

    def infer(self, tokens: int) -> None:
        """One forward pass: the client's input, the graph, the logits opened to the client."""
        self.use(self.protocol.arranged(self.source, tokens))
        graph = self.graph
        table = next(node.weights[0] for node in graph.nodes if node.op == "embedding")
        private = graph.embedding == "private"
        width = graph.vocab_size if private else graph.weights[table].shape[1]
        self._line("online", None, "input", "input").calls += 1
        logits = self.run(_shaped(1, tokens, width))
        output = self._line("online", None, "output", "output")
        output.calls += 1
        output.rounds += 1
        output.sent[0] += RING_BYTES * logits.numel()

    def call(self, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
        if node.op == "embedding" and self.graph.embedding == "client":
            return inputs[0]  # the client looks its own tokens up
        weights = [self.weights[name] for name in node.weights]
        # A cache that is still empty has no value.
        shapes = [() if value is None else tuple(value.shape) for value in inputs]
        self._enter(
            node,
            self.protocol.operators[node.op].cost(node, shapes, [tuple(weight.shape) for weight in weights]),
        )
        if node.op == "embedding":
            return inputs[0] @ weights[0]  # one-hot rows
        # A leader of linear layers has the weights of those that it opens for, after its own.
        own = weights[: node.attrs.get("own", len(weights))]
        with torch.device("meta"):
            return FUNCTIONS[node.op](node, inputs, own)

    def ledger(self) -> Ledger:
        """All that has been entered."""
        return Ledger(**{phase: self._phase(phase) for phase in PHASES})

    def _setup(self) -> None:
        seeds = self._line("setup", None, "seeds", "seeds")
        self._add(seeds, Cost(RING_BYTES * SEED_WORDS, 1))
        loaded: set[str] = set()
        for node in self.graph.nodes:
            for name in node.weights:
                declared = self.graph.weights[name]
                if declared.secret and name not in loaded:
                    loaded.add(name)
                    cost = self.protocol.operators[node.op].setup_cost(node, name, declared.shape)
                    if cost.rounds:
                        line = self._line("setup", node.layer, node.module, node.op)
                        self._add(line, cost)
                        self._deal(line, cost)

    def _enter(self, node: Node, cost: Cost) -> None:
        where = (node.layer, node.module, node.op)
        self._add(self._line("online", *where), Cost(cost.bytes_sent, cost.rounds))
        if cost.tuples:
            offline = self._line("offline", *where)
            offline.calls += 1
            self._deal(offline, cost)

    def _deal(self, line: _Line, cost: Cost) -> None:
        """A dealer sends corrections to party 1; a first party, party 0, makes its own."""
        line.tuples += cost.tuples
        line.unseeded += cost.unseeded_bytes
        dealer = self.protocol.provider == DealerProvider.NAME
        line.dealt[(DealerProvider if dealer else FirstPartyProvider).CORRECTED] += cost.dealt_bytes
        if dealer:
            line.sent[DealerProvider.CORRECTED] += cost.dealt_bytes

    @staticmethod
    def _add(line: _Line, cost: Cost) -> None:
        line.calls += 1
        line.rounds += cost.rounds
        for rank in (0, 1):
            line.sent[rank] += cost.bytes_sent

    def _line(self, *scope: object) -> _Line:
        return self._lines.setdefault(scope, _Line())

    def _phase(self, phase: Phase) -> PhaseLedger:
        entries = [line.entry(scope) for scope, line in self._lines.items() if scope[0] == phase]
        sent = tuple(sum(entry.bytes_sent[rank] for entry in entries) for rank in (0, 1))
        rounds = sum(entry.rounds for entry in entries)
        return PhaseLedger(bytes=sum(sent), bytes_sent=sent, rounds=rounds, entries=entries)


def _shaped(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")

"""What correlated randomness an inference will ask for, found by running the graph on nothing.

Requests depend on public shapes and ranges alone, so a run on zeros, with a peer that answers zeros, asks
for the same as any other. Only openings that have to be made again are a matter of chance: the rehearsal
enters with which probability, and from that follows how much to hold ready for them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.graph.shares import ShareFolder
from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.interpreter import SecureInterpreter
from mpcbench.secure.protocol import Protocol
from mpcbench.secure.provider import Provider
from mpcbench.secure.randomness.recipe import Recipe
from mpcbench.secure.substrate import install

SHORTAGE = 1e-9
"""With which probability an inference may need more spare tuples of one kind than are held ready."""


@dataclass(frozen=True)
class Demand:
    """What is asked for: once at set-up, in every inference, and held ready for openings made again."""

    setup: tuple[Recipe, ...]
    inference: tuple[Recipe, ...]
    spare: tuple[Recipe, ...]


def rehearse(graph: SecureGraph, protocol: Protocol, tokens: int) -> Demand:
    """The demand of ``tokens`` tokens; needs neither weights nor a peer, and seconds of one core.

    Sets up CrypTen for this process, which can then be no party.
    """
    communicator = LinkCommunicator(0, _Nobody())
    recorder = _Recorder(communicator)
    with communicator.ledger.scope("setup", None, "seeds", "seeds"):
        install(communicator, recorder, protocol.fixed_point.fraction_bits, {})
    interpreter = SecureInterpreter(_empty(graph, protocol), protocol, communicator)
    setup = recorder.take()
    if communicator.ledger.risks.total():
        # What is dealt for all inferences depends on its masks, so that no spare could take their place.
        raise RuntimeError("something that is opened at set-up may have to be opened again")
    interpreter.infer(None, tokens)
    return Demand(setup, *_with_spares(recorder, communicator.ledger.risks))


def _with_spares(recorder: _Recorder, risks: dict[str, float]) -> tuple[tuple[Recipe, ...], ...]:
    expected: dict[Recipe, float] = defaultdict(float)
    for recipe, where in dict.fromkeys(zip(recorder.recipes, recorder.where, strict=True)):
        expected[recipe] += risks.get(where, 0.0)
    spare = [recipe for recipe, mean in expected.items() for _ in range(spares(mean))]
    return recorder.take(), tuple(spare)


def spares(mean: float) -> int:
    """How many to hold ready when ``mean`` are expected: Poisson's tail beyond is below :data:`SHORTAGE`."""
    count, covered = 0, math.exp(-mean)
    while 1.0 - covered > SHORTAGE:
        count += 1
        covered += math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))
    return count


class _Nobody:
    """Stands in for the link to the peer: whatever is opened is zero."""

    peer = "nobody"

    def exchange(self, out: Sequence[memoryview], into: Sequence[memoryview]) -> float:
        for view in into:
            if view.nbytes:
                torch.frombuffer(view, dtype=torch.uint8).zero_()
        return 0.0


class _Recorder(Provider):
    """Writes down what it is asked for, and gives zeros."""

    NAME = "rehearsal"

    def __init__(self, communicator: LinkCommunicator):
        super().__init__(communicator)
        self.recipes: list[Recipe] = []
        self.where: list[str] = []

    def take(self) -> tuple[Recipe, ...]:
        """What was asked for since the last call."""
        taken, self.recipes, self.where = tuple(self.recipes), [], []
        return taken

    def _shares(self, recipe: Recipe, again: bool) -> list[torch.Tensor]:
        self.requests += 1
        self.recipes.append(recipe)
        self.where.append(self.communicator.ledger.here)
        return [torch.zeros(size, dtype=torch.int64) for size in (*recipe.masks(), *recipe.values())]


def _empty(graph: SecureGraph, protocol: Protocol) -> ShareFolder:
    """A share folder of zeros; the operating system gives memory to none that is never written."""
    shapes = {True: {}, False: {}}
    for name, weight in graph.weights.items():
        kind = torch.int64 if weight.secret else torch.float32
        shapes[weight.secret][name] = torch.zeros(weight.shape, dtype=kind)
    return ShareFolder(0, "", protocol.fixed_point.fraction_bits, graph, shapes[True], shapes[False])

"""An operator protocol: what it computes, where that comes from, what it costs, and the code, side by side.

An implementation is one small class in one small file. The shared test (``tests/secure/operators``) runs
every registered implementation on its own sample with two processes and holds it to what it declares:
value within ``error`` of the plaintext oracle, bytes, rounds and tuples exactly ``cost``.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict

from mpcbench.cost.declared import FREE, Cost
from mpcbench.graph.interpreter import FUNCTIONS
from mpcbench.graph.secure_graph import Node
from mpcbench.secure.operators.limits import Measured, Plain, Seen, Violation, beyond, beyond_margin
from mpcbench.secure.substrate import crypten

Shape = tuple[int, ...]


class Params(BaseModel):
    """Parameters that a protocol file may set; unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Sample:
    """Inputs and weights on which the shared test runs an implementation, with the node they belong to."""

    def __init__(self, node: Node, inputs: Sequence[torch.Tensor], weights: Sequence[torch.Tensor] = ()):
        self.node, self.inputs, self.weights = node, list(inputs), list(weights)


class Operator(ABC):
    """One implementation of one operator of the graph.

    ``name`` is what protocol files call it, ``op`` the graph operator it implements, ``source`` the
    paper and section (or file) it follows, ``domain`` the inputs for which it is right, and ``error``
    the largest absolute error to expect there at 16 fraction bits.
    """

    name: ClassVar[str]
    op: ClassVar[str]
    source: ClassVar[str]
    domain: ClassVar[str]
    error: ClassVar[float]
    Params: ClassVar[type[Params]] = Params
    groups_linears: ClassVar[bool] = False
    """Whether linear layers that read the same value share its opening (:mod:`mpcbench.graph.grouping`)."""
    priced_by: ClassVar[tuple[str, ...]] = ()
    """The calibrated ranges of a node on which its cost depends."""
    ranges: ClassVar[tuple[str, ...]] = ()
    """The calibrated magnitudes of a node that its values may leave by the factor ``margin`` alone."""
    products: ClassVar[tuple[str, ...]] = ("output",)
    """What it measures of values that must stay below :meth:`room`."""

    cuts_locally: ClassVar[frozenset[str]] = frozenset({"mul_triple", "square", "matmul_triple"})
    """Kinds of CrypTen's tuples whose products it truncates share by share, which can fail; operators of ours
    enter in the ledger what they cut so."""

    def __init__(self, params: Params, bits: int = 16):
        """``bits``: fraction bits of the protocol's numbers."""
        self.params, self.bits = params, bits

    @classmethod
    @abstractmethod
    def sample(cls) -> Sample:
        """What the shared test runs: shapes as in a real layer, values across the domain."""

    def reference(self, node: Node, inputs: Plain, weights: Plain) -> torch.Tensor:
        """What it computes, in floating point: the graph operator's function, unless it is one of its own."""
        return FUNCTIONS[node.op](node, inputs, weights)

    @abstractmethod
    def cost(self, node: Node, inputs: Sequence[Shape], weights: Sequence[Shape]) -> Cost:
        """Online cost at one party, from shapes alone."""

    @abstractmethod
    def run(self, node: Node, inputs: Sequence[Any], weights: Sequence[Any]) -> Any:
        """The operator on shares. Secret values are CrypTen tensors, public ones torch tensors."""

    def load(self, node: Node, name: str, share: torch.Tensor, bits: int) -> Any:
        """This party's share of a weight as ``run`` gets it; a chance for work that is done once a model.

        What is sent here belongs to the setup phase.
        """
        return crypten.mpc.MPCTensor.from_shares(share, precision=bits)

    def setup_cost(self, node: Node, name: str, shape: Shape) -> Cost:
        """What :meth:`load` of a weight of this shape costs at one party, once a model."""
        return FREE

    def room(self, node: Node) -> float:
        """From which magnitude on ``products`` do not fit into the ring before they are cut."""
        return math.inf

    def measured(self, node: Node, inputs: Plain, weights: Plain, result: torch.Tensor) -> Measured:
        """What :meth:`violation` wants to know of a plaintext run, beside what calibration looks at."""
        return {"output": result}

    def violation(self, node: Node, seen: Seen) -> Violation | None:
        """The first values seen in plaintext at ``node`` for which it is wrong; None where it is right."""
        margin = getattr(self.params, "margin", 1.0)
        return beyond_margin(node, seen, self.ranges, margin) or beyond(seen, self.products, self.room(node))

    def unusable(self) -> str | None:
        """A sentence where it cannot work with its parameters and the protocol's fraction bits."""
        return None

    def settings(self, node: Node) -> Mapping[str, Any]:
        """Dotted keys of CrypTen's configuration that hold while this operator runs ``node``."""
        return {}

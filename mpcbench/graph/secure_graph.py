"""The graph that all interpreters share: a Llama as a list of a dozen kinds of operators.

A graph is data. It holds no weights and no code: nodes name operators, and a node's operator is looked
up in a table of known ones, so that a graph file can be read from a stranger. It is independent of the
number of tokens; one capture serves every prompt length.

Every node but the public ones yields a secret value. Activations are ``(1, tokens, hidden)`` as in
Transformers, or ``(1, heads, tokens, head_dim)`` inside attention.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mpcbench.errors import UserError

FORMAT = 1

OPERATORS: dict[str, str] = {
    "tokens": "input: token ids; () -> (1, S)",
    "embedding": "rows of a table; tokens, (V, D) -> (1, S, D)",
    "linear": "x Wᵀ + b; (1, S, I), (O, I)[, (O,)] -> (1, S, O)",
    "matmul": "batched product of two secret values; (..., m, k), (..., k, n) -> (..., m, n)",
    "add": "elementwise sum of equal shapes",
    "rms_norm": "x / sqrt(mean(x²) + eps) over the last dimension[, times a gain]",
    "sum_squares": "sum of x² over the last dimension; (1, S, D) -> (1, S, 1)",
    "normed_scores": "causal rotated q kᵀ, a norm put off: squares, q (1, H, S, d), k, v -> (1, K, G·S, S)",
    "rope": "rotary position embedding by public frequencies; (1, H, S, d), (d/2,) -> (1, H, S, d)",
    "softmax": "causal softmax of grouped scores; (1, K, G·S, S) -> same",
    "swiglu": "silu(gate) · up",
    "polynomial_glu": "p_j(gate) · up, coefficients (degree+1, H) ascending",
    "quadratic_glu": "(gate² + offset) · up: a quadratic whose coefficients are folded into the weights",
    "nested_glu": "((gate² + e)² + m·gate + n)·up, or ((gate² + e)·gate + n)·up: folded quartics, cubics",
    "reshape": "new shape, -1 for the one free dimension",
    "transpose": "two dimensions swapped",
    "last_token": "(1, S, D) -> (1, 1, D)",
    "past": "input: what the append that reads this made in the step before; nothing in the first step",
    "append": "rows of new tokens behind those of earlier ones[, at first a prefix's], along one dimension",
    "argmax": "index of the largest of the last dimension; (1, 1, V) -> (1, 1)",
    "output": "the value that is opened to the client",
}


@dataclass(frozen=True)
class Node:
    """One operator call. ``inputs`` are names of earlier nodes, ``weights`` names of stored tensors."""

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    attrs: dict = field(default_factory=dict)
    layer: int | None = None
    module: str = ""


@dataclass(frozen=True)
class Weight:
    """A stored tensor: its shape, and whether it is secret-shared or public."""

    shape: tuple[int, ...]
    secret: bool = True


@dataclass
class SecureGraph:
    """Nodes in the order of execution, the tensors they use, and facts about the model.

    ``embedding`` says where the embedding is looked up: ``client`` (the table is public to the client)
    or ``private`` (under MPC). ``model`` carries public facts (architecture, polynomial layers, hashes)
    that runs copy into their records.
    """

    nodes: list[Node]
    weights: dict[str, Weight]
    embedding: str
    vocab_size: int
    max_tokens: int
    model: dict = field(default_factory=dict)

    def to_json(self) -> str:
        """The graph as canonical JSON (sorted keys), so that equal graphs are equal texts."""
        body = {"format": FORMAT, **asdict(self)}
        return json.dumps(body, sort_keys=True, indent=1)

    def sha256(self) -> str:
        """Hash of the canonical JSON; both parties compare it before they start."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @classmethod
    def from_json(cls, text: str, origin: str = "graph.json") -> SecureGraph:
        """Read a graph; raises UserError when it is malformed or names an unknown operator."""
        try:
            body = json.loads(text)
            if body.pop("format") != FORMAT:
                raise UserError(f"{origin} has another format than this mpcbench: export the model again.")
            body["nodes"] = [_node(item) for item in body["nodes"]]
            body["weights"] = {
                key: Weight(tuple(item["shape"]), item["secret"]) for key, item in body["weights"].items()
            }
            graph = cls(**body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{origin} is not a graph of mpcbench ({error}): export the model again."
            ) from None
        graph.check(origin)
        return graph

    @classmethod
    def read(cls, path: Path) -> SecureGraph:
        """Read ``graph.json``; raises UserError when it is missing or malformed."""
        try:
            return cls.from_json(path.read_text(encoding="utf-8"), str(path))
        except FileNotFoundError:
            raise UserError(f"{path} is missing: name a party's folder that mpcbench export wrote.") from None

    def check(self, origin: str = "graph") -> None:
        """Raise UserError unless operators are known and every name is defined before it is used."""
        seen: set[str] = set()
        for node in self.nodes:
            if node.op not in OPERATORS:
                raise UserError(f"{origin} uses the operator {node.op!r}, which this mpcbench does not know.")
            missing = [name for name in node.inputs if name not in seen]
            missing += [name for name in node.weights if name not in self.weights]
            if missing:
                raise UserError(f"{origin}: node {node.name} uses {missing[0]!r}, which is not defined.")
            seen.add(node.name)

    def last_uses(self) -> dict[str, list[str]]:
        """For every node, the earlier values that nothing needs after it: what may be freed then."""
        last = {name: node.name for node in self.nodes for name in node.inputs}
        freed: dict[str, list[str]] = {}
        for name, user in last.items():
            freed.setdefault(user, []).append(name)
        return freed


def _node(item: dict) -> Node:
    item = dict(item)
    return Node(**{**item, "inputs": tuple(item["inputs"]), "weights": tuple(item["weights"])})

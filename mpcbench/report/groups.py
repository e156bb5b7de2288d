"""Operators gathered into the groups that a paper shows, so that nothing is counted twice or lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mpcbench.records.schema import Entry, PhaseLedger

GROUPS: dict[str, str] = {
    "linear": "linear layers",
    "lm_head": "LM head",
    "embedding": "embedding",
    "attention": "attention",
    "rms_norm": "RMSNorm",
    "activation": "activation",
    "input": "input",
    "output": "output",
    "repetition": "repeated openings",
    "other": "other",
}
"""Groups in the order in which they are shown, and their names in tables and figures."""

_BY_OPERATOR = {
    "linear": "linear",
    "sum_squares": "linear",  # the projections' opening of x, which also serves the squares
    "matmul": "attention",
    "softmax": "attention",
    "rope": "attention",
    "normed_scores": "attention",
    "append": "attention",
    "rms_norm": "rms_norm",
    "silu": "activation",
    "swiglu": "activation",
    "polynomial_glu": "activation",
    "quadratic_glu": "activation",
    "nested_glu": "activation",
    "embedding": "embedding",
    "lm_head": "lm_head",
    "input": "input",
    "output": "output",
    "argmax": "output",
    "repetition": "repetition",
}


def group_of(entry: Entry) -> str:
    """The group of one entry; an operator this version does not know belongs to ``other``.

    The LM head is a linear layer by its operator and a group by its module. A bare multiplication
    inside the MLP is the gate's (silu(g) * u, when a protocol keeps the two steps apart).
    """
    if entry.operator == "repetition":
        return "repetition"
    if "lm_head" in entry.module.split("."):
        return "lm_head"
    if entry.operator == "mul" and "mlp" in entry.module.split("."):
        return "activation"
    return _BY_OPERATOR.get(entry.operator, "other")


@dataclass(frozen=True)
class Cost:
    """Traffic of both parties in bytes, rounds, and wall clock in seconds, of some entries."""

    bytes: int = 0
    bytes_sent: tuple[int, int] = (0, 0)
    rounds: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0


def cost(entries: Iterable[Entry]) -> Cost:
    """The sum of ``entries``."""
    entries = list(entries)
    sent = (sum(entry.bytes_sent[0] for entry in entries), sum(entry.bytes_sent[1] for entry in entries))
    return Cost(
        bytes=sum(sent),
        bytes_sent=sent,
        rounds=sum(entry.rounds for entry in entries),
        seconds=sum(entry.seconds for entry in entries),
        wait_seconds=sum(entry.wait_seconds for entry in entries),
    )


def by_group(ledger: PhaseLedger) -> dict[str, Cost]:
    """Cost of every group of one phase, in the order of :data:`GROUPS`; they add up to the phase."""
    members: dict[str, list[Entry]] = {group: [] for group in GROUPS}
    for entry in ledger.entries:
        members[group_of(entry)].append(entry)
    return {group: cost(entries) for group, entries in members.items()}


def activation_per_layer(
    ledger: PhaseLedger, polynomial_layers: Iterable[int]
) -> tuple[list[Cost], list[Cost]]:
    """Activation cost of every decoder layer: of those that keep theirs, and of the polynomial ones."""
    polynomial = set(polynomial_layers)
    layers: dict[int, list[Entry]] = {}
    for entry in ledger.entries:
        if entry.layer is not None and group_of(entry) == "activation":
            layers.setdefault(entry.layer, []).append(entry)
    kept = [cost(entries) for layer, entries in sorted(layers.items()) if layer not in polynomial]
    replaced = [cost(entries) for layer, entries in sorted(layers.items()) if layer in polynomial]
    return kept, replaced

"""How many truncations of a run are expected to have failed, and what was seen of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from mpcbench.checkpoints import Checkpoint
from mpcbench.graph.interpreter import PlaintextInterpreter
from mpcbench.graph.secure_graph import Node, SecureGraph
from mpcbench.parties.result import Line
from mpcbench.pipeline.check import run_in_plaintext
from mpcbench.records.schema import REPETITION, Entry, Ledger, Truncation
from mpcbench.secure.operators import Operator

FAR = 1.0
"""A logit that is further than this from plaintext was hit by more than rounding."""

Place = tuple[str, str]
"""Module and operator, the name under which a ledger knows a node."""


def truncations(
    shares: Path, checkpoint: Checkpoint, tokens: torch.Tensor, ledger: Ledger, cuts: Sequence[Line],
    fraction_bits: int, operators: Mapping[str, Operator], logits: torch.Tensor, plain_logits: torch.Tensor,
) -> Truncation:  # fmt: skip
    """For the record of a run with ``tokens`` (1, S): expected failures, and those observed.

    A party that cuts its own share of a product v fails with probability |v| 2^(2f - 64) (SecureML, S&P
    2017, theorem 1). ``cuts`` are the lines of what our operators cut so. CrypTen cuts its products of shared
    values, counted by their tuples; products with public numbers inside its approximations are left out.
    Where no magnitude was entered, the mean of |v| is that of the operator's output in plaintext, and one at
    least, which stands for the products inside CrypTen's approximations. logits, plain_logits: (V,), of both.
    """
    entries = [*ledger.offline.entries, *ledger.online.entries]
    means: Mapping[Place, float] = {}
    products = expected(entries, (), means, fraction_bits, operators)[0]
    if products or any(line.cut_failures_per_unit for line in cuts):  # else there is nothing to weigh
        means = run_in_plaintext(shares, checkpoint, tokens, _Sizes).means
    count, failures = expected(entries, cuts, means, fraction_bits, operators)
    far = int(((logits.double() - plain_logits.double()).abs() > FAR).sum())
    again = sum(entry.rounds for entry in ledger.online.entries if entry.operator == REPETITION)
    return Truncation(
        cut_locally=count, expected_failures=failures, repeated_rounds=again, far_logits=far, far=FAR
    )


def far_note(truncation: Truncation | None) -> list[str]:
    """What a reader must know of a run whose output is wrong, and how to find out why."""
    if truncation is None or not truncation.far_logits:
        return []
    return [
        f"WRONG OUTPUT: {truncation.far_logits:,} opened logits are more than {truncation.far:g} away from "
        "plaintext, because a value left its calibrated range or a truncation failed: --check-ranges "
        "names the layer."
    ]


def expected(
    entries: Iterable[Entry], cuts: Iterable[Line], means: Mapping[Place, float], fraction_bits: int,
    operators: Mapping[str, Operator],
) -> tuple[int, float]:  # fmt: skip
    """Values that were cut locally in one inference, and how many of these cuts are expected to fail.

    means: of the absolute output, by place.
    """
    count, failures = 0, 0.0
    for entry in entries:
        if entry.operator not in operators:
            continue
        products = sum(entry.tuples.get(kind, 0) for kind in operators[entry.operator].cuts_locally)
        count += products
        failures += products * 2.0 ** (2 * fraction_bits - 64) * _weight(means, entry)
    for line in cuts:
        count += line.cut_locally
        failures += line.cut_failures_per_unit * _weight(means, line) + line.cut_failures
    return count, failures


def _weight(means: Mapping[Place, float], at: Entry | Line) -> float:
    return max(1.0, means.get((at.module, at.operator), 1.0))


class _Sizes(PlaintextInterpreter):
    """Remembers the mean absolute value that each operator puts out."""

    def __init__(self, graph: SecureGraph, weights: Mapping[str, torch.Tensor]):
        super().__init__(graph, weights)
        self.means: dict[Place, float] = {}

    def call(self, node: Node, inputs: list[torch.Tensor]) -> torch.Tensor:
        result = super().call(node, inputs)
        place = (node.module, node.op)
        self.means[place] = max(self.means.get(place, 0.0), float(result.abs().mean()))
        return result

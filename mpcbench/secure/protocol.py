"""Protocol files: which implementation of every operator, with which parameters, on which numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import mpcbench
from mpcbench.documents import parse_yaml
from mpcbench.errors import UserError
from mpcbench.graph.deferral import defer_norms
from mpcbench.graph.grouping import group_linears
from mpcbench.graph.secure_graph import OPERATORS, SecureGraph
from mpcbench.secure.operators import REGISTRY, Operator

PROVIDERS = {
    "dealer": "a third process deals tuples: a seed to each party, corrections to party 1",
    "first-party": "party 0 samples every tuple in the clear (CrypTen's trusted first party): insecure",
}
THREAT_MODELS = {
    "dealer": "Semi-honest, two computing parties and a dealer that colludes with neither.",
    "first-party": "Semi-honest, two computing parties. Party 0 makes all correlated randomness in the clear "
    "and could read every value of party 1: insecure, for development and comparison only.",
}
"""What a provider that is chosen against the protocol file means for trust."""
_IMPLIED = {"tokens", "past"}  # inputs: what the party program shares, and what an earlier step has left
_DEFERRING = {"sum_squares", "normed_scores"}
"""Operators that only :mod:`mpcbench.graph.deferral` makes: a protocol may have both, or neither."""


class FixedPoint(BaseModel):
    """Numbers are multiples of 2^-fraction_bits in Z_2^ring_bits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ring_bits: Literal[64] = 64
    fraction_bits: int = Field(default=16, ge=1, le=30)  # a product has twice as many, in 63 bits


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    summary: str
    reference: str
    fixed_point: FixedPoint
    provider: str
    threat_model: str
    operators: dict[str, str | dict]


@dataclass(frozen=True)
class Protocol:
    """A protocol file, checked, with one operator implementation for every operator of the graph."""

    name: str
    summary: str
    fixed_point: FixedPoint
    provider: str
    threat_model: str
    operators: dict[str, Operator]
    settings: dict

    def arranged(self, graph: SecureGraph, tokens: int | None = None) -> SecureGraph:
        """The graph as these operators run it: linear layers that share openings grouped, and, for a known
        number of ``tokens``, norms put off where that saves something. Weights are the same in both."""
        if tokens is not None and self.operators.keys() >= _DEFERRING:
            norm = self.operators["normed_scores"].params
            graph = defer_norms(graph, {"margin": norm.margin, "tolerance": norm.tolerance}, tokens)
        shares_openings = any(operator.groups_linears for operator in self.operators.values())
        return group_linears(graph) if shares_openings else graph

    def sha256(self) -> str:
        """Hash of the settings; both parties compare it before they start."""
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()


def folders() -> list[Path]:
    """Where protocol files lie: inside an installed package, or beside it in a checkout."""
    package = Path(mpcbench.__file__).parent
    return [folder for folder in (package / "protocols", package.parent / "protocols") if folder.is_dir()]


def available() -> dict[str, Path]:
    """Packaged protocols by name."""
    files = (file for folder in folders() for file in sorted(folder.glob("*.yaml")))
    return {file.stem: file for file in files}


def load_protocol(name: str, provider: str | None = None) -> Protocol:
    """The packaged protocol of this name, or the one in a YAML file, with another provider if one is given.

    Raises UserError naming file, field, and what is allowed there.
    """
    packaged = available()
    path = packaged.get(name) or Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"The protocol {name} is not text: give a YAML file in UTF-8.") from None
    except OSError:
        known = ", ".join(sorted(packaged))
        raise UserError(f"There is no protocol {name}: choose {known}, or name a YAML file.") from None
    body = parse_yaml(text, str(path))
    if provider is not None and isinstance(body, dict):
        _choose(provider, PROVIDERS, "--provider")
        if provider != body.get("provider"):
            body = {**body, "provider": provider, "threat_model": THREAT_MODELS[provider]}
    return parse_protocol(body, str(path))


def parse_protocol(body: object, origin: str) -> Protocol:
    """Check the content of a protocol file; raises UserError as :func:`load_protocol` does."""
    if not isinstance(body, dict):
        raise UserError(f"{origin} describes no protocol: see `mpcbench protocols` for examples.")
    try:
        file = _File.model_validate(body)
    except ValidationError as error:
        raise UserError(_describe(error, origin, _File.model_fields)) from None
    _choose(file.provider, PROVIDERS, f"{origin}: provider")
    bits = file.fixed_point.fraction_bits
    operators = {op: _operator(op, entry, bits, origin) for op, entry in file.operators.items()}
    optional = _DEFERRING if not _DEFERRING & operators.keys() else set()
    missing = sorted(set(OPERATORS) - set(operators) - _IMPLIED - optional)
    if missing:
        raise UserError(f"{origin} names no implementation of {', '.join(missing)}: add it under operators.")
    settings = file.model_dump()
    return Protocol(
        file.name, file.summary, file.fixed_point, file.provider, file.threat_model, operators, settings
    )


def _operator(op: str, entry: str | dict, bits: int, origin: str) -> Operator:
    _choose(op, set(OPERATORS) - _IMPLIED, f"{origin}: operator")
    options = {"use": entry} if isinstance(entry, str) else dict(entry)
    allowed = sorted(name for name, kind in REGISTRY.items() if kind.op == op)
    name = options.pop("use", None)
    _choose(name, allowed, f"{origin}: implementation of {op}")
    kind = REGISTRY[name]
    try:
        operator = kind(kind.Params(**options), bits)
    except (ValidationError, TypeError) as error:
        if isinstance(error, TypeError):
            raise UserError(f"{origin}: parameters of {op} must have names that are words.") from None
        raise UserError(_describe(error, f"{origin}: {name}", kind.Params.model_fields)) from None
    if reason := operator.unusable():
        raise UserError(f"{origin}: {reason}")
    return operator


def _choose(value: object, allowed: Iterable[str], what: str) -> None:
    options = sorted(allowed)
    if value not in options:
        raise UserError(f"{what} {value!r} is unknown: choose {', '.join(options)}.")


def _describe(error: ValidationError, origin: str, fields: Iterable[str]) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "the whole file"
    if first["type"] == "extra_forbidden":
        allowed = ", ".join(sorted(fields)) or "none"
        return f"{origin}: parameter {where!r} is unknown: allowed are {allowed}."
    if first["type"] == "missing":
        return f"{origin} lacks {where}: protocols/crypten.yaml shows what a protocol file says."
    return f"{origin}: {where}: {first['msg']}."

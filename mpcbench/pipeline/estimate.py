"""From a configuration to records of runs that did not take place: graph, ranges, ledger, times."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpcbench.checkpoints.configuration import Architecture, read_architecture
from mpcbench.checkpoints.polyllama import check_degree
from mpcbench.cost.assumed import with_ranges
from mpcbench.cost.interpreter import predict
from mpcbench.cost.latency import measured_compute, projected
from mpcbench.errors import UserError
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.graph.shares import folder_bytes
from mpcbench.graph.skeleton import Skeleton
from mpcbench.parties.network import LinkProfile
from mpcbench.pipeline.described import EMBEDDING_NOTE, called, protocol_info
from mpcbench.records.environment import environment
from mpcbench.records.schema import Environment, Ledger, LinkInfo, ModelInfo, Record, Sharing, Workload
from mpcbench.secure.protocol import Protocol

PLACEMENTS = ("first", "last")


@dataclass(frozen=True)
class Setting:
    """What to price: every protocol with every number of tokens on every link.

    ``compute``: measured records whose time to compute is added to the links'; ``widen``: a factor on
    ranges that have to be assumed; ``decode``: price the one token that follows so many cached ones.
    """

    protocols: Sequence[Protocol]
    tokens: Sequence[int]
    links: Sequence[LinkProfile]
    compute: Sequence[Record] = ()
    widen: float = 1.0
    decode: bool = False

    def workload(self, embedding: str, tokens: int) -> Workload:
        """One inference over ``tokens`` tokens, or over the one that follows them."""
        length, cached = (1, tokens) if self.decode else (tokens, 0)
        return Workload(
            prompt="", tokens=length, cached=cached, batch=1, embedding=embedding, repetitions=0, warmups=0,
            seed=None,
        )  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """A graph and the public facts of the model that it belongs to."""

    graph: SecureGraph
    model: ModelInfo
    notes: tuple[str, ...] = ()


def variants(
    architecture: Architecture, counts: Sequence[int] | None, degree: int = 2, placement: str = "last",
    embedding: str = "client",
) -> list[Variant]:  # fmt: skip
    """One graph for every number of polynomial layers; None takes the layers that the configuration names.

    Raises UserError for numbers that the model does not have, and for a degree that is not offered.
    """
    total = architecture.config.num_hidden_layers
    own = architecture.polynomial_layers
    degree = int(architecture.config.polynomial_degree) if counts is None and own else check_degree(degree)
    chosen = [own] if counts is None else [_placed(placement, count, total) for count in counts]
    if counts is not None and len(set(counts)) < len(counts):
        raise UserError("--layers names a number more than once: name each number once.")
    skeleton = Skeleton(architecture.config, degree if any(chosen) else None)
    return [_variant(architecture, skeleton, layers, degree, placement, embedding) for layers in chosen]


def _placed(placement: str, count: int, total: int) -> tuple[int, ...]:
    if not 0 <= count <= total:
        raise UserError(f"--layers {count} is out of range: the model has {total} layers, give 0 to {total}.")
    return tuple(range(total - count, total) if placement == "last" else range(count))


def _variant(
    architecture: Architecture, skeleton: Skeleton, layers: tuple[int, ...], degree: int, placement: str,
    embedding: str,
) -> Variant:  # fmt: skip
    config = architecture.config
    own = (layers, degree) == (architecture.polynomial_layers, getattr(config, "polynomial_degree", None))
    coefficients = architecture.coefficients if own else {}
    graph = skeleton.graph(layers, embedding, coefficients)
    digest = _digest(config.to_diff_dict())
    model = ModelInfo(
        name=architecture.name, source=architecture.source, sha256=digest,
        parameters=architecture.parameters, layers=config.num_hidden_layers,
        hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
        vocab_size=config.vocab_size, polynomial_layers=list(layers), degree=degree if layers else None,
        placement=("as configured" if own else placement) if layers else "none",
        training="none, no weights are read", calibration="none",
        checkpoint_sha256=_digest([digest, layers, degree]),
    )  # fmt: skip
    return Variant(graph, model, _folding_note(graph, layers, degree, bool(coefficients)))


def _folding_note(graph: SecureGraph, layers: tuple, degree: int, known: bool) -> tuple[str, ...]:
    """Whether coefficients fold into weights depends on their values."""
    if not layers or known:
        return ()
    folded = not any(node.op == "polynomial_glu" for node in graph.nodes)
    does = "fold into the weights" if folded else "do not fold into the weights"
    return (f"Polynomials of degree {degree} are assumed to {does}, as SiLU's series at zero does.",)


def exported(shares: Path) -> Variant:
    """What ``mpcbench export`` wrote: the graph with its own ranges and facts."""
    folder = shares / "party0" if (shares / "party0").is_dir() else shares
    graph = SecureGraph.read(folder / "graph.json")
    return Variant(graph, ModelInfo.model_validate(graph.model))


def estimate(found: Sequence[Variant], setting: Setting) -> list[Record]:
    """A record for every protocol, variant, number of tokens and link, in this order of nesting."""
    here = environment()
    records = []
    for protocol in setting.protocols:
        for variant in found:
            ranged = with_ranges(variant.graph, protocol.operators, setting.widen)
            notes = [*variant.notes, *([_STEP] if setting.decode else [])]
            if ranged.operators:
                notes.append(
                    f"{protocol.name}: what {', '.join(ranged.operators)} cost depends on calibrated ranges; "
                    f"without weights they are assumed to be {ranged.words}."
                )
            for tokens in setting.tokens:
                workload = setting.workload(variant.graph.embedding, tokens)
                ledger = predict(ranged.graph, protocol, workload.tokens, workload.cached)
                records += _on_links(variant, protocol, workload, ledger, setting, notes, here)
    return records


def _on_links(
    variant: Variant, protocol: Protocol, workload: Workload, ledger: Ledger, setting: Setting,
    notes: list[str], here: Environment,
) -> list[Record]:  # fmt: skip
    compute = None
    if setting.compute:
        compute = measured_compute(setting.compute, variant.model.name, protocol.name, workload.tokens)
    records = []
    for link in setting.links:
        timed, latency = projected(ledger, link, compute)
        facts = [variant.model.checkpoint_sha256, variant.graph.sha256(), protocol.sha256(), workload.tokens]
        facts += [workload.cached] if workload.cached else []
        records.append(
            Record(
                **called(), key=_digest([*facts, link.bandwidth, link.round_trip, setting.widen]),
                kind="estimated", model=variant.model, protocol=protocol_info(protocol), parties=[],
                link=_link(link), workload=workload, ledger=timed,
                sharing=Sharing(folder_bytes=folder_bytes(variant.graph)), openings=None, latency=latency,
                accuracy=[], agreement=None, fidelity=None, environment=here,
                notes=[*notes, _TIMES[compute is not None], EMBEDDING_NOTE[variant.graph.embedding]],
            )
        )  # fmt: skip
    return records


_STEP = "Priced is one token of a text that is being generated, after so many whose keys and values are kept."
_TIMES = {
    False: "Latency is the link's share alone, rounds × half a round trip + bytes a party sends / bandwidth: "
    "time to compute is not in it.",
    True: "Latency is time to compute, as measured in other runs, + rounds × half a round trip + bytes a "
    "party sends / bandwidth.",
}


def _link(link: LinkProfile) -> LinkInfo:
    return LinkInfo(
        profile=link.name, asked_bandwidth_bits_per_second=link.bandwidth,
        asked_round_trip_seconds=link.round_trip, measured_round_trip_seconds=None,
        measured_bandwidth_bytes_per_second=None,
    )  # fmt: skip


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


__all__ = ["Setting", "Variant", "estimate", "exported", "read_architecture", "variants"]

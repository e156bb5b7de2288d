"""From share folders to a record: run both parties here, compare with plaintext, write it down."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import mpcbench
from mpcbench.accuracy import Evaluation, agreement
from mpcbench.checkpoints import Checkpoint
from mpcbench.graph.ranges import known
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.graph.shares import folder_bytes
from mpcbench.parties.driver import RemoteRuns
from mpcbench.parties.launcher import LocalRun, run_here
from mpcbench.parties.network import NO_EMULATION, Backend, LinkProfile
from mpcbench.parties.party import Outcome
from mpcbench.parties.result import merge_latency, merge_ledgers, merge_openings, merge_storage
from mpcbench.pipeline.check import range_note
from mpcbench.pipeline.described import EMBEDDING_NOTE, called, masks, protocol_info
from mpcbench.pipeline.generation import ends, generation
from mpcbench.pipeline.truncation import far_note, truncations
from mpcbench.progress import Progress, silent
from mpcbench.records.environment import environment
from mpcbench.records.schema import (
    Accuracy,
    Agreement,
    Fidelity,
    Generation,
    LinkInfo,
    ModelInfo,
    Record,
    Sharing,
    Truncation,
    Workload,
)
from mpcbench.secure.protocol import Protocol


@dataclass(frozen=True)
class Prefix:
    """Text in front of the prompt that is a constant of the model, and its tokens (1, P)."""

    text: str
    tokens: torch.Tensor


@dataclass(frozen=True)
class Settings:
    """What a run measures, apart from the checkpoint."""

    protocol_name: str
    protocol: Protocol
    prompt: str
    tokens: torch.Tensor
    embedding: str
    repetitions: int
    warmups: int
    threads: int
    rendezvous: str = "127.0.0.1:0"
    check_ranges: bool = False
    network: LinkProfile = NO_EMULATION
    backend: Backend = "transport"
    material: Path | None = None
    new_tokens: int = 0
    private_logits: bool = False
    elsewhere: RemoteRuns | None = None
    seed: int | None = None
    fixed_seeds: int = 0
    prefix: Prefix | None = None

    @property
    def front(self) -> torch.Tensor | None:
        """The prefix's tokens, (1, P), if there is one."""
        return None if self.prefix is None else self.prefix.tokens

    @property
    def context(self) -> torch.Tensor:
        """The prompt's tokens behind those of the prefix, (1, P + S): what the model reads."""
        return self.tokens if self.front is None else torch.cat([self.front, self.tokens], 1)

    def in_words(self) -> str:
        """Protocol, number of tokens, and the link if it is not loopback."""
        link = f", {self.network.name}" if self.network != NO_EMULATION else ""
        return f"{self.protocol.name}, {self.tokens.shape[1]} tokens{link}"

    def key(self, checkpoint_sha256: str, task: list) -> str:
        """What makes two runs the same measurement; a comparison skips runs whose key it finds."""
        parts = [
            mpcbench.__version__, checkpoint_sha256, self.protocol.sha256(), self.tokens.tolist(),
            self.embedding, self.repetitions, self.warmups, self.threads, task,
        ]  # fmt: skip
        parts += ["ranges checked"] if self.check_ranges else []
        if self.network != NO_EMULATION:
            parts += [self.network.name, self.network.bandwidth, self.network.round_trip]
        parts += [] if self.seed is None else [f"seed {self.seed}"]
        parts += [f"fixed seeds {self.fixed_seeds}"] if self.fixed_seeds else []
        parts += [self.backend] if self.backend != "transport" else []
        parts += ["dealt ahead of time"] if self.material else []
        if self.new_tokens:
            parts += [self.new_tokens, self.private_logits]
        parts += ["on several hosts"] if self.elsewhere else []
        parts += ["prefix", self.prefix.tokens.tolist()] if self.prefix else []
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def measure(
    shares: Path, info: ModelInfo, checkpoint: Checkpoint, original: Checkpoint, settings: Settings,
    evaluation: Evaluation | None, key: str, progress: Progress = silent,
) -> Record:  # fmt: skip
    """Run both parties, here or where the settings say, and return the record.

    ``evaluation`` holds the plaintext scores of the checkpoint, None for a run without them.
    """
    run = settings.elsewhere.run if settings.elsewhere else run_here
    outcome = run(
        LocalRun(
            shares, settings.protocol_name, settings.tokens, settings.repetitions, settings.warmups,
            settings.threads, settings.rendezvous, settings.protocol.provider, settings.network,
            settings.backend, settings.material, settings.new_tokens, settings.private_logits,
            ends(checkpoint), fixed_seeds=settings.fixed_seeds,
        ),
        progress,
    )  # fmt: skip
    graph = SecureGraph.read(shares / "party0" / "graph.json")
    ledger = merge_ledgers(outcome.results)
    plain = _plain_logits(checkpoint, settings.context)
    agreed = truncation = None
    if outcome.logits is not None:
        agreed = _agreement(outcome, plain, checkpoint, original, settings.context)
        truncation = truncations(
            shares, checkpoint, settings.context, ledger, outcome.results[0].cuts(),
            settings.protocol.fixed_point.fraction_bits, settings.protocol.operators, outcome.logits, plain,
        )  # fmt: skip
    return record(
        outcome,
        graph,
        info,
        settings,
        key,
        accuracy=evaluation.accuracy if evaluation else [],
        agreement=agreed,
        fidelity=evaluation.fidelity if evaluation else None,
        truncation=truncation,
        generated=generation(outcome, checkpoint, settings) if settings.new_tokens else None,
        sharing=Sharing(folder_bytes=folder_bytes(graph)),
        notes=[*_ranges(shares, checkpoint, settings, outcome), *far_note(truncation)],
    )


def record(
    outcome: Outcome, graph: SecureGraph, info: ModelInfo, settings: Settings, key: str, *,
    accuracy: Sequence[Accuracy] = (), agreement: Agreement | None = None, fidelity: Fidelity | None = None,
    truncation: Truncation | None = None, generated: Generation | None = None, sharing: Sharing | None = None,
    notes: Sequence[str] = (),
) -> Record:  # fmt: skip
    """The record of a run of ``graph`` from both parties' reports, and what is known about it beyond them."""
    fixed = max(result.fixed_seeds for result in outcome.results)  # as the processes say, whoever asked
    return Record(
        **called(),
        key=key,
        model=info,
        protocol=protocol_info(settings.protocol, settings.material is not None),
        parties=[result.party for result in outcome.results],
        link=_link_info(outcome, settings),
        workload=_workload(settings),
        ledger=merge_ledgers(outcome.results),
        sharing=sharing,
        storage=merge_storage(outcome.results),
        openings=merge_openings(outcome.results),
        latency=merge_latency(outcome.results),
        accuracy=list(accuracy),
        agreement=agreement,
        fidelity=fidelity,
        environment=environment(),
        graph_sha256=graph.sha256(),
        ranges=known(graph),
        truncation=truncation,
        generation=generated,
        insecure_fixed_seeds=fixed or None,
        notes=[masks(fixed), EMBEDDING_NOTE[settings.embedding], *_stored(outcome), *notes],
    )


def _stored(outcome: Outcome) -> list[str]:
    storage = merge_storage(outcome.results)
    if storage is None:
        return []
    at = [f"{size / 1e6:.3f} MB at party {rank}" for rank, size in enumerate(storage.inference_bytes)]
    return [f"Randomness was made ahead of time: an inference takes {' and '.join(at)} on disk, once."]


def _ranges(shares: Path, checkpoint: Checkpoint, settings: Settings, outcome: Outcome) -> list[str]:
    if not settings.check_ranges:
        return []
    read = torch.cat([settings.context, torch.tensor([outcome.tokens[:-1]], dtype=torch.long)], dim=1)
    count = None if settings.new_tokens else settings.tokens.shape[1]
    return [range_note(shares, checkpoint, read, settings.protocol, count)]


def _workload(settings: Settings) -> Workload:
    return Workload(
        prompt=settings.prompt,
        tokens=settings.tokens.shape[1],
        cached=settings.context.shape[1] - settings.tokens.shape[1],
        prefix="" if settings.prefix is None else settings.prefix.text,
        batch=1,
        embedding=settings.embedding,
        repetitions=settings.repetitions,
        warmups=settings.warmups,
        seed=settings.seed,
    )


def _link_info(outcome: Outcome, settings: Settings) -> LinkInfo:
    first, second = outcome.results
    network = settings.network
    return LinkInfo(
        profile="hosts" if settings.elsewhere and not network.emulated else network.name,
        backend=" and ".join(dict.fromkeys((first.link_backend, second.link_backend))),
        asked_bandwidth_bits_per_second=network.bandwidth,
        asked_round_trip_seconds=network.round_trip,
        encryption="tls" if settings.elsewhere and settings.elsewhere.encrypted else "none",
        measured_round_trip_seconds=max(first.round_trip_seconds, second.round_trip_seconds),
        measured_bandwidth_bytes_per_second=min(
            first.bandwidth_bytes_per_second, second.bandwidth_bytes_per_second
        ),
    )


@torch.no_grad()
def _plain_logits(checkpoint: Checkpoint, tokens: torch.Tensor) -> torch.Tensor:
    """(V,), of the last position."""
    return checkpoint.model(tokens).logits[0, -1]


def _agreement(
    outcome: Outcome, plain: torch.Tensor, checkpoint: Checkpoint, original: Checkpoint, tokens: torch.Tensor
) -> Agreement:
    reference = plain if original is checkpoint else _plain_logits(original, tokens)
    return agreement(plain, outcome.logits, reference, checkpoint.tokenizer)

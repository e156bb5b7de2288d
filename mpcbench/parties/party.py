"""One party's program: meet the peer, agree, set CrypTen up, run, report."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError

import mpcbench
from mpcbench.errors import PeerError
from mpcbench.graph.shares import ShareFolder, read_shares
from mpcbench.parties.handshake import Hello, greet
from mpcbench.parties.network import NO_EMULATION, Backend, LinkProfile
from mpcbench.parties.result import Inference, Line, PartyResult, average
from mpcbench.progress import Progress, silent
from mpcbench.records.environment import peak_memory_bytes
from mpcbench.records.schema import PartyInfo
from mpcbench.secure.communicator import LinkCommunicator
from mpcbench.secure.dealt import DealerProvider
from mpcbench.secure.guard import Guard
from mpcbench.secure.interpreter import SecureInterpreter
from mpcbench.secure.ledger import Ledger
from mpcbench.secure.protocol import Protocol
from mpcbench.secure.provider import FirstPartyProvider, Provider
from mpcbench.secure.randomness.material import Material
from mpcbench.secure.stored import StoredProvider
from mpcbench.secure.substrate import install
from mpcbench.secure.transport import Link

ROLES = ("model owner", "client")


def party_name(rank: int) -> str:
    """How a party is named in every message."""
    return f"party {rank} ({ROLES[rank]})"


@dataclass(frozen=True)
class Job:
    """What one party is to do. The client has ``tokens`` (1, S) and the counts, the model owner none.

    ``dealer`` is the link to the dealer, ``material`` this party's folder of what a dealer made ahead of
    time; both are None where the protocol has another provider. ``network`` is what the links are to be like,
    and ``backend`` who sees to that, see :data:`mpcbench.parties.network.BACKENDS`.
    """

    rank: int
    shares: Path
    protocol: Protocol
    threads: int
    tokens: torch.Tensor | None = None
    repetitions: int = 1
    warmups: int = 0
    dealer: Link | None = None
    network: LinkProfile = NO_EMULATION
    backend: Backend = "transport"
    material: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """Both parties' reports, by rank, and at the client the logits (V,) of the last repetition."""

    results: tuple[PartyResult, PartyResult]
    logits: torch.Tensor | None


def take_part(job: Job, link: Link, progress: Progress = silent) -> Outcome:
    """Run the whole job over a fresh link to the peer.

    Raises UserError for a wrong share folder and PeerError for whatever the peer does.
    """
    torch.set_num_threads(job.threads)
    try:
        folder = read_shares(job.shares, job.rank)
        client = greet(link, _hello(job, folder), folder.graph.max_tokens)
        _emulate(job, link)
        probe = _probe(link, job.network.bandwidth)
        communicator = LinkCommunicator(job.rank, link)
        provider = _provider(job, communicator, folder, client)
        return _Session(job, folder, client, communicator, provider, probe, progress).run()
    except Exception as error:
        link.fail(str(error))
        raise
    finally:
        if job.dealer is not None:
            job.dealer.close()


def _hello(job: Job, folder: ShareFolder) -> Hello:
    workload = (0, 0, 0) if job.tokens is None else (job.tokens.shape[1], job.repetitions, job.warmups)
    hashes = (folder.graph.sha256(), job.protocol.sha256())
    network = job.network.describe()
    return Hello(mpcbench.__version__, job.rank, folder.sharing, *hashes, *workload, network)


def _emulate(job: Job, peer: Link) -> None:
    """Slow both links down at this end, where the transport is to do that; the other ends do the same."""
    if job.backend == "transport" and job.network.emulated:
        for link in filter(None, (peer, job.dealer)):
            link.emulate(job.network.bandwidth, job.network.one_way)


def _probe(link: Link, bandwidth: float | None, trips: int = 20) -> tuple[float, float]:
    """Round-trip seconds (median) and bytes a second in one direction while both send.

    It sends 8 MiB, or what a line of ``bandwidth`` bits a second carries in a second.
    """
    times = []
    for _ in range(trips):
        started = time.perf_counter()
        link.swap_control({})
        times.append(time.perf_counter() - started)
    # Both parties send before they receive, so one exchange takes one one-way delay; the quickest of them
    # is what the first byte of the block needs.
    times.sort()
    block = bytearray(min(8 << 20, int(bandwidth / 8) + 1) if bandwidth else 8 << 20)
    before = link.wire.payload_sent
    started = time.perf_counter()
    link.exchange([memoryview(block)], [memoryview(bytearray(len(block)))])
    seconds = time.perf_counter() - started
    link.wire.payload_sent = before
    link.wire.other_sent += len(block)
    return 2 * times[trips // 2], len(block) / max(seconds - times[0], 1e-9)


class _Session:
    """The part after the greeting: set-up, warm-ups, repetitions, report."""

    def __init__(
        self, job: Job, folder: ShareFolder, client: Hello, communicator: LinkCommunicator,
        provider: Provider, probe: tuple[float, float], progress: Progress,
    ):  # fmt: skip
        self.job, self.client, self.probe, self.progress = job, client, probe, progress
        self.communicator, self.provider, self.link = communicator, provider, communicator.link
        with self.communicator.ledger.scope("setup", None, "seeds", "seeds"):
            install(self.communicator, self.provider, job.protocol.fixed_point.fraction_bits, {})
        self.setup = self.communicator.ledger
        self.interpreter = SecureInterpreter(folder, job.protocol, self.communicator)
        self.steps = len(folder.graph.nodes)
        self.interpreter.on_node = self._on_node
        self.done = 0
        self.ledgers: list[list[Line]] = []
        self.logits: torch.Tensor | None = None

    def run(self) -> Outcome:
        warmups = [self._infer("warm-up").seconds for _ in range(self.client.warmups)]
        self.ledgers.clear()
        inferences = [self._infer("inference") for _ in range(self.client.repetitions)]
        self.provider.close()
        mine = self._report(warmups, inferences)
        try:
            theirs = PartyResult.model_validate(self.link.swap_control(mine.model_dump()))
        except ValidationError:
            raise PeerError(f"{self.link.peer} sent a malformed report: look at its own output.") from None
        results = (mine, theirs) if self.job.rank == 0 else (theirs, mine)
        return Outcome(results, self.logits)

    def _infer(self, what: str) -> Inference:
        ledger = self.communicator.ledger = Ledger()
        self.communicator.guard = Guard()
        self.what = what
        self.link.swap_control({"ready": True})  # so that neither clock runs while the other loads
        started = time.perf_counter()
        self.provider.prepare()
        ahead = time.perf_counter() - started
        self.link.swap_control({"ready": True})  # nor while the other waits for its dealer
        started = time.perf_counter()
        self.logits = self.interpreter.infer(self.job.tokens, self.client.tokens)
        seconds = time.perf_counter() - started
        self.ledgers.append(_lines(ledger))
        return Inference(
            seconds=ahead + seconds,
            offline_seconds=ahead + ledger.total("offline").seconds,
            dealer_seconds=self.provider.dealer_seconds(),
            waiting_seconds=ledger.total("online").wait_seconds,
        )

    def _on_node(self) -> None:
        self.done += 1
        if self.done % 8 == 0:
            self.progress(self.what, self.done, self.steps * (self.client.warmups + self.client.repetitions))

    def _report(self, warmups: list[float], inferences: list[Inference]) -> PartyResult:
        guard = self.communicator.guard
        return PartyResult(
            party=PartyInfo(
                rank=self.job.rank,
                role=ROLES[self.job.rank],
                host=socket.gethostname(),
                device="cpu",
                threads=self.job.threads,
                peak_memory_bytes=peak_memory_bytes(),
            ),
            setup=_lines(self.setup),
            lines=average(self.ledgers),
            warmup_seconds=warmups,
            inferences=inferences,
            masked_openings=guard.masked,
            unmasked_openings=guard.unmasked,
            payload_bytes_sent=self.link.wire.payload_sent,
            other_bytes_sent=self.link.wire.other_sent,
            round_trip_seconds=self.probe[0],
            bandwidth_bytes_per_second=self.probe[1],
            link_backend=self.job.backend if self.job.network.emulated else "none",
            stored_bytes=self.provider.stored_bytes(),
        )


def _provider(
    job: Job, communicator: LinkCommunicator, folder: ShareFolder, client: Hello
) -> Provider:  # fmt: skip
    if job.material is not None:
        material = Material(job.material, job.rank)
        material.check(folder.graph.sha256(), job.protocol.sha256(), client.tokens)
        return StoredProvider(communicator, material, client.warmups + client.repetitions)
    if job.dealer is None:
        return FirstPartyProvider(communicator)
    provider = DealerProvider(communicator, job.dealer)
    theirs = communicator.link.swap_control({"dealer": provider.session})
    if theirs != {"dealer": provider.session}:
        raise PeerError("the parties have come to different dealers: give both the same --dealer.")
    return provider


def _lines(ledger: Ledger) -> list[Line]:
    return [Line(**line) for line in ledger.as_json()]

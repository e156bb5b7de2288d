"""One party's program: meet the peer, agree, set CrypTen up, run, report."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import torch
from pydantic import ValidationError

import mpcbench
from mpcbench.errors import PeerError, UserError
from mpcbench.graph.secure_graph import Node
from mpcbench.graph.shares import ShareFolder, read_shares
from mpcbench.parties.agreement import agreed
from mpcbench.parties.generation import Generation
from mpcbench.parties.handshake import Hello, greet
from mpcbench.parties.netem import netem
from mpcbench.parties.network import NO_EMULATION, Backend, LinkProfile
from mpcbench.parties.result import Inference, Line, PartyResult, average
from mpcbench.progress import Progress, seldom, silent
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
from mpcbench.secure.randomness.prg import fixed_seeds
from mpcbench.secure.series import Series, agree_by
from mpcbench.secure.stored import StoredProvider
from mpcbench.secure.substrate import install
from mpcbench.secure.transport import Link
from mpcbench.secure.trig import fingerprint

T = TypeVar("T")
ROLES = ("model owner", "client")
Stage = Literal["setup", "offline", "online", "output"]
STAGES: dict[str, str] = {
    "setup": "during set-up",
    "offline": "in the offline phase",
    "online": "in the online phase",
    "output": "while the output was opened",
}
"""What a party is doing, in the words of error messages."""


def party_name(rank: int) -> str:
    """How a party is named in every message."""
    return f"party {rank} ({ROLES[rank]})"


@dataclass(frozen=True)
class Job:
    """What one party is to do. The client has ``tokens`` (1, S) and the counts, the model owner none.

    ``dealer`` is the link to the dealer, ``material`` this party's folder of what a dealer made ahead of
    time; both are None where the protocol has another provider. ``network`` is what the links are to be like,
    and ``backend`` who sees to that, see :data:`mpcbench.parties.network.BACKENDS`.
    ``new_tokens`` asks for so many tokens of text, or fewer if one of ``stop`` comes, 0 for one forward pass;
    ``private_logits`` finds each token under MPC.
    ``timeout`` is how many seconds without a sign of life the others are granted once all have started, and
    ``on_stage`` hears of every change of stage.
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
    new_tokens: int = 0
    private_logits: bool = False
    stop: tuple[int, ...] = ()
    timeout: float = 6.0
    on_stage: Callable[[Stage], None] = lambda stage: None

    def links(self, peer: Link) -> list[Link]:
        """The link to the peer, and that to the dealer if there is one."""
        return [peer] if self.dealer is None else [peer, self.dealer]


@dataclass(frozen=True)
class Outcome:
    """Both parties' reports, by rank, and at the client the logits (V,) of the last repetition.

    After a generation ``tokens`` are the ids that the client got; logits, unless private, are the prompt's.
    """

    results: tuple[PartyResult, PartyResult]
    logits: torch.Tensor | None
    tokens: tuple[int, ...] = ()


class Probe(NamedTuple):
    """What was measured on the link before the run, and who makes it so slow."""

    backend: str
    round_trip: float
    bytes_per_second: float


def take_part(job: Job, link: Link, progress: Progress = silent) -> Outcome:
    """Run the whole job over a fresh link to the peer.

    Raises UserError for a wrong share folder and PeerError for whatever the peer does.
    """
    torch.set_num_threads(job.threads)
    scope = ExitStack()
    for other in job.links(link):
        other.phase = lambda: f" {STAGES['setup']}"
    job.on_stage("setup")
    try:
        folder = read_shares(job.shares, job.rank)
        client = greet(link, _hello(job, folder), folder.graph.max_tokens)
        for other in job.links(link):
            other.patience = job.timeout
        backend = scope.enter_context(_emulated(job, link))
        probe = Probe(backend, *_probe(link, job.network.bandwidth))
        link.one_way = probe.round_trip / 2
        communicator = LinkCommunicator(job.rank, link)
        provider = _provider(job, communicator, folder, client)
        return Session(job, folder, client, communicator, provider, probe, progress).run()
    except Exception as error:
        for other in job.links(link):
            other.fail(str(error))
        raise
    finally:
        if job.dealer is not None:
            job.dealer.close()
        scope.close()


def _hello(job: Job, folder: ShareFolder) -> Hello:
    hashes = (folder.graph.sha256(), job.protocol.sha256())
    network = job.network.describe()
    mine = Hello(
        mpcbench.__version__, job.rank, folder.sharing, *hashes, network=network,
        fixed_seeds=fixed_seeds(), arithmetic=fingerprint(),
    )  # fmt: skip
    if job.tokens is None:
        return mine
    return replace(
        mine, tokens=job.tokens.shape[1], repetitions=job.repetitions, warmups=job.warmups,
        new_tokens=job.new_tokens, private_logits=job.private_logits,
    )  # fmt: skip


@contextmanager
def _emulated(job: Job, peer: Link) -> Iterator[str]:
    """Slow both links down at this end, as the other ends do; yields who does it."""
    network, backend = job.network, job.backend
    with ExitStack() as stack:
        if backend == "netem" and not stack.enter_context(netem(peer.connection.getpeername()[0], network)):
            backend = "transport"
        if backend != "namespaces" and network.emulated:
            for link in job.links(peer):
                link.emulate(network.bandwidth, network.one_way, here=backend == "transport")
        yield backend if network.emulated or backend == "namespaces" else "none"


def _probe(link: Link, bandwidth: float | None, trips: int = 20) -> tuple[float, float]:
    """Round-trip seconds (median) and bytes a second in one direction while both send.

    Both parties send before they receive, so that an exchange takes one one-way delay, if both start at
    once. If not, they take turns in waiting for each other; two exchanges together always take a round trip.
    """
    block = bytearray(min(4 << 20, int(bandwidth / 16) + 1) if bandwidth else 4 << 20)
    times = sorted(_timed(lambda: link.swap_control({})) for _ in range(trips))
    before = link.wire.payload_sent

    def exchange() -> None:
        link.exchange([memoryview(block)], [memoryview(bytearray(len(block)))])

    exchange()  # TCP's window grows to what the line holds
    seconds = _timed(exchange)
    link.wire.other_sent += link.wire.payload_sent - before
    link.wire.payload_sent = before
    return times[trips // 2], 2 * len(block) / max(seconds - times[0], 1e-9)


def _timed(exchange: Callable[[], object]) -> float:
    """Seconds that two exchanges take."""
    started = time.perf_counter()
    exchange()
    exchange()
    return time.perf_counter() - started


class Session:
    """The part after the greeting: set-up, warm-ups, repetitions, report."""

    def __init__(
        self, job: Job, folder: ShareFolder, client: Hello, communicator: LinkCommunicator,
        provider: Provider, probe: Probe, progress: Progress,
    ):  # fmt: skip
        self.job, self.client, self.probe, self.progress = job, client, probe, seldom(progress)
        self.communicator, self.provider, self.link = communicator, provider, communicator.link
        self.stage: Stage = "setup"
        for link in job.links(self.link):
            link.phase = lambda: f" {STAGES[self._doing()]}"
        with self.communicator.ledger.scope("setup", None, "seeds", "seeds"):
            install(self.communicator, self.provider, job.protocol.fixed_point.fraction_bits, {})
        self.setup = self.communicator.ledger
        agree_by(self._agreed)
        self.interpreter = SecureInterpreter(folder, job.protocol, self.communicator)
        self.interpreter.use(folder.graph, client.tokens)
        self.steps = self.interpreter.steps
        self.interpreter.on_node = self._on_node
        self.done = 0
        self.ledgers: list[list[Line]] = []
        self.logits: torch.Tensor | None = None

    def run(self) -> Outcome:
        """Everything the client asks for, and both parties' reports of it."""
        if self.client.new_tokens:
            generation = Generation(self)
            results = self._exchanged(generation.run())
            return Outcome(results, generation.logits, tuple(generation.tokens))
        warmups = [self._infer("warm-up").seconds for _ in range(self.client.warmups)]
        self.ledgers.clear()
        inferences = [self._infer("inference") for _ in range(self.client.repetitions)]
        return Outcome(self._exchanged(self.report(warmups, inferences)), self.logits)

    def _agreed(self, own: Callable[[], Series]) -> Series:
        """A series that is used for the first time: found and told offline, as no input is needed for it."""
        with self.communicator.ledger.offline(calls=0):
            return agreed(self.link, self.job.rank, own)

    def _exchanged(self, mine: PartyResult) -> tuple[PartyResult, PartyResult]:
        """Both parties' reports, by rank."""
        self.provider.close()
        try:
            theirs = PartyResult.model_validate(self.link.swap_control(mine.model_dump()))
        except ValidationError:
            raise PeerError(f"{self.link.peer} sent a malformed report: look at its own output.") from None
        return (mine, theirs) if self.job.rank == 0 else (theirs, mine)

    def _infer(self, what: str) -> Inference:
        self.what = what
        self.logits, inference, lines = self.measured(
            "inference", lambda: self.interpreter.infer(self.job.tokens, self.client.tokens)
        )
        self.ledgers.append(lines)
        return inference

    def measured(self, name: str, compute: Callable[[], T]) -> tuple[T, Inference, list[Line]]:
        """``compute`` under a ledger and a guard of its own: its value, its times, its lines.

        ``name`` is under which the provider knows what it needs.
        """
        ledger = self.communicator.ledger = Ledger()
        self.communicator.guard = Guard()
        self.link.meet({"ready": True})  # so that neither clock runs while the other loads
        self._enter("offline")
        started = time.perf_counter()
        self.provider.prepare(name)
        ahead = time.perf_counter() - started
        self.link.meet({"ready": True})  # nor while the other waits for its dealer
        self._enter("online")
        started = time.perf_counter()
        value = compute()
        seconds = time.perf_counter() - started
        inference = Inference(
            seconds=ahead + seconds,
            offline_seconds=ahead + ledger.total("offline").seconds,
            dealer_seconds=self.provider.dealer_seconds(),
            waiting_seconds=ledger.total("online").wait_seconds,
        )
        return value, inference, _lines(ledger)

    def _enter(self, stage: Stage) -> None:
        """Note what begins; a dealer that has gone meanwhile is noticed here, not only when it is asked."""
        self.stage = stage
        self.job.on_stage(stage)
        if self.job.dealer is not None:
            self.job.dealer.check()

    def _doing(self) -> Stage:
        """The stage, or what interrupts it: tuples that are asked for in line are offline work."""
        return "offline" if self.communicator.ledger.phase == "offline" else self.stage

    def _on_node(self, node: Node) -> None:
        if node.op == "output":
            self._enter("output")
        self.done += 1
        self.progress(self.what, self.done, self.steps * (self.client.warmups + self.client.repetitions))

    def report(self, warmups: list[float], inferences: list[Inference]) -> PartyResult:
        """This party's, of all inferences whose lines are in ``ledgers``."""
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
            round_trip_seconds=self.probe.round_trip,
            bandwidth_bytes_per_second=self.probe.bytes_per_second,
            link_backend=self.probe.backend,
            stored_bytes=self.provider.stored_bytes(),
            fixed_seeds=fixed_seeds(),
        )


def _provider(
    job: Job, communicator: LinkCommunicator, folder: ShareFolder, client: Hello
) -> Provider:  # fmt: skip
    if job.material is not None:
        if client.new_tokens:
            raise UserError("Material is for forward passes, not for text: name a --dealer instead.")
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

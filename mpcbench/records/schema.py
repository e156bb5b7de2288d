"""The typed, versioned record of one two-party run: everything a reader needs to trust a number.

A record is plain data. Nothing here imports torch or CrypTen, so that a record can be read,
checked and drawn on a machine that has neither.

Units are in the names: ``_bytes`` are payload bytes, ``_seconds`` are wall-clock seconds. *Bytes*
are counted where they are sent; a phase's ``bytes`` is the sum over both parties. A *round* is one
dependent exchange on the wire: tensors that travel together are one round.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

Phase = Literal["setup", "offline", "online"]
PHASES: tuple[Phase, ...] = ("setup", "offline", "online")

REPETITION = "repetition"
"""The operator under which openings are entered that had to be made again, see secure/opening.py."""

NonNegative = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class _Part(BaseModel):
    """Base of all parts: unknown fields are refused, so that a typo never hides a number."""

    model_config = ConfigDict(extra="forbid")


class Entry(_Part):
    """Traffic and time of one operator in one layer, per inference (setup: per run).

    ``layer`` is None outside the decoder layers (embedding, final norm, LM head, output).
    ``seconds`` is wall clock at the slower party, ``wait_seconds`` the part of it that party spent
    waiting for its peer's bytes; both are means over the repetitions. ``tuples`` counts correlated
    randomness by kind, in ring elements of the product share (one matmul triple of an (m,k)x(k,n)
    product counts m*n). In the offline phase ``bytes_sent`` are the bytes that the dealer sent to each
    party.

    ``dealt_bytes``: correlated randomness that each party holds beyond its seed; a dealer sends it, a first
    party keeps it to itself. ``unseeded_bytes``: what each would hold without seeds, masks and values in
    full. Both are None in the online phase and in old records.
    """

    layer: int | None
    module: str
    operator: str
    calls: NonNegative
    bytes_sent: tuple[NonNegative, NonNegative]
    rounds: NonNegative
    seconds: Seconds
    wait_seconds: Seconds
    tuples: dict[str, NonNegative] = {}
    dealt_bytes: tuple[NonNegative, NonNegative] | None = None
    unseeded_bytes: tuple[NonNegative, NonNegative] | None = None


class PhaseLedger(_Part):
    """All traffic of one phase: totals, and the entries that add up to them exactly."""

    bytes: NonNegative
    bytes_sent: tuple[NonNegative, NonNegative]
    rounds: NonNegative
    entries: list[Entry]


class Ledger(_Part):
    """The three phases, always apart."""

    setup: PhaseLedger
    offline: PhaseLedger
    online: PhaseLedger


class Storage(_Part):
    """Correlated randomness that a dealer wrote ahead of time: bytes on each party's disk.

    One file serves the set-up of every run, one file each inference. They hold corrections, which the
    offline phase counts as sent, seeds, and spare tuples for openings that are made again.
    """

    setup_bytes: tuple[NonNegative, NonNegative]
    inference_bytes: tuple[NonNegative, NonNegative]


class Openings(_Part):
    """What was opened in one inference: masked openings by number, unmasked ones by name."""

    masked: NonNegative
    unmasked: list[str]


class ModelInfo(_Part):
    """Which weights ran, and which of their layers are polynomial."""

    name: str
    source: str
    sha256: str
    parameters: NonNegative
    layers: NonNegative
    hidden_size: NonNegative
    intermediate_size: NonNegative
    vocab_size: NonNegative
    polynomial_layers: list[int]
    degree: int | None
    placement: str
    training: str
    calibration: str
    checkpoint_sha256: str


class ProtocolInfo(_Part):
    """The whole protocol file, and what it means for trust."""

    name: str
    sha256: str
    settings: dict
    provider: str
    provider_is_secure: bool
    randomness: str
    threat_model: str
    ring_bits: int
    fraction_bits: int


class PartyInfo(_Part):
    """One computing party: where it ran and what it held."""

    rank: int
    role: str
    host: str
    device: str
    threads: int
    peak_memory_bytes: NonNegative


class LinkInfo(_Part):
    """The link asked for, and what was measured on it before the run; None of it in an estimate.

    ``backend`` made it so slow: ``transport``, ``netem`` or ``namespaces``; ``none`` where nothing was
    emulated. ``asked_bandwidth_bits_per_second`` is None where it was not limited. ``encryption`` is what
    protects the parties' connection.
    """

    profile: str
    backend: str = "none"
    asked_bandwidth_bits_per_second: float | None = None
    asked_round_trip_seconds: Seconds = 0.0
    encryption: Literal["none", "tls"] = "none"
    measured_round_trip_seconds: Seconds | None
    measured_bandwidth_bytes_per_second: float | None


class Workload(_Part):
    """What was computed: one forward pass over ``tokens`` tokens, logits of the last position.

    ``cached`` is how many tokens came before them, whose keys and values the parties kept; where those are
    constants of the model, ``prefix`` is their text.
    """

    prompt: str
    prefix: str = ""
    tokens: NonNegative
    cached: NonNegative = 0
    batch: NonNegative
    embedding: Literal["client", "private"]
    repetitions: NonNegative
    warmups: NonNegative
    seed: int | None


class Latency(_Part):
    """Wall clock of every repetition at the slower party; raw values first, summaries after.

    ``total`` includes the correlated randomness: making it, or waiting for the dealer and expanding seeds;
    ``offline`` is that part (``dealer`` are the dealer's processor seconds in it), ``online`` the rest,
    ``waiting`` the part of ``online`` spent waiting for the peer. ``median_seconds`` and ``iqr_seconds``
    summarise ``online``.
    """

    warmup_total_seconds: list[Seconds]
    total_seconds: list[Seconds]
    online_seconds: list[Seconds]
    offline_seconds: list[Seconds]
    waiting_seconds: list[Seconds]
    dealer_seconds: list[Seconds] = []
    median_seconds: Seconds
    iqr_seconds: Seconds


class Accuracy(_Part):
    """One score of one task, in plaintext: ``score`` in [0, 1] with its standard error.

    ``answered``: a digit a question, in their order, 1 if it was answered right (None in old records).
    """

    task: str
    source: str
    setting: Literal["plaintext", "fixed-point", "secret-shared"]
    metric: str
    n: NonNegative
    score: float
    stderr: float
    answered: str | None = None


class Agreement(_Part):
    """The opened logits against the same checkpoint in plaintext float32, last position.

    ``kl`` is KL(plaintext || secret-shared) in nats. ``top5_kept``: how many of the five likeliest tokens in
    plaintext are among the five of the run (None in old records).
    """

    next_token: str
    plaintext_next_token: str
    original_next_token: str
    argmax_equal: bool
    max_logit_error: float
    mean_logit_error: float
    cosine: float
    kl: float
    top5_kept: int | None = None


class Truncation(_Part):
    """Truncations of one inference.

    ``cut_locally``: products that each party cut on its own share; ``expected_failures`` of them, from the
    declared probability and the values' magnitudes in plaintext; ``repeated_rounds``: openings that could
    have failed and were made again; ``far_logits``: opened logits further than ``far`` from plaintext.
    """

    cut_locally: NonNegative
    expected_failures: float
    repeated_rounds: NonNegative
    far_logits: NonNegative
    far: float


class GeneratedToken(_Part):
    """One generated token and what it took, by operator, the decoder layers added up.

    The first took the forward pass over the prompt, each later one a decoding step over a single token, with
    the keys and values of ``cached`` tokens before it.
    """

    token_id: NonNegative
    text: str
    cached: NonNegative
    online: PhaseLedger
    offline: PhaseLedger
    openings: Openings
    latency: Latency


class Generation(_Part):
    """A text that followed the prompt: every token the likeliest one (greedy decoding).

    With ``private_logits`` it was found under MPC and its index alone opened to the client. ``cache`` says
    how cached keys and values were used. ``plaintext_text`` is what Transformers generates from the same
    checkpoint. The record's ledger, latency, openings and agreement are of the first token.
    """

    max_new_tokens: NonNegative
    private_logits: bool
    stopped: Literal["length", "end of text"]
    cache: str
    text: str
    plaintext_text: str
    equals_plaintext: bool
    tokens: list[GeneratedToken]


class Fidelity(_Part):
    """How far the checkpoint is from the original model, in plaintext on held-out text.

    ``kl`` is mean KL(original || checkpoint) in nats a token over ``tokens`` tokens.
    """

    text: str
    tokens: NonNegative
    kl: float
    argmax_agreement: float


class Environment(_Part):
    """The machine and the software, as far as they can change a number."""

    host: str
    cpu: str
    cores: NonNegative
    memory_bytes: NonNegative
    load_average: float
    kernel: str
    python: str
    versions: dict[str, str]
    git_commit: str | None
    git_dirty: bool | None


class Sharing(_Part):
    """Tensors in each party's share folder, in bytes: what it must receive before its first inference."""

    folder_bytes: tuple[NonNegative, NonNegative]


class Record(_Part):
    """One run of one checkpoint under one protocol on one link.

    ``kind``: an estimate is a run that did not take place; its ledger is added up from declared costs, its
    times are what the link adds. No parties, no openings, no accuracy belong to it.
    ``insecure_fixed_seeds``: what a test had all masks follow from; such a record is nothing to publish.
    ``graph_sha256``: of the public graph that both parties hold; ``ranges``: what calibration found, by its
    nodes' names, the smallest and largest value to six digits. None in an estimate and in old records.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    kind: Literal["measured", "estimated"] = "measured"
    run_id: str
    key: str
    created: str
    command: str
    model: ModelInfo
    protocol: ProtocolInfo
    parties: list[PartyInfo]
    link: LinkInfo
    workload: Workload
    ledger: Ledger
    storage: Storage | None = None
    sharing: Sharing | None = None
    openings: Openings | None
    latency: Latency
    accuracy: list[Accuracy]
    agreement: Agreement | None
    fidelity: Fidelity | None
    environment: Environment
    graph_sha256: str | None = None
    ranges: dict[str, dict[str, tuple[float, float]]] | None = None
    truncation: Truncation | None = None
    generation: Generation | None = None
    insecure_fixed_seeds: int | None = None
    notes: list[str] = []

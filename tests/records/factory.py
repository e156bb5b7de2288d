"""Synthetic records for tests: made-up numbers that hang together like those of a real run.

Their proportions are those of stock CrypTen on a 135-million-parameter Llama with 30 layers, so a
figure drawn from them has the shape of a real one. They are no measurements and are never published.
"""

from __future__ import annotations

import hashlib

from mpcbench.records.schema import (
    Accuracy,
    Agreement,
    Entry,
    Environment,
    Fidelity,
    Latency,
    Ledger,
    LinkInfo,
    ModelInfo,
    Openings,
    PartyInfo,
    PhaseLedger,
    ProtocolInfo,
    Record,
    Workload,
)

HIDDEN, INTERMEDIATE, VOCABULARY, HEADS, KEY_HEADS = 576, 1536, 49152, 9, 3
COMPUTING = 1.1e-8  # seconds a byte
ROUND_TRIP = 2e-3  # seconds a round


def make_record(
    polynomial_layers: int = 0,
    *,
    layers: int = 30,
    tokens: int = 16,
    secure: bool = False,
    repetitions: int = 5,
    model: str = "smollm2-135m",
    protocol: str = "crypten",
    link: str = "loopback",
    embedding: str = "private",
    degree: int = 2,
    placement: str = "least-sensitive",
    next_token: str = " Paris",
    notes: tuple[str, ...] = (),
) -> Record:
    """One run with ``polynomial_layers`` of ``layers`` layers replaced; repeatable."""
    replaced = list(range(layers - polynomial_layers, layers))
    online = phase(_online_entries(layers, replaced, tokens, embedding))
    offline = phase(_offline_entries(layers, tokens) if secure else [])
    key = hashlib.sha256(
        f"{model} {protocol} {polynomial_layers} {tokens} {link} {embedding} {degree} {placement}".encode()
    ).hexdigest()
    return Record(
        run_id=f"run-{key[:12]}",
        key=key,
        created="2001-02-03T04:05:06+00:00",
        command=f"mpcbench compare --layers {polynomial_layers}",
        model=_model(model, layers, replaced, degree, placement),
        protocol=_protocol(protocol, secure),
        parties=[_party(0, "model owner"), _party(1, "client")],
        link=LinkInfo(
            profile=link, measured_round_trip_seconds=8.1e-5, measured_bandwidth_bytes_per_second=1.9e9
        ),
        workload=Workload(
            prompt="The capital of France is", tokens=tokens, batch=1, embedding=embedding,
            repetitions=repetitions, warmups=1, seed=7,
        ),
        ledger=Ledger(setup=phase([]), offline=offline, online=online),
        openings=Openings(masked=online.rounds, unmasked=["logits"]),
        latency=_latency(online, offline, repetitions),
        accuracy=_accuracy(polynomial_layers),
        agreement=_agreement(next_token),
        fidelity=Fidelity(
            text="calibration text", tokens=4096, kl=0.0001 * polynomial_layers**2,
            argmax_agreement=1 - 0.004 * polynomial_layers,
        ),
        environment=_environment(),
        notes=list(notes),
    )  # fmt: skip


def make_comparison(*layers: int, **settings) -> list[Record]:
    """Records that belong together: 0, 8 and 16 polynomial layers unless told otherwise."""
    return [make_record(n, **settings) for n in layers or (0, 8, 16)]


def phase(entries: list[Entry]) -> PhaseLedger:
    """A phase whose totals are the sums of its entries."""
    sent = tuple(sum(entry.bytes_sent[rank] for entry in entries) for rank in (0, 1))
    rounds = sum(entry.rounds for entry in entries)
    return PhaseLedger(bytes=sum(sent), bytes_sent=sent, rounds=rounds, entries=entries)


def entry(layer: int | None, module: str, operator: str, sent: float, rounds: int, **more) -> Entry:
    """One entry in which each party sends ``sent`` bytes; its time follows from bytes and rounds."""
    seconds = 2 * sent * COMPUTING + rounds * ROUND_TRIP + 2e-3
    return Entry(
        layer=layer, module=module, operator=operator, calls=1, bytes_sent=(round(sent), round(sent)),
        rounds=rounds, seconds=seconds, wait_seconds=0.3 * seconds, **more,
    )  # fmt: skip


def _matrix(layer: int | None, module: str, tokens: int, rows: int, columns: int) -> Entry:
    return entry(layer, module, "linear", 8 * (rows * columns + tokens * rows), 1)


def _online_entries(layers: int, replaced: list[int], tokens: int, embedding: str) -> list[Entry]:
    entries = []
    if embedding == "private":
        table = 8 * VOCABULARY * (HIDDEN + tokens)
        entries.append(entry(None, "model.embed_tokens", "embedding", table, 1))
    for layer in range(layers):
        entries += _attention(layer, tokens)
        entries += _mlp(layer, tokens, layer in replaced)
    entries.append(entry(None, "model.norm", "rms_norm", 8 * 3 * tokens * HIDDEN, 30))
    entries.append(_matrix(None, "lm_head", 1, HIDDEN, VOCABULARY))
    entries.append(entry(None, "output", "output", 8 * VOCABULARY / 2, 1))
    return entries


def _attention(layer: int, tokens: int) -> list[Entry]:
    name = f"model.layers.{layer}.self_attn"
    keys = HIDDEN * KEY_HEADS // HEADS
    scores = HEADS * tokens * tokens
    return [
        entry(layer, f"model.layers.{layer}.input_layernorm", "rms_norm", 24 * tokens * HIDDEN, 30),
        _matrix(layer, f"{name}.q_proj", tokens, HIDDEN, HIDDEN),
        _matrix(layer, f"{name}.k_proj", tokens, HIDDEN, keys),
        _matrix(layer, f"{name}.v_proj", tokens, HIDDEN, keys),
        entry(layer, name, "rope", 0, 0),
        entry(layer, name, "matmul", 8 * (3 * tokens * HIDDEN + scores), 2),
        entry(layer, name, "softmax", 8 * 50 * scores, 78),
        _matrix(layer, f"{name}.o_proj", tokens, HIDDEN, HIDDEN),
    ]


def _mlp(layer: int, tokens: int, polynomial: bool) -> list[Entry]:
    name = f"model.layers.{layer}.mlp"
    values = tokens * INTERMEDIATE
    if polynomial:
        activation = entry(layer, f"{name}.activation", "polynomial_glu", 8 * 4 * values, 2)
    else:
        activation = entry(layer, name, "swiglu", 8 * 49 * values, 24)
    return [
        entry(layer, f"model.layers.{layer}.post_attention_layernorm", "rms_norm", 24 * tokens * HIDDEN, 30),
        _matrix(layer, f"{name}.gate_proj", tokens, HIDDEN, INTERMEDIATE),
        _matrix(layer, f"{name}.up_proj", tokens, HIDDEN, INTERMEDIATE),
        activation,
        _matrix(layer, f"{name}.down_proj", tokens, INTERMEDIATE, HIDDEN),
    ]


def _offline_entries(layers: int, tokens: int) -> list[Entry]:
    size = tokens * INTERMEDIATE
    return [
        entry(layer, f"model.layers.{layer}.mlp", "swiglu", 24 * size, 0, tuples={"multiplication": size})
        for layer in range(layers)
    ]


def _model(name: str, layers: int, replaced: list[int], degree: int, placement: str) -> ModelInfo:
    return ModelInfo(
        name=name, source="made up for a test", sha256="a" * 64, parameters=134_515_008, layers=layers,
        hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, vocab_size=VOCABULARY,
        polynomial_layers=replaced, degree=degree if replaced else None, placement=placement,
        training="none", calibration="made up", checkpoint_sha256=f"{len(replaced):064x}",
    )  # fmt: skip


def _protocol(name: str, secure: bool) -> ProtocolInfo:
    return ProtocolInfo(
        name=name, sha256="b" * 64, settings={"name": name, "fraction_bits": 16},
        provider="dealer" if secure else "first-party", provider_is_secure=secure,
        randomness="a dealer that colludes with neither party" if secure else "party 0",
        threat_model="semi-honest, two computing parties", ring_bits=64, fraction_bits=16,
    )  # fmt: skip


def _party(rank: int, role: str) -> PartyInfo:
    return PartyInfo(
        rank=rank, role=role, host="testhost", device="cpu", threads=1,
        peak_memory_bytes=2_100_000_000 + 50_000_000 * rank,
    )  # fmt: skip


def _latency(online: PhaseLedger, offline: PhaseLedger, repetitions: int) -> Latency:
    base = sum(item.seconds for item in online.entries) * 1.03
    spread = [0.01 * ((3 * i) % repetitions) for i in range(repetitions)]
    seconds = [base * (1 + s - max(spread) / 2) for s in spread]
    made = sum(item.seconds for item in offline.entries)
    ordered = sorted(seconds)
    quarter = (repetitions - 1) / 4
    return Latency(
        warmup_total_seconds=[base * 1.2 + made],
        total_seconds=[s + made for s in seconds],
        online_seconds=seconds,
        offline_seconds=[made] * repetitions,
        waiting_seconds=[0.3 * s for s in seconds],
        median_seconds=ordered[repetitions // 2],
        iqr_seconds=ordered[round(3 * quarter)] - ordered[round(quarter)],
    )


def _accuracy(polynomial_layers: int) -> list[Accuracy]:
    score = 0.574 - 0.0008 * polynomial_layers
    return [
        Accuracy(
            task="arc_easy", source="made up for a test", setting="plaintext", metric="acc",
            n=570, score=score, stderr=0.0207,
        )
    ]  # fmt: skip


def _agreement(token: str) -> Agreement:
    return Agreement(
        next_token=token, plaintext_next_token=token, original_next_token=token, argmax_equal=True,
        max_logit_error=0.11, mean_logit_error=0.021, cosine=0.99991, kl=0.00013,
    )  # fmt: skip


def _environment() -> Environment:
    return Environment(
        host="testhost", cpu="a CPU", cores=2, memory_bytes=8 * 10**9, load_average=0.5,
        kernel="Linux 1.0", python="3.11.0", versions={"mpcbench": "0.1.0", "torch": "2.13.0"},
        git_commit="c" * 40, git_dirty=False,
    )  # fmt: skip

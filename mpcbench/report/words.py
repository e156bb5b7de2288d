"""Words and marks that tables and figures share: labels of records, footnotes, what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mpcbench.records.compare import remarks
from mpcbench.records.schema import Record

DAGGER = "†"
DOUBLE_DAGGER = "‡"


def labels(records: Sequence[Record]) -> list[str]:
    """Short names of records that stand side by side: :func:`names_within`, behind the protocol's name where
    there are several."""
    names = names_within(records)
    if len(protocols(records)) == 1:
        return names
    return [f"{record.protocol.name} {name}" for record, name in zip(records, names, strict=True)]


def names_within(records: Sequence[Record]) -> list[str]:
    """What tells records of one protocol apart: their number of polynomial layers, and where two share it
    the degree, the placement or the key as well."""
    counts = [str(len(record.model.polynomial_layers)) for record in records]
    candidates = (
        [f"{c} (degree {r.model.degree})" for c, r in zip(counts, records, strict=True)],
        [f"{c} ({r.model.placement})" for c, r in zip(counts, records, strict=True)],
        [f"{c} ({r.key[:4]})" for c, r in zip(counts, records, strict=True)],
    )
    named, alike = list(counts), _of_protocol(records, counts)
    for choice in candidates:
        repeated = Counter(_of_protocol(records, named))
        for i, one in enumerate(_of_protocol(records, named)):
            if repeated[one] > 1 and _tells_apart(choice, alike, i):
                named[i] = choice[i]
    return named


def _of_protocol(records: Sequence[Record], names: Sequence[str]) -> list[tuple[str, str]]:
    return [(record.protocol.name, name) for record, name in zip(records, names, strict=True)]


def protocols(records: Sequence[Record]) -> list[str]:
    """The names of the records' protocols, each once."""
    return list(dict.fromkeys(record.protocol.name for record in records))


def _tells_apart(choice: Sequence[str], counts: Sequence[tuple[str, str]], index: int) -> bool:
    rivals = [choice[i] for i, count in enumerate(counts) if count == counts[index]]
    return rivals.count(choice[index]) == 1


def marked_labels(records: Sequence[Record]) -> list[str]:
    """:func:`labels`, with a dagger where the correlated randomness was not made securely."""
    return [label + mark(record) for label, record in zip(labels(records), records, strict=True)]


def mark(record: Record) -> str:
    """A dagger where masks are no secret to a party or to anybody, a double one for an estimate."""
    return (DAGGER if insecure(record) else "") + (DOUBLE_DAGGER if estimated([record]) else "")


def insecure(record: Record) -> bool:
    """Whether a party made the correlated randomness, or everything follows from fixed seeds."""
    return not record.protocol.provider_is_secure or record.insecure_fixed_seeds is not None


def estimated(records: Sequence[Record]) -> bool:
    """Whether these are estimates; measured records never stand beside them."""
    return records[0].kind == "estimated"


def footnotes(records: Sequence[Record]) -> list[str]:
    """What the daggers mean; empty when no record carries one."""
    makers = dict.fromkeys(r.protocol.randomness for r in records if not r.protocol.provider_is_secure)
    estimates = [
        f"{DOUBLE_DAGGER} Estimated: bytes, rounds and tuples are added up from what the operators declare, "
        "which real runs keep to exactly; nothing ran."
    ]
    seeds = dict.fromkeys(r.insecure_fixed_seeds for r in records if r.insecure_fixed_seeds is not None)
    fixed = [
        f"{DAGGER} Not secure, a test and nothing to publish: all masks follow from the number {number}, and "
        "whoever knows it can read everything."
        for number in seeds
    ]
    party = [
        f"{DAGGER} Not secure, for development only: the correlated randomness comes from {_inline(maker)}; "
        "whoever makes it can read everything, and its traffic is not that of a secure offline phase."
        for maker in makers
    ]
    return (estimates if estimated(records) else []) + fixed + party


def short_footnote(records: Sequence[Record]) -> str:
    """The footnote of a figure: one line, or nothing when no record carries a dagger."""
    providers = dict.fromkeys(r.protocol.provider for r in records if not r.protocol.provider_is_secure)
    if any(r.insecure_fixed_seeds is not None for r in records):
        return f"{DAGGER} not secure: fixed seeds, a test and nothing to publish"
    if estimated(records):
        return f"{DOUBLE_DAGGER} estimated, nothing ran" + (f"; {DAGGER} not secure" if providers else "")
    if not providers:
        return ""
    maker = " / ".join(providers)
    if len(maker) > 24:  # the line has to fit one paper column
        maker = "a party"
    return f"{DAGGER} not secure: correlated randomness by {maker} (development only)"


def randomness(records: Sequence[Record]) -> str:
    """Who made the correlated randomness, in a sentence."""
    makers = dict.fromkeys(f"{_inline(r.protocol.randomness)}{mark(r)}" for r in records)
    return f"Correlated randomness: {'; '.join(makers)}."


def notes(records: Sequence[Record]) -> list[str]:
    """All sentences that belong beneath a table, footnotes of daggers first."""
    latency = "" if estimated(records) else f"Latency: {repetitions(records)}. "
    return [
        *footnotes(records),
        randomness(records),
        *checkpoints(records),
        f"{latency}Setup happens once a model, offline and online every time.",
        *data_sources(records),
        *(f"Note: {remark}" for remark in remarks(records)),
    ]


def checkpoints(records: Sequence[Record]) -> list[str]:
    """How the polynomial checkpoints were made, a sentence for each way."""
    ways: dict[str, list[str]] = {}
    for label, record in zip(labels(records), records, strict=True):
        if record.model.polynomial_layers:
            ways.setdefault(f"{record.model.training}; text: {record.model.calibration}", []).append(label)
    return [f"Checkpoint of {', '.join(names)}: {_inline(way)}." for way, names in ways.items()]


def data_sources(records: Sequence[Record]) -> list[str]:
    """Where the questions of every task and the text of the KL come from."""
    tasks = dict.fromkeys((a.task, a.metric, a.source) for record in records for a in record.accuracy)
    texts = dict.fromkeys((r.fidelity.text, r.fidelity.tokens) for r in records if r.fidelity is not None)
    return [
        *(f"Task {task}: {_inline(source)}; {metric} ± standard error." for task, metric, source in tasks),
        *(f"KL to the original: mean over {tokens:,} tokens of {_inline(text)}." for text, tokens in texts),
    ]


def setting(records: Sequence[Record]) -> str:
    """What all the records share, in a sentence: model, protocol, prompt length, link, threads."""
    first = records[0]
    layers = "/".join(dict.fromkeys(str(len(record.model.polynomial_layers)) for record in records))
    names = protocols(records)
    protocol = f"protocol {names[0]}" if len(names) == 1 else f"protocols {', '.join(names)}"
    threads = "/".join(dict.fromkeys(str(party.threads) for party in first.parties))
    where = f"; {threads} thread{'' if threads == '1' else 's'} a party on {device(first)}" if threads else ""
    embedding = (
        "private embedding" if first.workload.embedding == "private" else "public embedding at the client"
    )
    batch = f"batch of {first.workload.batch}, " if first.workload.batch != 1 else ""
    return (
        f"{first.model.name} with {layers} of {first.model.layers} layers polynomial, "
        f"{first.workload.tokens} tokens{_prefix(first)}, {batch}{embedding}; {protocol} "
        f"({_inline(first.protocol.threat_model)}; {first.protocol.ring_bits}-bit ring, "
        f"{first.protocol.fraction_bits} fraction bits); link {link(records)}{where}"
    )


def _prefix(record: Record) -> str:
    """How many tokens stood in front of the prompt as constants of the model; its text is in the record."""
    return f" behind a prefix of {record.workload.cached}" if record.workload.prefix else ""


def device(record: Record) -> str:
    """Where the parties computed: the CPU's name, or the devices'."""
    devices = list(dict.fromkeys(party.device for party in record.parties))
    return record.environment.cpu if devices == ["cpu"] else ", ".join(devices)


def link(records: Sequence[Record]) -> str:
    """The link asked for, and the range of what was measured on it."""
    if estimated(records):
        return f"{records[0].link.profile} ({asked(records[0])})"
    trips = [record.link.measured_round_trip_seconds * 1e3 for record in records]
    rates = [record.link.measured_bandwidth_bytes_per_second * 8 / 1e9 for record in records]
    return f"{records[0].link.profile} (measured: {_range(trips)} ms round trip, {_range(rates)} Gbit/s)"


def asked(record: Record) -> str:
    """Bandwidth and round-trip time of the link asked for."""
    bandwidth = record.link.asked_bandwidth_bits_per_second
    rate = "unlimited" if bandwidth is None else f"{bandwidth / 1e6:g} Mbit/s"
    return f"{rate}, {record.link.asked_round_trip_seconds * 1e3:g} ms round trip"


def length(record: Record) -> str:
    """The number of tokens, such as ``32``, or ``1 after 32`` with so many cached."""
    workload = record.workload
    return f"{workload.tokens:,}" + (f" after {workload.cached:,}" if workload.cached else "")


def repetitions(records: Sequence[Record]) -> str:
    """Number of repetitions and warm-ups behind a latency."""
    runs = "/".join(dict.fromkeys(str(len(record.latency.online_seconds)) for record in records))
    warm = "/".join(dict.fromkeys(str(len(record.latency.warmup_total_seconds)) for record in records))
    return f"{runs} repetition{'' if runs == '1' else 's'} after {warm} warm-up{'' if warm == '1' else 's'}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low} to {high}"


def _inline(words: str) -> str:
    return words.strip().rstrip(".")

"""Which records may stand in one table: all but the polynomial layers and the protocol must be the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mpcbench.errors import UserError
from mpcbench.parties.network import LOOPBACK
from mpcbench.records.schema import Record
from mpcbench.records.store import in_order, read, read_folder

MUST_MATCH: dict[str, Callable[[Record], object]] = {
    "kind": lambda r: r.kind,
    "model.sha256": lambda r: r.model.sha256,
    "workload.tokens": lambda r: r.workload.tokens,
    "workload.cached": lambda r: r.workload.cached,
    "workload.prefix": lambda r: r.workload.prefix,
    "workload.prompt": lambda r: r.workload.prompt,
    "workload.batch": lambda r: r.workload.batch,
    "workload.embedding": lambda r: r.workload.embedding,
    "protocol.fraction_bits": lambda r: r.protocol.fraction_bits,
    "protocol.ring_bits": lambda r: r.protocol.ring_bits,
    "protocol.provider": lambda r: r.protocol.provider,
    "insecure_fixed_seeds": lambda r: r.insecure_fixed_seeds,
    "link.profile": lambda r: r.link.profile,
    "link.backend": lambda r: r.link.backend,
    "link.asked_bandwidth_bits_per_second": lambda r: r.link.asked_bandwidth_bits_per_second,
    "link.asked_round_trip_seconds": lambda r: r.link.asked_round_trip_seconds,
    "link.encryption": lambda r: r.link.encryption,
    "parties.device": lambda r: [party.device for party in r.parties],
    "parties.threads": lambda r: [party.threads for party in r.parties],
}

SHOULD_MATCH: dict[str, Callable[[Record], object]] = {
    "cpu": lambda r: r.environment.cpu,
    "cores": lambda r: r.environment.cores,
    "kernel": lambda r: r.environment.kernel,
    "python": lambda r: r.environment.python,
    "mpcbench commit": lambda r: r.environment.git_commit,
    "repetitions": lambda r: r.workload.repetitions,
    "polynomial degree": lambda r: r.model.degree if r.model.polynomial_layers else _SAME,
}

_SAME = object()  # a record to which the field does not apply, and which therefore never differs


def check_comparable(records: Sequence[Record]) -> None:
    """Raise UserError naming the first field that must match and does not, and its two values."""
    for field, value in MUST_MATCH.items():
        for record in records[1:]:
            if value(record) != value(records[0]):
                raise UserError(
                    f"these records cannot be compared: {field} is {value(records[0])!r} with "
                    f"{_name(records[0])} and {value(record)!r} with {_name(record)}; "
                    "give records of one setting only, or keep settings in folders of their own"
                )

    versions: dict[str, Record] = {}
    for record in records:
        other = versions.setdefault(record.protocol.name, record)
        if other.protocol.sha256 != record.protocol.sha256:
            raise UserError(
                f"these records cannot be compared: protocol.sha256 differs between {_name(other)} and "
                f"{_name(record)}, two versions of protocol {record.protocol.name}; run the older one again"
            )


def same_but_link(first: Record, second: Record) -> bool:
    """Whether two records measured the same checkpoint in the same way, on whatever link."""
    alike = [field for field in MUST_MATCH if not field.startswith("link.")]
    whole = (
        first.model.checkpoint_sha256 == second.model.checkpoint_sha256
        and first.protocol.name == second.protocol.name
        and first.protocol.sha256 == second.protocol.sha256
    )
    return whole and all(MUST_MATCH[field](first) == MUST_MATCH[field](second) for field in alike)


def measured_elsewhere(records: Sequence[Record], others: Sequence[Record]) -> list[Record]:
    """Those of ``others`` that differ from one of ``records`` in the link alone."""
    return [
        other for other in others
        if any(_link(other) != _link(record) and same_but_link(other, record) for record in records)
    ]  # fmt: skip


def _link(record: Record) -> list[object]:
    return [value(record) for field, value in MUST_MATCH.items() if field.startswith("link.")]


def _name(record: Record) -> str:
    return f"{len(record.model.polynomial_layers)} polynomial layers (run {record.run_id})"


def remarks(records: Sequence[Record]) -> list[str]:
    """What a reader should know beside the numbers: soft differences, dirty sources, notes of runs."""
    found = [
        f"The records differ in {field}: {', '.join(values)}."
        for field, values in _differences(records).items()
    ]
    if any(record.environment.git_dirty for record in records):
        found.append("Some records were made by an mpcbench with changes that were not committed.")
    for record in records:
        found += [note for note in record.notes if note not in found]
    return found


def _differences(records: Sequence[Record]) -> dict[str, list[str]]:
    values = {field: [get(record) for record in records] for field, get in SHOULD_MATCH.items()}
    packages = dict.fromkeys(name for record in records for name in record.environment.versions)
    for package in packages:
        values[package] = [record.environment.versions.get(package) for record in records]
    distinct = {
        field: list(dict.fromkeys(str(value) for value in given if value is not _SAME))
        for field, given in values.items()
    }
    return {field: given for field, given in distinct.items() if len(given) > 1}


def load_for_report(paths: Sequence[Path]) -> tuple[list[Record], list[Record]]:
    """Records of all ``paths`` (folders or files), ordered and checked to be comparable.

    Where some are of loopback, the second list holds those that differ from one of these in the link alone.
    Raises UserError when there are none, when one is malformed, or when they do not belong together.
    """
    records: dict[str, Record] = {}
    for path in map(Path, paths):
        for record in read_folder(path) if path.is_dir() else [read(path)]:
            records[record.run_id] = record  # a file named twice, alone and by its folder, counts once
    if not records:
        places = ", ".join(map(str, paths)) or "the given paths"
        raise UserError(f"no records in {places}: `mpcbench compare` writes them")
    ordered = in_order(records.values())
    here = [record for record in ordered if record.link.profile == LOOPBACK]
    elsewhere = measured_elsewhere(here, [record for record in ordered if record.link.profile != LOOPBACK])
    rest = [record for record in ordered if record not in elsewhere]
    check_comparable(rest)
    return rest, elsewhere

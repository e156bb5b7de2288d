"""Records on disk: one JSON file each, written whole or not at all, refused with a reason if broken."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from mpcbench.errors import UserError
from mpcbench.records.schema import PHASES, SCHEMA_VERSION, PhaseLedger, Record

LINE = 240  # values whose JSON is shorter than this stay on one line


class NoRecord(UserError):
    """A whole JSON file that is of something else."""


class CannotWrite(UserError):
    """A record that the disk does not take: no other one would fare better."""


def write(record: Record, folder: Path) -> Path:
    """Write ``record`` into ``folder`` under its :func:`file_name` and return the path.

    The file appears whole or not at all: its text goes to a temporary file beside it, reaches the
    disk, and takes the name in one step. An earlier record of the same name stays as it was if
    anything fails. Raises CannotWrite naming the path when the disk is full or refuses.
    """
    path = Path(folder) / file_name(record)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, to_json(record) + "\n")
    except OSError as error:
        raise CannotWrite(
            f"cannot write the record {path}: {error.strerror or error}; make room there or choose "
            "another folder (records written before are as they were)"
        ) from error
    return path


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def file_name(record: Record) -> str:
    """A name to read: model, protocol, polynomial layers, tokens, link, and eight digits of the key."""
    link = "" if record.link.profile == "loopback" else f"_{_slug(record.link.profile)}"
    model = _slug(record.model.name.rstrip("/").rsplit("/", 1)[-1])
    return (
        f"{model}_{_slug(record.protocol.name)}_l{len(record.model.polynomial_layers):02d}"
        f"_t{record.workload.tokens}{link}_{_slug(record.key)[:8]}.json"
    )


def _slug(words: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-.") or "unnamed"


def to_json(value: Record | Iterable[Record]) -> str:
    """The JSON text of one record, or of a list of records; what ``--json`` prints.

    Strict JSON: numbers that are not finite are the strings NaN, Infinity and -Infinity.
    """
    if isinstance(value, Record):
        return _layout(_finite(value.model_dump(mode="json")))
    return _layout([_finite(record.model_dump(mode="json")) for record in value])


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _layout(value: object, indent: str = "") -> str:
    """Indented JSON that keeps what is short on one line: a ledger entry takes one line."""
    short = json.dumps(value)
    if not isinstance(value, (dict, list)) or len(short) + len(indent) <= LINE:
        return short
    deeper = indent + " "
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {_layout(item, deeper)}" for key, item in value.items()]
        opening, closing = "{", "}"
    else:
        items = [_layout(item, deeper) for item in value]
        opening, closing = "[", "]"
    return f"{opening}\n{deeper}" + f",\n{deeper}".join(items) + f"\n{indent}{closing}"


def read(path: Path) -> Record:
    """Read one record. Raises UserError naming the file, and the field where one is at fault."""
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the record {path}: {error.strerror or error}") from error
    except ValueError as error:  # not JSON, or not UTF-8
        raise UserError(
            f"{path} is not a record: it is not valid JSON ({error}); remove the file or move it away, and "
            "measure again what it was of"
        ) from error
    _check_version(path, data)
    try:
        record = Record.model_validate(data)
    except ValidationError as error:
        raise UserError(_first_fault(path, error)) from error
    for phase in PHASES:
        _check_sums(path, phase, getattr(record.ledger, phase))
    return record


def _check_version(path: Path, data: object) -> None:
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version is None:
        raise NoRecord(f"{path} is not a record of mpcbench: it has no field schema_version")
    if version != SCHEMA_VERSION:
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        remedy = "update mpcbench to read it" if newer else "run the comparison again"
        raise UserError(
            f"{path}: schema_version is {version!r}, this mpcbench reads {SCHEMA_VERSION}; {remedy}"
        )


def _first_fault(path: Path, error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False)
    field = ".".join(str(part) for part in faults[0]["loc"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{path} is not a valid record: field {field}: {faults[0]['msg']}{more}"


def _check_sums(path: Path, phase: str, ledger: PhaseLedger) -> None:
    """A table of parts must add up to its total, so a file where they do not is refused."""
    sent = tuple(sum(entry.bytes_sent[rank] for entry in ledger.entries) for rank in (0, 1))
    rounds = sum(entry.rounds for entry in ledger.entries)
    for field, stated, added in (
        ("bytes_sent", ledger.bytes_sent, sent),
        ("bytes", ledger.bytes, sum(sent)),
        ("rounds", ledger.rounds, rounds),
    ):
        if stated != added:
            raise UserError(
                f"{path} is not a valid record: field ledger.{phase}.{field} is {stated}, but its "
                f"entries add up to {added}"
            )


def read_folder(folder: Path) -> list[Record]:
    """All records (``*.json``) of ``folder``, by their number of polynomial layers.

    An empty folder gives an empty list; a missing one or a malformed record raises UserError. JSON of
    something else, such as what `make bench` leaves, is passed over.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name one that holds records")
    try:
        paths = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    records = []
    for path in paths:
        with contextlib.suppress(NoRecord):
            records.append(read(path))
    return in_order(records)


def readable(folder: Path) -> tuple[list[Record], list[str]]:
    """The whole records of ``folder``, and a sentence about each file that is a damaged one.

    JSON of something else is passed over, and a missing folder holds nothing.
    """
    records, damaged = [], []
    for path in sorted(Path(folder).glob("*.json")):
        try:
            records.append(read(path))
        except NoRecord:
            continue
        except UserError as error:
            damaged.append(str(error))
    return in_order(records), damaged


def in_order(records: Iterable[Record]) -> list[Record]:
    """Records by protocol and number of polynomial layers; ties by degree, placement and key."""
    return sorted(records, key=_place)


def _place(record: Record) -> tuple[str, int, int, str, str]:
    model = record.model
    count = len(model.polynomial_layers)
    return record.protocol.name, count, model.degree or 0, model.placement, record.key

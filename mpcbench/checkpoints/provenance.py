"""Where a polynomial checkpoint comes from: ``mpcbench.json``, beside its weights."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mpcbench.errors import UserError

FILE_NAME = "mpcbench.json"


class HeldOut(BaseModel):
    """Distance to the original on the part of the calibration text that no fit saw.

    ``kl`` is mean KL(original || checkpoint) in nats a token, ``tokens`` how many positions it averages.
    """

    model_config = ConfigDict(extra="forbid")

    tokens: int
    kl: float
    argmax_agreement: float


class Provenance(BaseModel):
    """What a run record has to say about a checkpoint; ``original`` is the model before replacement.

    ``placement`` is what was asked for, ``polynomial_layers`` what it came to. ``ranking`` lists all
    layers, least sensitive first, when the placement needed one.
    """

    model_config = ConfigDict(extra="forbid")

    original: str
    original_source: str
    original_sha256: str
    polynomial_layers: list[int]
    degree: int
    placement: str
    per_channel: bool
    training: str
    calibration: str
    calibration_sha256: str
    calibration_tokens: int
    ranking: list[int] | None
    held_out: HeldOut
    mpcbench_version: str


def write_provenance(provenance: Provenance, folder: Path) -> Path:
    """Write ``mpcbench.json`` into a checkpoint folder."""
    path = folder / FILE_NAME
    path.write_text(provenance.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


def read_provenance(folder: Path) -> Provenance | None:
    """The provenance of a checkpoint folder, or None when mpcbench did not write it.

    Raises UserError, naming file and field, when the file is there but malformed.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        return Provenance.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole file"
        reason = first["msg"]
        raise UserError(f"{path} is malformed at {field} ({reason}): write the checkpoint again.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: write the checkpoint again.") from None

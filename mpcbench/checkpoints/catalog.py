"""Which models are at hand: those mpcbench can fetch by name, and those in its cache."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from mpcbench.checkpoints.packaged import PACKAGED
from mpcbench.paths import cache_dir


@dataclass(frozen=True)
class Listed:
    """One line of the list. ``size_bytes`` is what it takes on disk here, 0 where it is not here yet."""

    name: str
    kind: str
    source: str
    cached: bool
    size_bytes: int
    note: str

    def as_dict(self) -> dict:
        """Plain data for JSON."""
        return asdict(self)


def catalog() -> list[Listed]:
    """Packaged models first, then converted GGUF files, then calibrated checkpoints."""
    return [*_packaged(), *_converted(), *_calibrated()]


def _packaged() -> list[Listed]:
    listed = []
    for model in PACKAGED.values():
        folder = cache_dir() / "models" / model.name
        gguf = cache_dir() / "gguf" / Path(model.member).name
        size = _size(folder) + (gguf.stat().st_size if gguf.is_file() else 0)
        note = f"the original in BF16 is {model.original} on the Hugging Face Hub, to be given by that name"
        listed.append(Listed(model.name, "packaged", model.source, folder.is_dir(), size, note))
    return listed


def _converted() -> list[Listed]:
    folders = sorted((cache_dir() / "models").glob("gguf-*"))
    return [
        Listed(str(f), "converted", _origin(f), True, _size(f), "a GGUF file, as safetensors")
        for f in folders
    ]


def _calibrated() -> list[Listed]:
    from mpcbench.checkpoints.provenance import read_provenance

    listed = []
    for folder in sorted((cache_dir() / "checkpoints").glob("[0-9a-f]*")):
        provenance = read_provenance(folder)
        if provenance is not None:
            layers = len(provenance.polynomial_layers)
            note = f"{layers} layers of degree {provenance.degree}, {provenance.placement}"
            listed.append(Listed(str(folder), "calibrated", provenance.original, True, _size(folder), note))
    return listed


def _origin(folder: Path) -> str:
    try:
        return json.loads((folder / "converted.json").read_text(encoding="utf-8"))["file"]
    except (OSError, ValueError, KeyError):
        return "unknown"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0

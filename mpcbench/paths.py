"""Where mpcbench keeps what it can make again, and how it writes there without leaving halves behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """The user's cache: ``$MPCBENCH_CACHE``, or ``~/.cache/mpcbench``. Created when missing."""
    chosen = os.environ.get("MPCBENCH_CACHE")
    folder = Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "mpcbench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its name only if the block succeeds.

    A reader therefore sees the whole folder or none. When another process finished the same target
    first, its folder is kept and ours is dropped: both hold the same content by construction.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    part.chmod(0o755)  # mkdtemp makes it private; the finished folder is an ordinary one
    try:
        with _named(target):
            yield part
        try:
            part.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` whose file replaces ``target`` only if the block succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        with _named(target):
            yield part
        part.chmod(0o644)  # mkstemp makes it private
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _named(target: Path) -> Iterator[None]:
    """A full disk under a file that is open already names no path; then it is ``target`` that has no room."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(target)
        raise


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

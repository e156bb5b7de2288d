"""Disks that can be full: a small tmpfs each, where the tests may mount one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BLOCK = 4096


class Disk:
    """``folder`` lies alone on a disk of its own."""

    def __init__(self, folder: Path):
        self.folder = folder

    def fill(self) -> None:
        """Leave no block free."""
        with pytest.raises(OSError, match="No space left"), (self.folder / "filler").open("wb", 0) as file:
            while True:
                file.write(bytes(BLOCK))

    def free(self) -> None:
        """Make the room again that :meth:`fill` took."""
        (self.folder / "filler").unlink()

    def names(self) -> set[str]:
        """What lies there, without what fills it."""
        return {path.name for path in self.folder.iterdir()} - {"filler"}


@contextmanager
def small_disk(folder: Path, size: int = 8 << 20) -> Iterator[Disk]:
    """A disk of ``size`` bytes at ``folder``, which is made; skips the test where it may mount none."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a disk")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)

"""A folder over a link: a list of names and sizes, then the files' bytes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from mpcbench.errors import PeerError, UserError
from mpcbench.secure.transport import Link

CHUNK = 8 << 20
MAX_FILES = 100
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)?")


def send_folder(link: Link, folder: Path) -> None:
    """Send every file of ``folder``, and of folders in it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    listed = [[file.relative_to(folder).as_posix(), file.stat().st_size] for file in files]
    link.tell({"files": listed})
    for file, (_, size) in zip(files, listed, strict=True):
        with file.open("rb") as stream:
            for start in range(0, size, CHUNK):
                link.exchange([memoryview(stream.read(min(CHUNK, size - start)))], [])


def receive_folder(link: Link, folder: Path) -> None:
    """Write what the peer sends with :func:`send_folder` into the empty ``folder``.

    Raises PeerError for names that lead elsewhere and for more than the disk has room for, and UserError when
    it is full or broken all the same.
    """
    listed = _listed(link.hear().get("files"), link.peer)
    free = shutil.disk_usage(folder).free
    if sum(size for _, size in listed) > free:
        sentence = f"there is no room for {sum(size for _, size in listed) / 1e6:.0f} MB of shares here."
        link.fail(sentence)
        raise PeerError(sentence)
    try:
        _receive(link, folder, listed)
    except OSError as error:
        raise UserError(
            f"cannot keep the shares in {folder} ({error.strerror}): make room there, or set TMPDIR to "
            "another folder, and start again."
        ) from None


def _receive(link: Link, folder: Path, listed: list[tuple[str, int]]) -> None:
    for name, size in listed:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("xb") as stream:
            for start in range(0, size, CHUNK):
                part = bytearray(min(CHUNK, size - start))
                link.exchange([], [memoryview(part)])
                stream.write(part)


def _listed(files: object, peer: str) -> list[tuple[str, int]]:
    if not isinstance(files, list) or len(files) > MAX_FILES:
        raise PeerError(f"{peer} lists no files: install the same mpcbench on both sides.")
    for item in files:
        fits = isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) and type(item[1]) is int
        if not fits or not _NAME.fullmatch(item[0]) or item[1] < 0:
            raise PeerError(f"{peer} names files that no share folder has: look at its own output.")
    return [(name, size) for name, size in files]

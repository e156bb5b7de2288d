from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mpcbench.errors import PeerError, UserError
from mpcbench.parties import transfer
from mpcbench.parties.transfer import receive_folder, send_folder
from tests.disks import small_disk
from tests.secure.links import links, outcomes, together


def test_a_folder_arrives_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "CHUNK", 7)  # files of several chunks, of one, of none
    here, there = tmp_path / "here", tmp_path / "there"
    (here / "tokenizer").mkdir(parents=True)
    there.mkdir()
    for name, content in {"a.json": b"{}", "b.bin": bytes(range(50)), "tokenizer/c": b""}.items():
        (here / name).write_bytes(content)
    with links() as (left, right):
        together(lambda: send_folder(left, here), lambda: receive_folder(right, there))
    assert _content(there) == _content(here) and len(_content(here)) == 3


def _content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize(
    "files",
    [
        [["../evil", 1]], [["/etc/evil", 1]], [["a/../../evil", 1]], [["a/b/c", 1]], [[".hidden", 1]],
        [["a", -1]], [["a", 1.5]], [["a"]], ["a"], {"a": 1}, None, [["a", 1]] * 101,
    ],
)  # fmt: skip
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, files: object) -> None:
    (tmp_path / "there").mkdir()
    with links() as (left, right):
        left.tell({"files": files})
        with pytest.raises(PeerError, match=r"^party 0 (names files|lists no files)"):
            receive_folder(right, tmp_path / "there")
    assert _content(tmp_path) == {}


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with links() as (left, right):
        left.tell({"files": [["a", 11]]})
        told, _ = outcomes(left.hear, lambda: receive_folder(right, tmp_path))
    assert isinstance(told, PeerError) and "there is no room for 0 MB of shares here" in str(told)
    assert _content(tmp_path) == {}


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 30))
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a").write_bytes(bytes(200_000))
    with small_disk(tmp_path / "disk", 100_000) as disk, links() as (left, right):
        _, mine = outcomes(
            lambda: send_folder(left, tmp_path / "here"), lambda: receive_folder(right, disk.folder)
        )
    assert isinstance(mine, UserError)
    assert str(mine).startswith(f"cannot keep the shares in {disk.folder} (No space left on device): make")

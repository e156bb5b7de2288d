from __future__ import annotations

import hashlib

import pytest

from mpcbench.paths import cache_dir, file_sha256, whole_file, whole_folder
from tests.disks import small_disk


def test_the_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path / "a" / "b"))
    assert cache_dir() == tmp_path / "a" / "b"
    assert cache_dir().is_dir()
    monkeypatch.delenv("MPCBENCH_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "mpcbench"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "made"
    with pytest.raises(RuntimeError), whole_folder(target) as part:
        (part / "half").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with whole_folder(target) as part:
        (part / "all").write_text("x")
        assert not target.exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["made", "all"]


def test_the_first_of_two_writers_stays(tmp_path):
    target = tmp_path / "made"
    with whole_folder(target) as mine:
        (mine / "who").write_text("second")
        target.mkdir()
        (target / "who").write_text("first")
    assert (target / "who").read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(RuntimeError), whole_file(target) as part:
        part.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    with whole_file(target) as part:
        part.write_text("new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("whole", [whole_folder, whole_file])
def test_a_full_disk_names_what_has_no_room_and_leaves_nothing(tmp_path, whole):
    with small_disk(tmp_path / "disk", 100_000) as disk:
        target = disk.folder / "made"
        with pytest.raises(OSError, match="No space left on device") as caught, whole(target) as part:
            (part / "file" if part.is_dir() else part).write_bytes(bytes(200_000))
        assert caught.value.filename == str(target)
        assert disk.names() == set()


def test_file_hash(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc" * 1_000_000)
    assert file_sha256(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()

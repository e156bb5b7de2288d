from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from mpcbench import accuracy
from mpcbench.accuracy import cache
from tests.accuracy.questions import tiny_rows, write_rows
from tests.tiny import tiny_llama, tiny_tokenizer


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "accuracy"


def loaded(seed: int):
    return SimpleNamespace(model=tiny_llama(seed=seed), tokenizer=tiny_tokenizer(), sha256=f"{seed:064x}")


def test_a_second_call_reads_what_the_first_computed(folder, tmp_path):
    original, checkpoint = loaded(0), loaded(1)
    file = write_rows(tmp_path / "tiny.jsonl", tiny_rows(8))
    first = accuracy.cached_evaluate(checkpoint, original, file)
    assert first.accuracy == accuracy.evaluate(checkpoint.model, checkpoint.tokenizer, file)
    texts, description = accuracy.task_texts(file)
    assert first.fidelity == accuracy.fidelity(
        original.model, checkpoint.model, checkpoint.tokenizer, texts, description
    )
    weightless = SimpleNamespace(sha256=checkpoint.sha256), SimpleNamespace(sha256=original.sha256)
    assert accuracy.cached_evaluate(*weightless, file) == first
    assert [path.suffix for path in folder.iterdir()] == [".json"]


def test_whatever_can_change_a_score_is_in_the_key(folder, tmp_path, monkeypatch):
    original, checkpoint = loaded(0), loaded(1)
    rows = tiny_rows(6)
    file = write_rows(tmp_path / "tiny.jsonl", rows)

    def stored(*arguments) -> int:
        accuracy.cached_evaluate(*arguments)
        return len(list(folder.iterdir()))

    assert stored(checkpoint, original, file) == 1
    assert stored(loaded(2), original, file) == 2
    assert stored(checkpoint, loaded(2), file) == 3
    assert stored(checkpoint, original, file, 4) == 4
    rows[5]["question"] += " w9"
    write_rows(file, rows)
    assert stored(checkpoint, original, file) == 5
    monkeypatch.setattr(cache.metadata, "version", lambda name: "0.0.1")
    assert stored(checkpoint, original, file) == 6


@pytest.mark.parametrize("content", [b"", b'{"accuracy": []', b"{}", b"\xff"])
def test_a_damaged_file_is_made_again(folder, tmp_path, content):
    original, checkpoint = loaded(0), loaded(1)
    file = write_rows(tmp_path / "tiny.jsonl", tiny_rows(4))
    first = accuracy.cached_evaluate(checkpoint, original, file)
    (stored,) = folder.iterdir()
    good = stored.read_bytes()
    stored.write_bytes(content)
    assert accuracy.cached_evaluate(checkpoint, original, file) == first
    assert stored.read_bytes() == good


def test_an_interrupted_evaluation_leaves_nothing_behind(folder, tmp_path):
    file = write_rows(tmp_path / "tiny.jsonl", tiny_rows(4))

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        accuracy.cached_evaluate(loaded(1), loaded(0), file, progress=interrupt)
    assert not folder.exists() or not list(folder.iterdir())

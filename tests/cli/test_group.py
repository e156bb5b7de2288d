"""The command group: quick help, and failures as one sentence with an exit code."""

from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mpcbench import __version__
from mpcbench.cli import COMMANDS, LazyGroup
from mpcbench.errors import PeerError, UserError

HEAVY = (
    "torch",
    "transformers",
    "crypten",
    "lm_eval",
    "matplotlib",
    "pandas",
    "datasets",
    "pydantic",
    "numpy",
)


def mpcbench(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    command = [sys.executable, "-m", "mpcbench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, **settings)  # type: ignore[call-overload]


def failing(function: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> Result:
    """Run a group whose only command calls ``function``."""

    @click.command()
    def command() -> None:
        function()

    monkeypatch.setattr(LazyGroup, "get_command", lambda group, context, name: command)
    return CliRunner().invoke(LazyGroup("mpcbench"), ["any"])


def raiser(error: BaseException, cause: BaseException | None = None) -> Callable[[], None]:
    def raises() -> None:
        raise error from cause

    return raises


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mpcbench.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("LOADED []\n"), done.stdout + done.stderr
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_has_help_and_stays_light(name: str) -> None:
    code = (
        "import sys; from mpcbench.cli import main\n"
        f"main([{name!r}, '--help'], standalone_mode=False)\n"
        f"print('LOADED', [name for name in {HEAVY[:4]!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("LOADED []\n"), done.stdout + done.stderr
    assert isinstance(importlib.import_module(f"mpcbench.cli.{name}").command, click.Command)


def test_version() -> None:
    assert mpcbench("--version").stdout == f"mpcbench, version {__version__}\n"


def test_unknown_command_is_refused_by_name() -> None:
    done = mpcbench("comparre")
    assert done.returncode == 2
    assert "No such command 'comparre'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_module_that_is_no_command_cannot_be_called() -> None:
    assert mpcbench("errors").returncode == 2


@pytest.mark.parametrize(
    ("error", "code"), [(UserError("layer 31 is out of range"), 1), (PeerError("party 1 died"), 3)]
)
def test_user_errors_are_one_sentence(error: UserError, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    result = failing(raiser(error), monkeypatch)
    assert (result.exit_code, result.stderr, result.stdout) == (code, f"mpcbench: {error}\n", "")


def test_interruption_says_that_what_was_measured_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    result = failing(raiser(KeyboardInterrupt()), monkeypatch)
    assert result.exit_code == 130
    assert "every finished measurement is kept" in result.stderr


def test_full_disk_names_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "results/a.json")
    result = failing(raiser(full), monkeypatch)
    assert result.exit_code == 1
    assert result.stderr.startswith("mpcbench: no space left on the disk (results/a.json): free some")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RuntimeError("save failed"), OSError(errno.ENOSPC, "No space left on device", "shares")),
        (RuntimeError("I/O error: No space left on device (os error 28)"), None),
    ],
)
def test_full_disk_inside_the_error_of_a_library(
    error: Exception, cause: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = failing(raiser(error, cause), monkeypatch)
    assert result.exit_code == 1
    assert "no space left on the disk" in result.stderr


def test_missing_permission_names_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", "/results")
    result = failing(raiser(denied), monkeypatch)
    assert result.exit_code == 1
    assert result.stderr.startswith("mpcbench: permission denied (/results)")


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    result = failing(raiser(ZeroDivisionError()), monkeypatch)
    assert isinstance(result.exception, ZeroDivisionError)
    missing = failing(raiser(FileNotFoundError(errno.ENOENT, "No such file", "x")), monkeypatch)
    assert isinstance(missing.exception, FileNotFoundError)


def test_a_reader_that_went_away_is_no_failure_worth_words() -> None:
    code = (
        "import click; from mpcbench.cli import LazyGroup\n"
        "command = click.command()(lambda: [click.echo('x' * 1000) for _ in range(1000)])\n"
        "LazyGroup.get_command = lambda self, context, name: command\n"
        "LazyGroup('mpcbench')(['any'])"
    )
    command = f'{sys.executable} -c "$CODE" | head -c 10; echo " ${{PIPESTATUS[0]}}"'
    environment = {**os.environ, "CODE": code}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr) == ("xxxxxxxxxx 141\n", "")


def test_a_lost_connection_is_not_taken_for_a_lost_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    result = failing(raiser(BrokenPipeError(errno.EPIPE, "Broken pipe")), monkeypatch)
    assert result.exit_code == PeerError.exit_code
    assert "closed from the other end" in result.stderr


def test_doctor_reports_as_json_and_says_ready(tmp_path: Path) -> None:
    environment = {**os.environ, "MPCBENCH_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = mpcbench("doctor", "--json", env=environment)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert {"python", "torch", "crypten", "transformers", "lm-eval", "memory", "loopback TCP"} <= set(rows)
    missing = [name for name, row in rows.items() if row["state"] == "missing"]
    assert (missing, done.returncode) == ([], 0)
    assert rows["default model"]["state"] == "note", "an empty cache holds no model"
    assert rows["Hugging Face Hub"]["state"] == "note", "offline mode was asked for"
    assert all(row["advice"] for row in rows.values() if row["state"] != "ok")


def test_doctor_fails_and_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpcbench.cli import checks, doctor

    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path / "file"))
    row = checks._disk("disk for the cache", checks._cache_dir(), checks.CACHE_NEEDED, "set MPCBENCH_CACHE")
    assert (row.state, "set MPCBENCH_CACHE" in row.advice) == ("missing", True)
    monkeypatch.setattr(checks, "run_checks", lambda: iter([row]))
    result = CliRunner().invoke(doctor.command)
    assert result.exit_code == 1
    assert "Missing: disk for the cache." in result.stdout


def test_doctor_sees_a_package_that_does_not_import() -> None:
    from mpcbench.cli import checks

    def broken() -> str:
        raise OSError("libtorch.so: cannot open shared object file\nand more")

    row = checks._package("click", None, broken)
    assert row.state == "missing"
    assert row.found.endswith("does not import: OSError: libtorch.so: cannot open shared object file")
    assert checks._package("no-such-package", None, broken).found == "not installed"

"""Full disks and half-written files under the commands that write and read records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mpcbench.cli.compare import _report
from mpcbench.pipeline.sweep_ray import _existing
from mpcbench.records.schema import Record
from mpcbench.records.store import read_folder, write
from tests.cli.test_commands import mpcbench, refused
from tests.disks import small_disk
from tests.records.factory import make_record
from tests.report.texts import with_text
from tests.tiny import tiny_folder, tiny_texts

PROMPT = "w5 w9 w33 w60"
COMMANDS = {"run": make_record(8), "generate": with_text(make_record(8), equal=True)}
"""Commands that measure once, and what they are to have measured."""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What follows a command's name: a tiny model, and data that need no network."""
    monkeypatch.setenv("MPCBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "words.txt").write_text("\n".join(tiny_texts(48)))
    tiny = tiny_folder(tmp_path / "tiny")
    return [tiny, "--prompt", PROMPT, "--calibration-data", tmp_path / "words.txt", "--results"]


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``measuring(record, meanwhile)``: a run ends with this record at once, after ``meanwhile()``."""

    def install(record: Record, meanwhile: Callable[[], None] = lambda: None) -> None:
        def run(*_: object) -> Record:
            meanwhile()
            return record

        monkeypatch.setattr("mpcbench.pipeline.single.export_and_run", run)

    return install


@pytest.mark.parametrize("command", COMMANDS)
def test_a_disk_that_fills_up_during_a_run(
    command: str, job: list[object], measuring: Callable[..., None], tmp_path: Path
) -> None:
    """One sentence, no half, the record before it as it was, and the numbers on the screen."""
    with small_disk(tmp_path / "disk") as disk:
        earlier = write(make_record(0), disk.folder)
        before = earlier.read_bytes()
        measuring(COMMANDS[command], disk.fill)
        result = mpcbench(command, *job, disk.folder)
        assert result.exit_code == 1 and "Traceback" not in result.output
        assert "protocol crypten" in result.stdout
        (sentence,) = [line for line in result.stderr.splitlines() if line.startswith("mpcbench: ")]
        assert f"cannot write the record {disk.folder}" in sentence and "No space left" in sentence
        assert disk.names() == {earlier.name} and earlier.read_bytes() == before


@pytest.mark.parametrize("command", [*COMMANDS, "compare"])
def test_a_full_disk_is_noticed_before_anything_is_measured(
    command: str, job: list[object], measuring: Callable[..., None], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        measuring(make_record(8), lambda: pytest.fail("it was measured"))
        job = ["--model", *job] if command == "compare" else job
        sentence = refused(command, *job, disk.folder)
        assert sentence.startswith(f"mpcbench: Cannot write to {disk.folder} (No space left on device): choo")
        assert disk.names() == set()


def _half(folder: Path, record: Record) -> Path:
    """A record of which the first thousand bytes have been written."""
    path = write(record, folder)
    path.write_bytes(path.read_bytes()[:1000])
    return path


def test_a_text_is_shown_beside_a_half_written_record(
    job: list[object], measuring: Callable[..., None], tmp_path: Path
) -> None:
    damaged = _half(tmp_path / "texts", make_record(0))
    measuring(COMMANDS["generate"])
    result = mpcbench("generate", *job, tmp_path / "texts")
    assert result.exit_code == 0, result.output
    assert "Paris" in result.stdout
    assert f"passed over: {damaged} is not a record" in result.stderr
    assert damaged.stat().st_size == 1000
    damaged.unlink()
    assert read_folder(tmp_path / "texts") == [COMMANDS["generate"]]


def test_plot_names_a_half_written_record_and_draws_nothing(tmp_path: Path) -> None:
    whole = write(make_record(0), tmp_path / "records")
    damaged = _half(tmp_path / "records", make_record(8))
    before = whole.read_bytes()
    sentence = refused("plot", tmp_path / "records")
    assert sentence.startswith(f"mpcbench: {damaged} is not a record: it is not valid JSON")
    assert "remove the file or move it away" in sentence
    assert {path.name for path in (tmp_path / "records").iterdir()} == {whole.name, damaged.name}
    assert whole.read_bytes() == before


def test_compare_passes_over_a_half_written_neighbour(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [make_record(0), make_record(8)]
    damaged = _half(tmp_path, make_record(8, link="lan"))
    write(make_record(0, link="lan"), tmp_path)
    _report(records, tmp_path, as_json=False)
    said = capsys.readouterr()
    assert "lan, measured" in said.out
    assert f"passed over: {damaged} is not a record" in said.err
    assert damaged.stat().st_size == 1000


def test_a_cluster_is_sent_the_whole_records(tmp_path: Path) -> None:
    damaged = _half(tmp_path, make_record(8))
    write(make_record(0), tmp_path)
    said: list[str] = []
    assert len(_existing(tmp_path, said.append)) == 1
    assert [words.startswith(f"passed over: {damaged} is") for words in said] == [True]

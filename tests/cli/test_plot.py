from __future__ import annotations

import json
import shutil
from pathlib import Path

from click.testing import CliRunner, Result

from mpcbench.cli import main
from mpcbench.records import store
from tests.records.factory import make_record


def _plot(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["plot", *map(str, arguments)])


def test_everything_is_drawn_from_records_alone(tmp_path: Path) -> None:
    for layers in (0, 8):
        store.write(make_record(layers), tmp_path / "records")
    done = _plot(tmp_path / "records", "--out", tmp_path / "paper")
    assert done.exit_code == 0, done.output
    assert "online traffic [MB]" in done.stdout
    assert "wrote" in done.stderr
    names = {path.name for path in (tmp_path / "paper").iterdir()}
    assert {"comparison.csv", "comparison.md", "comparison.tex", "online_bytes.pdf", "latency.png"} <= names
    shutil.rmtree(tmp_path / "paper")
    assert len(store.read_folder(tmp_path / "records")) == 2


def test_measurements_on_links_stand_beside_projections(tmp_path: Path) -> None:
    for layers, link in ((0, "loopback"), (8, "loopback"), (0, "wan")):
        store.write(make_record(layers, link=link), tmp_path)
    done = _plot(tmp_path)
    assert done.exit_code == 0, done.output
    assert "wan, measured" in done.stdout
    assert (tmp_path / "latency_links.png").exists()


def test_json_prints_the_records_alone(tmp_path: Path) -> None:
    path = store.write(make_record(8), tmp_path)
    done = _plot(path, "--json")
    records = json.loads(done.stdout)
    assert [len(record["model"]["polynomial_layers"]) for record in records] == [8]
    assert records[0]["ledger"]["online"]["bytes"] == make_record(8).ledger.online.bytes
    assert (tmp_path / "online_bytes.pdf").exists()  # beside the record, when no folder is named


def test_bad_input_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{}")
    for arguments, words in (
        ((tmp_path / "nowhere",), "nowhere"),
        ((tmp_path / "broken.json",), "schema_version"),
        ((tmp_path,), "no records in"),
    ):
        done = _plot(*arguments)
        assert done.exit_code == 1
        assert words in done.stderr
        assert "Traceback" not in done.output
        assert done.stdout == ""


def test_an_empty_folder_is_a_user_error(tmp_path: Path) -> None:
    done = _plot(tmp_path)
    assert done.exit_code == 1
    assert "no records in" in done.stderr

from __future__ import annotations

import errno
import json
import math
import os
import re
from pathlib import Path

import pytest

from mpcbench.errors import UserError
from mpcbench.records import store
from tests.records.factory import make_comparison, make_record

RESULTS = Path(__file__).parents[2] / "results"


def test_a_record_comes_back_as_it_went(tmp_path: Path) -> None:
    record = make_record(8, secure=True, next_token=' é"\n\ud800')
    path = store.write(record, tmp_path / "new" / "folder")
    assert store.read(path) == record
    assert path.name == f"smollm2-135m_crypten_l08_t16_{record.key[:8]}.json"
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_the_file_name_names_a_link_that_is_not_loopback() -> None:
    record = make_record(8, link="wan")
    assert store.file_name(record) == f"smollm2-135m_crypten_l08_t16_wan_{record.key[:8]}.json"


def test_the_file_name_of_a_folder_or_a_hub_id_is_its_last_part() -> None:
    record = make_record(model="HuggingFaceTB/SmolLM2-135M-Instruct", protocol="My protocol")
    assert store.file_name(record).startswith("smollm2-135m-instruct_my-protocol_l00_t16_")


def test_a_record_holds_its_graph_s_hash_and_ranges(tmp_path: Path) -> None:
    ranges = {f"layers_{layer}_mlp": {"gate": (0.0, 8.125), "gate_first": (0.5, 9.5)} for layer in range(9)}
    record = make_record().model_copy(update={"graph_sha256": "c" * 64, "ranges": ranges})
    path = store.write(record, tmp_path)
    assert store.read(path) == record
    lines = path.read_text().splitlines()
    assert len([line for line in lines if '"gate_first"' in line]) == len(ranges)


@pytest.mark.parametrize("folder", ["reference", "protocols"])
def test_old_records_have_neither(folder: str) -> None:
    records = store.read_folder(RESULTS / folder)
    assert records
    assert all(record.graph_sha256 is None and record.ranges is None for record in records)


def test_an_entry_takes_one_line(tmp_path: Path) -> None:
    record = make_record()
    lines = store.to_json(record).splitlines()
    assert len([line for line in lines if '"operator"' in line]) == len(record.ledger.online.entries)


def test_numbers_that_are_not_finite_survive_as_strict_json(tmp_path: Path) -> None:
    record = make_record()
    record.agreement.max_logit_error = math.nan
    record.agreement.mean_logit_error = math.inf
    path = store.write(record, tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(path.read_text(), parse_constant=refuse)
    again = store.read(path).agreement
    assert math.isnan(again.max_logit_error)
    assert again.mean_logit_error == math.inf


def test_several_records_are_a_json_list() -> None:
    records = make_comparison(0, 8)
    data = json.loads(store.to_json(records))
    assert [len(item["model"]["polynomial_layers"]) for item in data] == [0, 8]
    assert set(data[0]["ledger"]["online"]) == {"bytes", "bytes_sent", "rounds", "entries"}


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES])
def test_a_failing_disk_leaves_the_earlier_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    first = make_record(8)
    path = store.write(first, tmp_path)

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, step, fail)
    second = first.model_copy(update={"created": "later"})
    with pytest.raises(UserError) as caught:
        store.write(second, tmp_path)
    assert str(path) in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert store.read(path) == first
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_device_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(Path, "with_name", lambda self, name: Path("/dev/full"))
    monkeypatch.setattr(Path, "unlink", lambda self: None)
    with pytest.raises(UserError, match="No space left on device"):
        store.write(make_record(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write(make_record(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(UserError, match="results"):
        store.write(make_record(), tmp_path / "results")


def test_a_folder_reads_in_order_of_polynomial_layers(tmp_path: Path) -> None:
    for layers in (16, 0, 8):
        store.write(make_record(layers), tmp_path)
    (tmp_path / "comparison.csv").write_text("not a record")
    (tmp_path / ".half.json.part").write_text("{")
    read = store.read_folder(tmp_path)
    assert [len(record.model.polynomial_layers) for record in read] == [0, 8, 16]


def test_a_missing_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        store.read_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"nowhere\.json: No such file"):
        store.read(tmp_path / "nowhere.json")


def _broken(tmp_path: Path, change) -> Path:
    data = json.loads(store.to_json(make_record(8)))
    change(data)
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda d: d.pop("schema_version"), "schema_version"),
        (lambda d: d.update(schema_version=2), "schema_version is 2, this mpcbench reads 1; update mpcbench"),
        (lambda d: d.update(schema_version="one"), "schema_version is 'one'"),
        (lambda d: d["model"].pop("sha256"), r"field model\.sha256: Field required"),
        (lambda d: d["latency"].update(median_seconds=-1), r"field latency\.median_seconds"),
        (
            lambda d: d["ledger"]["online"]["entries"][3].update(rounds="x"),
            r"ledger\.online\.entries\.3\.rounds",
        ),
        (lambda d: d["ledger"]["online"]["entries"].pop(), r"ledger\.online\.bytes_sent .* add up to"),
        (lambda d: d["ledger"]["online"].update(rounds=1), r"ledger\.online\.rounds is 1, but its entries"),
        (lambda d: d.update(surprise=1), "field surprise: Extra inputs"),
    ],
)
def test_a_broken_record_is_refused_with_its_file_and_field(tmp_path: Path, change, field: str) -> None:
    path = _broken(tmp_path, change)
    with pytest.raises(UserError, match=field) as caught:
        store.read(path)
    assert str(path) in str(caught.value)
    if isinstance(caught.value, store.NoRecord):
        assert store.read_folder(tmp_path) == []  # for all we know it is something else
    else:
        with pytest.raises(UserError, match=r"broken\.json"):
            store.read_folder(tmp_path)


def test_a_half_written_file_hides_no_whole_one_and_none_is_touched(tmp_path: Path) -> None:
    paths = [store.write(make_record(layers), tmp_path) for layers in (0, 8)]
    whole = paths[0].read_bytes()
    paths[1].write_bytes(paths[1].read_bytes()[:1000])
    (tmp_path / "benchmarks.json").write_text("{}")  # of something else
    records, (sentence,) = store.readable(tmp_path)
    assert records == [make_record(0)]
    assert re.fullmatch(r"\S+_l08_\S+\.json is not a record: .*; remove the file or move it away.*", sentence)
    assert paths[0].read_bytes() == whole and paths[1].stat().st_size == 1000
    assert store.readable(tmp_path / "nowhere") == ([], [])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"3"])
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"odd\.json is not a record"):
        store.read(path)

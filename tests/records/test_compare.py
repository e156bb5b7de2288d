from __future__ import annotations

from pathlib import Path

import pytest

from mpcbench.errors import UserError
from mpcbench.records import store
from mpcbench.records.compare import check_comparable, load_for_report, remarks
from mpcbench.records.schema import Record
from tests.records.factory import make_comparison, make_record


def test_records_that_differ_in_their_polynomial_layers_alone_compare() -> None:
    check_comparable(make_comparison(0, 8, 16))
    check_comparable([])


def _party_threads(record: Record) -> None:
    record.parties[1].threads = 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: setattr(r.model, "sha256", "d" * 64), f"model.sha256 is '{'a' * 64}' .* '{'d' * 64}'"),
        (
            lambda r: setattr(r.workload, "tokens", 32),
            "workload.tokens is 16 with 0 .* and 32 with 8 polynomial",
        ),
        (
            lambda r: setattr(r.workload, "prompt", "Hi"),
            "workload.prompt is 'The capital of France is' .* 'Hi'",
        ),
        (lambda r: setattr(r.workload, "embedding", "client"), "workload.embedding is 'private' .* 'client'"),
        (lambda r: setattr(r.protocol, "sha256", "other"), "protocol.sha256 differs .* versions of protocol"),
        (lambda r: setattr(r.protocol, "fraction_bits", 14), "protocol.fraction_bits is 16 .* 14"),
        (lambda r: setattr(r.link, "profile", "wan"), "link.profile is 'loopback' .* 'wan'"),
        (
            lambda r: setattr(r.parties[0], "device", "cuda"),
            r"parties.device is \['cpu', 'cpu'\] .* \['cuda'",
        ),
        (_party_threads, r"parties.threads is \[1, 1\] .* \[1, 4\]"),
    ],
)
def test_a_difference_that_matters_is_refused_by_name(change, message: str) -> None:
    records = make_comparison(0, 8)
    change(records[1])
    with pytest.raises(UserError, match=message):
        check_comparable(records)


def test_soft_differences_are_remarks() -> None:
    records = make_comparison(0, 8, notes=("0.3 truncation failures expected",))
    assert remarks(records) == ["0.3 truncation failures expected"]
    records[1].environment.cpu = "another CPU"
    records[1].environment.versions["torch"] = "2.12.0"
    records[1].environment.git_dirty = True
    found = " ".join(remarks(records))
    assert "differ in cpu: a CPU, another CPU." in found
    assert "differ in torch: 2.13.0, 2.12.0." in found
    assert "not committed" in found


def test_the_degree_of_a_model_without_polynomials_is_no_difference() -> None:
    assert remarks(make_comparison(0, 8)) == []


def test_folders_and_files_load_once_each_in_order(tmp_path: Path) -> None:
    paths = [store.write(make_record(n), tmp_path) for n in (16, 0)]
    other = store.write(make_record(8), tmp_path / "other")
    loaded, elsewhere = load_for_report([other, tmp_path, paths[0]])
    assert [len(record.model.polynomial_layers) for record in loaded] == [0, 8, 16]
    assert elsewhere == []


def test_the_same_runs_on_other_links_are_loaded_apart(tmp_path: Path) -> None:
    for layers in (0, 8):
        store.write(make_record(layers), tmp_path)
    store.write(make_record(0, link="wan"), tmp_path)
    loaded, elsewhere = load_for_report([tmp_path])
    assert [record.link.profile for record in loaded] == ["loopback", "loopback"]
    assert [record.link.profile for record in elsewhere] == ["wan"]
    store.write(make_record(16, link="wan"), tmp_path)  # which nothing on loopback is like
    with pytest.raises(UserError, match=r"link\.profile"):
        load_for_report([tmp_path])


def test_one_link_alone_is_what_the_report_is_of(tmp_path: Path) -> None:
    store.write(make_record(0, link="wan"), tmp_path)
    loaded, elsewhere = load_for_report([tmp_path])
    assert ([record.link.profile for record in loaded], elsewhere) == (["wan"], [])


def test_nothing_to_load_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no records in .*compare` writes them"):
        load_for_report([tmp_path])


def test_what_does_not_belong_together_is_refused_when_loaded(tmp_path: Path) -> None:
    store.write(make_record(0), tmp_path)
    store.write(make_record(8, tokens=32), tmp_path)
    with pytest.raises(UserError, match=r"workload\.tokens"):
        load_for_report([tmp_path])

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mpcbench.errors import UserError
from mpcbench.parties.network import load_link
from mpcbench.pipeline.compare import check_counts
from mpcbench.pipeline.compare import compare as _compare
from mpcbench.progress import silent
from mpcbench.records.store import read, read_folder
from mpcbench.secure.protocol import load_protocol
from tests.disks import small_disk
from tests.pipeline.conftest import changed


def compare(plan, original):
    return _compare(plan, original, silent)


def test_a_record_for_every_count_in_the_order_asked(plan, original, runs):
    records = compare(plan, original)
    assert [len(record.model.polynomial_layers) for record in records] == [0, 2]
    assert [len(layers) for layers in runs.layers] == [0, 2]
    assert {record.run_id for record in read_folder(plan.results)} == {record.run_id for record in records}
    assert all(record.accuracy[0].n == 12 for record in records)


def test_what_is_there_is_not_measured_again(plan, original, runs):
    first = compare(plan, original)
    said = []
    again = _compare(replace(plan, layers=[2, 0, 1]), original, silent, said.append)
    before = [words for words in said if words.endswith("recorded before: crypten, 7 tokens")]
    assert [words.partition(" ")[0] for words in before] == ["2", "0"]
    assert [len(layers) for layers in runs.layers] == [0, 2, 1]
    assert again[:2] == [first[1], first[0]]


def test_a_half_written_record_is_measured_again_and_said_to_be(plan, original, runs):
    compare(plan, original)
    damaged, whole = (next(plan.results.glob(f"*_l{count}_*.json")) for count in ("02", "00"))
    damaged.write_text(damaged.read_text()[:100])
    before = whole.read_bytes()
    said = []
    _compare(plan, original, silent, said.append)
    assert [len(layers) for layers in runs.layers] == [0, 2, 2]
    assert len(read(damaged).model.polynomial_layers) == 2 and whole.read_bytes() == before
    assert f"2 polynomial layers (2 of 2): {damaged} is no whole record: measured again" in said


def test_a_full_disk_costs_one_measurement_and_no_record(plan, original, runs, tmp_path):
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        plan = replace(plan, results=disk.folder)
        runs.before = lambda count: disk.fill() if count == 2 else None
        with pytest.raises(UserError, match=r"cannot write the record .*_l02_.*: No space left on device"):
            compare(plan, original)
        (kept,) = disk.names()  # and nothing half written
        first = read(disk.folder / kept)
        disk.free()
        runs.before = lambda count: None
        again = compare(plan, original)
        assert again[0] == first and len(read_folder(disk.folder)) == 2
        assert [len(layers) for layers in runs.layers] == [0, 2, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interruption_keeps_what_was_measured(plan, original, runs, error, tmp_path):
    def stop(count):
        if count == 2:
            raise error

    runs.before = stop
    with pytest.raises(error):
        compare(plan, original)
    assert [len(record.model.polynomial_layers) for record in read_folder(plan.results)] == [0]
    assert not list((tmp_path / "cache").glob("shares-*"))  # gigabytes for a large model
    runs.before = lambda count: None
    assert len(compare(plan, original)) == 2
    assert [len(layers) for layers in runs.layers] == [0, 2]


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [([0, 4], "give 0 to 3"), ([-1], "out of range"), ([1, 0, 1], "names 1 more than once")],
)
def test_impossible_counts_fail_before_anything_is_measured(plan, original, runs, counts, sentence):
    with pytest.raises(UserError, match=sentence):
        compare(replace(plan, layers=counts), original)
    assert runs.layers == [] and not plan.results.exists()


def test_the_last_count_may_be_all_layers():
    check_counts([0, 3], 3)


def test_malformed_questions_fail_before_anything_is_measured(plan, original, runs):
    plan.task_data.write_text("{}\n")
    with pytest.raises(UserError, match=r"tiny\.jsonl"):
        compare(plan, original)
    assert runs.layers == []


def test_a_key_tells_everything_apart_that_changes_a_measurement(plan):
    def key(changed_plan=plan, sha256="a", task=("arc", "1", None)):
        return changed_plan.settings.key(sha256, list(task))

    protocol = load_protocol("crypten")
    coarser = replace(protocol, settings={**protocol.settings, "summary": "coarser"})
    other_tokens = plan.settings.tokens.clone()
    other_tokens[0, 0] += 1
    keys = [
        key(), key(sha256="b"), key(task=("arc", "2", None)), key(task=("arc", "1", 5)),
        key(changed(plan, embedding="private")), key(changed(plan, repetitions=2)),
        key(changed(plan, network=load_link("wan"))), key(changed(plan, network=load_link("lan"))),
        key(changed(plan, warmups=1)), key(changed(plan, threads=2)), key(changed(plan, protocol=coarser)),
        key(changed(plan, tokens=other_tokens)), key(changed(plan, tokens=plan.settings.tokens[:, :-1])),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert key(changed(plan, tokens=torch.clone(plan.settings.tokens), rendezvous="127.0.0.1:5")) == key()

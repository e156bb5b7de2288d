"""Sweeps: the grid that a file describes, resumed cell by cell, and refused where it makes no sense."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from mpcbench.checkpoints import Checkpoint
from mpcbench.cli.workload import settings
from mpcbench.distill import Texts
from mpcbench.errors import UserError
from mpcbench.pipeline import memory
from mpcbench.pipeline.memory import check_memory, needed
from mpcbench.pipeline.sweep import Cell, Sweep, example, prompt, read_sweep, run, unmeasured
from mpcbench.pipeline.sweep_ray import run_on_ray
from mpcbench.progress import silent
from mpcbench.records.schema import Record
from mpcbench.records.store import CannotWrite, read_folder, write
from mpcbench.report.sweep import COLUMNS, row, write_sweep
from tests.accuracy.questions import tiny_rows, write_rows
from tests.disks import small_disk
from tests.pipeline.conftest import PROMPT, Runs
from tests.tiny import tiny_texts

MAKE = partial(settings, prompt=PROMPT, rendezvous="127.0.0.1:0")


@pytest.fixture
def sweep(original: Checkpoint, tmp_path: Path):
    """A sweep over the tiny Llama of what the test writes below ``model``."""
    questions = write_rows(tmp_path / "tiny.jsonl", tiny_rows())
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(tiny_texts()))

    def make(axes: str) -> Sweep:
        file = tmp_path / "sweep.yaml"
        shared = f"task_data: {questions}, calibration_data: {texts}, repetitions: 1, warmups: 0, threads: 1"
        file.write_text(f"model: {tmp_path / 'tiny'}\n{axes}\noptions: {{{shared}}}\n")
        return read_sweep(file, tmp_path / "results", MAKE)

    return make


def _run(plan: Sweep) -> tuple[list[Record], list[str]]:
    records: list[Record] = []
    return records, run(plan, silent, lambda text: None, records.append)


# The grid.


def test_the_example_is_a_grid_of_all_its_values(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(example())
    plan = read_sweep(file, tmp_path, MAKE)
    assert len(plan.cells) == 2 * 2 * 2 * 2
    assert plan.cells[0] == Cell("smollm2-135m", 0, "crypten-reuse", 16, "lan", 0)
    assert str(plan.cells[-1]) == "smollm2-135m with 16 polynomial layers, frontier, 32 tokens, wan, seed 0"


def test_cells_of_one_checkpoint_follow_one_another(sweep) -> None:
    plan = sweep("layers: [0, 2]\nprotocol: [crypten, frontier]\ntokens: [4, 6, 4]")
    assert [(cell.layers, cell.protocol, cell.tokens) for cell in plan.cells] == [
        (layers, protocol, tokens)
        for layers in (0, 2) for protocol in ("crypten", "frontier") for tokens in (4, 6)
    ]  # fmt: skip


WRONG = {
    "axis": ("protocols: [crypten]", "'protocols' is no axis: choose model, layers, protocol, tokens, link"),
    "option": ("options: {degre: 2}", r"options\.degre is unknown: options are degree, placement"),
    "number": ("tokens: [many]", r"tokens\.0: .*\(found 'many'\)"),
    "protocol": ("protocol: crypton", "There is no protocol crypton: choose"),
    "link": ("link: [lan, moon]", "There is no link moon: choose"),
    "empty": ("layers: []", "layers: "),
    "a list": ("- crypten", "describes no sweep"),
    "YAML": ("model: [", "is not valid YAML"),
    "twice": ("layers: 0\nlayers: 8", "is not valid YAML, line 2: 'layers' stands there for the second time"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_makes_no_sense_is_refused_in_one_sentence(case: str, tmp_path: Path) -> None:
    text, expected = WRONG[case]
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        read_sweep(file, tmp_path, MAKE)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Cannot read .*No such file"):
        read_sweep(tmp_path / "no.yaml", tmp_path, MAKE)


def test_a_seed_draws_a_prompt_that_is_long_enough() -> None:
    texts = Texts.of(tiny_texts(), "random words")
    drawn = [prompt(texts, seed, 50) for seed in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert all(len(words.split()) >= 50 for words in drawn)


def test_a_model_that_does_not_fit_is_refused_with_the_numbers() -> None:
    models = {"small": 134_515_008, "llama-2-7b": 6_738_415_616}
    with pytest.raises(UserError) as caught:
        check_memory(models, free=64e9)
    assert str(caught.value).startswith("llama-2-7b has 6,738 million parameters, which take 554.1 GB")
    assert "64.0 GB of memory are free" in str(caught.value)
    check_memory(models, free=needed(6_738_415_616))


# Running it.


def test_cells_that_have_a_record_need_no_memory_any_more(sweep, runs: Runs) -> None:
    plan = sweep("layers: [0, 2]\nprotocol: crypten\ntokens: [4, 6]\nlink: [loopback, lan]")
    assert unmeasured(plan) == list(plan.cells)
    records, _ = _run(plan)
    for record, cell in list(zip(records, plan.cells, strict=True))[:3]:
        workload = record.workload.model_copy(update={"tokens": cell.tokens, "seed": cell.seed})
        link = record.link.model_copy(update={"profile": cell.link})
        write(record.model_copy(update={"workload": workload, "link": link}), plan.results)
    (plan.results / "half.json").write_text("{")
    assert unmeasured(plan) == list(plan.cells[3:])


def test_every_cell_becomes_a_record_and_is_not_measured_again(sweep, runs: Runs) -> None:
    plan = sweep("layers: [0, 2]\nprotocol: [crypten, frontier]\ntokens: [4, 6]\nlink: [loopback, lan]")
    records, failures = _run(plan)
    assert (len(records), failures) == (16, [])
    assert len({record.key for record in read_folder(plan.results)}) == len(runs.layers) == 16
    again, _ = _run(plan)
    assert {record.key for record in again} == {record.key for record in records}
    assert len(runs.layers) == 16


def test_an_interrupted_sweep_keeps_what_it_has(sweep, runs: Runs) -> None:
    plan = sweep("layers: [0, 2]\ntokens: [4, 6]")

    def stop(count: int) -> None:
        if count == 2:
            raise KeyboardInterrupt

    runs.before = stop
    with pytest.raises(KeyboardInterrupt):
        _run(plan)
    assert len(read_folder(plan.results)) == 2
    runs.before = lambda count: None
    assert len(_run(plan)[0]) == 4
    assert len(runs.layers) == 4


def test_a_checkpoint_that_fails_does_not_stop_the_others(sweep, runs: Runs) -> None:
    records, failures = _run(sweep("layers: [0, 9, 2]"))
    assert len(records) == 2
    assert len(failures) == 1 and "--layers 9 is out of range" in failures[0]


def test_a_full_disk_stops_the_sweep(sweep, runs: Runs, tmp_path: Path) -> None:
    """Whatever else is measured would be lost; what is there stays, and the sweep goes on from it."""
    plan = sweep("layers: [0, 1, 2, 3]")
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        plan = replace(plan, results=disk.folder)
        runs.before = lambda count: disk.fill() if count == 1 else None
        with pytest.raises(CannotWrite, match="No space left on device"):
            _run(plan)
        assert [len(layers) for layers in runs.layers] == [0, 1] and len(disk.names()) == 1
        disk.free()
        runs.before = lambda count: None
        assert len(_run(plan)[0]) == 4
        assert [len(layers) for layers in runs.layers] == [0, 1, 1, 2, 3]


def test_two_parties_measure_what_the_cell_says(sweep) -> None:
    plan = sweep("protocol: crypten\ntokens: [4, 6]\nlink: lan\nseed: 3")
    records, failures = _run(plan)
    assert not failures
    assert [record.workload.tokens for record in records] == [4, 6]
    for record in records:
        assert (record.link.profile, record.link.backend, record.workload.seed) == ("lan", "transport", 3)
        assert record.protocol.provider == "dealer"
        assert record.accuracy[0].n == 12
    cells = row(records[0])
    assert dict(zip(COLUMNS, cells, strict=True))["link"] == "lan"
    assert len(write_sweep(records, plan.results).read_text().splitlines()) == 3


# Ray.


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's workers import this mpcbench; how much memory happens to be free does not matter."""
    pytest.importorskip("ray")
    paths = [os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setattr(memory, "PROGRAMS", 1e6)


@pytest.mark.usefixtures("ray")
def test_ray_measures_the_same_cells_once(sweep) -> None:
    plan = sweep("protocol: crypten\ntokens: [4, 6]\nlayers: [0, 2]")
    for _ in range(2):
        records: list[Record] = []
        said: list[str] = []
        failures = run_on_ray(plan, "local", {plan.cells[0].model: 5000}, said.append, records.append)
        assert (failures, said) == ([], [])
        found = {(len(r.model.polynomial_layers), r.workload.tokens): r.run_id for r in records}
        assert set(found) == {(0, 4), (0, 6), (2, 4), (2, 6)}
        assert {record.run_id for record in read_folder(plan.results)} == set(found.values())
    assert all(record.accuracy for record in records)


@pytest.mark.usefixtures("ray")
def test_ray_without_a_machine_that_is_large_enough(sweep) -> None:
    plan = sweep("tokens: 4")
    with pytest.raises(UserError, match="are free on any machine of the cluster"):
        run_on_ray(plan, "local", {plan.cells[0].model: 10**12}, lambda text: None, lambda record: None)


class SlowRay:
    """Starts at the attempt of this number, and before it fails as Ray does on a busy machine."""

    def __init__(self, attempt: int):
        self.left, self.asked = attempt, []

    def init(self, **how: object) -> None:
        self.asked.append(how["address"])
        self.left -= 1
        if self.left:
            raise Exception("The current node timed out during startup. This could happen\nfor a reason.")

    def shutdown(self) -> None:
        self.asked.append("shutdown")

    def nodes(self) -> list[dict]:
        return [
            {"Alive": True, "Resources": {"memory": 5e6}},
            {"Alive": False, "Resources": {"memory": 1e12}},
        ]


def test_ray_that_starts_slowly_gets_a_second_chance(sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowRay(attempt=2)
    monkeypatch.setitem(sys.modules, "ray", slow)
    plan = sweep("tokens: 4")
    with pytest.raises(UserError, match=r"0\.0 GB of memory are free on any machine of the cluster"):
        run_on_ray(plan, "local", {plan.cells[0].model: 10**12}, lambda text: None, lambda record: None)
    assert slow.asked == ["local", "shutdown", "local", "shutdown"]


@pytest.mark.parametrize(
    ("address", "sentence"),
    [("local", "Ray does not start here (The current node timed out during startup. This could happen)"),
     ("auto", "There is no Ray cluster at auto (The current node timed out"),
     ("127.0.0.1:1", "There is no Ray cluster at 127.0.0.1:1 ([Errno 111] Connection refused): start one"),
     ("ray://127.0.0.1:1", "There is no Ray cluster at ray://127.0.0.1:1 ([Errno 111] Connection refused")],
)  # fmt: skip
def test_ray_that_does_not_start_is_one_sentence(
    address: str, sentence: str, sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", SlowRay(attempt=9))
    with pytest.raises(UserError) as caught:
        run_on_ray(sweep("tokens: 4"), address, {}, lambda text: None, lambda record: None)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)

"""Randomness made ahead of time, from the command that makes it to runs that use it up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mpcbench.distill import Texts
from mpcbench.errors import UserError
from mpcbench.parties.launcher import LocalRun, run_here
from mpcbench.parties.result import merge_latency, merge_ledgers, merge_storage
from mpcbench.pipeline.export import export
from mpcbench.records.schema import REPETITION
from tests.parties.conftest import TOKENS, Exported
from tests.parties.processes import start
from tests.tiny import tiny_texts


def _preprocess(shares: Path, out: Path, protocol: str, *options: str) -> tuple[int, str, str]:
    command = ["mpcbench", "preprocess", str(shares), "--out", str(out), "--protocol", protocol, *options]
    with start(*command) as process:
        output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def _run(exported: Exported, material: Path | None, protocol: str, **changes: object) -> LocalRun:
    usual = {"repetitions": 1, "warmups": 0, "threads": 1, "material": material}
    return LocalRun(exported.client, protocol, TOKENS, **{**usual, **changes})


@pytest.mark.parametrize("protocol", ["crypten", "frontier"])
def test_a_run_without_a_dealer(exported: Exported, tmp_path: Path, protocol: str) -> None:
    """The same as with one, and each inference is used up; what is left does not do for another run."""
    out = tmp_path / "made"
    code, printed, errors = _preprocess(
        exported.client, out, protocol, "--tokens", str(TOKENS.shape[1]), "--inferences", "3", "--json"
    )
    assert code == 0, errors
    rows = json.loads(printed)
    made = run_here(_run(exported, out, protocol, repetitions=1, warmups=1))
    dealt = run_here(_run(exported, None, protocol))
    assert (made.logits - exported.logits()).abs().max() < 0.05
    ledgers = [merge_ledgers(outcome.results) for outcome in (made, dealt)]
    planned = [_planned(ledger) for ledger in ledgers]
    assert planned[0] == planned[1] and planned[0]["offline"][0] == 0 < planned[0]["offline"][1]
    storage = merge_storage(made.results)
    assert storage.inference_bytes == tuple(row["inference_bytes"] for row in rows)
    assert storage.inference_bytes[1] > ledgers[0].offline.bytes_sent[1]
    assert merge_storage(dealt.results) is None
    assert all(seconds > 0 for seconds in merge_latency(made.results).dealer_seconds)

    with pytest.raises(UserError, match=r"left for 1 inferences and this run has 2, .* used twice"):
        run_here(_run(exported, out, protocol, repetitions=2))
    assert len(list((out / "party1").glob("inference-*.bin"))) == 1


def test_several_runs_open_the_rows_of_a_prefix_anew(exported: Exported, tmp_path: Path) -> None:
    """All under the masks of the set-up that the material of every inference was made for."""
    shares, out = tmp_path / "shares", tmp_path / "made"
    export(exported.checkpoint, shares, "client", 16, Texts(tiny_texts(), "test", "0"), prefix=TOKENS[:, :2])
    options = ("--tokens", str(TOKENS.shape[1]), "--inferences", "2", "--json")
    code, _, errors = _preprocess(shares, out, "frontier", *options)
    assert code == 0, errors
    runs = [
        run_here(LocalRun(shares, "frontier", TOKENS, repetitions=1, warmups=0, threads=1, material=material))
        for material in (out, out, None)
    ]
    for run in runs[:2]:
        assert (run.logits - runs[2].logits).abs().max() < 0.05


def _planned(ledger) -> dict[str, list[int]]:
    """Bytes sent by phase, without openings that happened to be made again."""
    phases = {"offline": ledger.offline, "online": ledger.online}
    return {
        phase: [sum(e.bytes_sent[rank] for e in part.entries if e.operator != REPETITION) for rank in (0, 1)]
        for phase, part in phases.items()
    }


def test_material_for_another_run_is_refused(exported: Exported, tmp_path: Path) -> None:
    out = tmp_path / "made"
    for options in (("--tokens", "6", "--inferences", "1"), ()):
        code, _, errors = _preprocess(exported.client, out, "crypten", *options)
        assert code == (0 if options else 2), errors
    with pytest.raises(UserError, match="was made for 6 tokens instead of 7: run mpcbench preprocess"):
        run_here(_run(exported, out, "crypten"))
    with pytest.raises(UserError, match="Material comes from a dealer and protocol crypten has another"):
        run_here(_run(exported, out, "crypten", provider="first-party"))
    with pytest.raises(UserError, match="There is no material in"):
        run_here(_run(exported, tmp_path / "nowhere", "crypten"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tokens", "4096", "--inferences", "1"), "The model takes 2 to"),
        (("--tokens", "7", "--inferences", "1", "--protocol", "nope"), "There is no protocol nope"),
    ],
)
def test_what_cannot_be_made(exported: Exported, tmp_path: Path, options: tuple, words: str) -> None:
    code, printed, errors = _preprocess(exported.client, tmp_path / "made", "crypten", *options)
    assert code == UserError.exit_code and printed == "" and "Traceback" not in errors
    assert words in errors and not (tmp_path / "made").exists()


def test_a_missing_graph(tmp_path: Path) -> None:
    made = ("--tokens", "7", "--inferences", "1")
    code, _, errors = _preprocess(tmp_path, tmp_path / "made", "crypten", *made)
    assert code == UserError.exit_code and "name a party's folder" in errors

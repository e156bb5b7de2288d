"""What parties cut locally in a whole run reaches their reports, alike at both."""

from __future__ import annotations

from pathlib import Path

from mpcbench.parties.launcher import LocalRun, run_here
from mpcbench.secure.protocol import available
from tests.parties.conftest import TOKENS, Exported


def test_unchecked_openings_of_a_run_are_in_both_reports(exported: Exported, tmp_path: Path) -> None:
    usual = available()["frontier"].read_text(encoding="utf-8")
    text = usual.replace("truncation: checked ", "truncation: local ", 1)
    assert text != usual
    (tmp_path / "unchecked.yaml").write_text(text, encoding="utf-8")
    run = LocalRun(
        exported.client, str(tmp_path / "unchecked.yaml"), TOKENS, repetitions=1, warmups=0, threads=1
    )
    outcome = run_here(run)
    assert (outcome.logits - exported.logits()).abs().max() < 0.05
    mine, theirs = (
        [(line.scope, line.cut_locally, line.cut_failures) for line in party.cuts()]
        for party in outcome.results
    )
    assert mine == theirs
    assert {scope[3] for scope, *_ in mine} == {"linear"}
    assert all(cut > 0 and 0 < failures < 1e-3 for _, cut, failures in mine)

"""What is wrong with a command's words is said before a model is fetched or loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_commands import refused

COMPARE = {
    "protocol": (["--protocol", "nowhere.yaml"], "There is no protocol nowhere.yaml"),
    "protocol twice": (["--protocol", "crypten,crypten"], "names something twice"),
    "provider": (["--provider", "nobody"], "--provider 'nobody' is unknown"),
    "network": (["--network", "moon"], "There is no link moon"),
    "questions": (["--task-data", "nowhere.jsonl"], "nowhere.jsonl"),
    "degree": (["--degree", "7"], "degree of 7 is not offered"),
    "adapters": (["--adapters", ".", "--calibrated"], "--calibrated takes no trained adapters"),
    "certificates": (["--insecure-no-tls"], "give --hosts, or leave them out"),
    "placement": (["--estimate", "--placement", "foo"], "placement 'foo' is none of"),
}


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load(name: str) -> None:
        raise AssertionError(f"{name} was loaded")

    monkeypatch.setattr("mpcbench.checkpoints.load", load)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", COMPARE)
def test_compare_refuses(name: str) -> None:
    options, sentence = COMPARE[name]
    assert sentence in refused("compare", *options)


@pytest.mark.parametrize("name", ["protocol", "network", "questions"])
def test_run_refuses(name: str) -> None:
    options, sentence = COMPARE[name]
    assert sentence in refused("run", "smollm2-135m", *options)


def test_records_that_are_not_there_are_not_taken_for_times() -> None:
    Path("empty").mkdir()
    assert "empty holds no records" in refused("estimate", "--model", "smollm2-135m", "--compute", "empty")


def test_a_study_without_such_a_run_is_refused() -> None:
    assert "no run x" in refused("study", "--run", "x")

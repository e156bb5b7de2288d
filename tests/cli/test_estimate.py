"""``mpcbench estimate`` and ``compare --estimate``: what a user types, sees, and is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mpcbench.cli import main
from tests.tiny import tiny_llama


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_llama(layers=3).config.save_pretrained(folder)
    return str(folder / "config.json")


def _call(*words: str):
    return CliRunner().invoke(main, list(words))


def test_table(config: str) -> None:
    called = _call("estimate", "--model", config, "--layers", "0,3", "--tokens", "7,9",
                   "--protocol", "crypten,frontier", "--network", "lan,wan")  # fmt: skip
    assert called.exit_code == 0, called.output
    for word in ("lan [s]", "wan [s]", "3 of 3", "frontier‡", "‡ Estimated", "assumed to be the medians"):
        assert word in called.output


def test_a_step_of_generation(config: str) -> None:
    words = ("estimate", "--model", config, "--tokens", "7,9", "--network", "lan", "--decode")
    called = _call(*words)
    assert called.exit_code == 0, called.output
    assert "1 after 7" in called.output and "one token of a text" in " ".join(called.output.split())
    lengths = [
        (r["workload"]["tokens"], r["workload"]["cached"]) for r in json.loads(_call(*words, "--json").stdout)
    ]
    assert lengths == [(1, 7), (1, 9)]
    refused = _call(*words, "--compute", config)
    assert refused.exit_code == 1 and "leave it out with --decode" in refused.stderr


def test_json_and_files(config: str, tmp_path: Path) -> None:
    called = _call("estimate", "--model", config, "--tokens", "7", "--json", "--out", str(tmp_path / "out"))
    (lan, wan) = json.loads(called.stdout)
    assert lan["kind"] == wan["kind"] == "estimated" and wan["link"]["asked_round_trip_seconds"] == 0.04
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["estimates.csv", "estimates.md"]
    assert "mpcbench" in (tmp_path / "out" / "estimates.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--network", "moon"], "There is no link moon"),
        (["--network", "lan,lan"], "names something twice"),
        (["--layers", "9"], "--layers 9 is out of range: the model has 3 layers"),
        (["--tokens", "1"], "this model takes 2 to 128 tokens"),
        (["--protocol", "none"], "There is no protocol none"),
        (["--shares", "nowhere"], "graph.json is missing"),
    ],
)
def test_mistakes_get_a_sentence(words: list[str], sentence: str, config: str) -> None:
    called = _call("estimate", "--model", config, *words)
    assert called.exit_code == 1
    assert called.stderr.startswith("mpcbench: ") and sentence in called.stderr
    assert "Traceback" not in called.output


def test_comparison_from_estimates(config: str, tmp_path: Path) -> None:
    called = _call("compare", "--estimate", "--model", config, "--layers", "0,2", "--tokens", "7",
                   "--protocol", "frontier", "--results", str(tmp_path))  # fmt: skip
    assert called.exit_code == 0, called.output
    assert "‡ Estimated" in called.output and "Estimated latency" in called.output
    names = {path.name for path in tmp_path.iterdir()}
    assert {"comparison.md", "comparison.tex", "online_bytes.pdf", "latency.png"} <= names
    assert len([name for name in names if name.endswith(".json")]) == 2

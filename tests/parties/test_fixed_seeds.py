"""Runs whose masks all follow from a number: the same bytes again, and a record that says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mpcbench.cli import LazyGroup
from mpcbench.errors import UserError
from mpcbench.parties.launcher import FIXED_SEEDS
from mpcbench.records.compare import load_for_report
from mpcbench.records.store import read_folder
from tests.parties.conftest import PROMPT, TOKENS, Exported
from tests.parties.recorded import Message, recorded_run


def _bytes(messages: list[Message]) -> list[tuple]:
    return [(message.sender, message.scope, message.body) for message in messages]


@pytest.mark.parametrize("protocol", ["crypten", "frontier"])
def test_the_same_number_sends_the_same_bytes(exported: Exported, tmp_path: Path, protocol: str) -> None:
    """Between all three processes, in every phase; another number, and none, send others."""
    received = [
        recorded_run(tmp_path / str(i), exported.client, protocol, TOKENS[0].tolist(), *words)
        for i, words in enumerate(((FIXED_SEEDS, "7"), (FIXED_SEEDS, "7"), (FIXED_SEEDS, "8"), ()))
    ]
    for role in ("party0", "party1"):
        first, again, other, free = (_bytes(run[role]) for run in received)
        assert first == again and len(first) > 20
        for different in (other, free):
            alike = [a[2] == b[2] for a, b in zip(first, different, strict=False) if len(a[2]) > 64]
            assert not any(alike)


def test_a_record_says_so_and_stands_beside_no_other(exported: Exported, tmp_path: Path) -> None:
    job = ["run", str(exported.checkpoint.folder), "--shares", str(exported.client), "--prompt", PROMPT]
    job += ["--repetitions", "1", "--warmups", "0", "--results", str(tmp_path)]
    for words in ([FIXED_SEEDS, "7"], []):
        done = CliRunner().invoke(LazyGroup("mpcbench"), [*job, *words])
        assert done.exit_code == 0, done.output
        assert ("nothing to publish" in done.stdout) == bool(words)
    fixed, free = sorted(read_folder(tmp_path), key=lambda record: record.insecure_fixed_seeds or 0)[::-1]
    assert (fixed.insecure_fixed_seeds, free.insecure_fixed_seeds) == (7, None)
    assert fixed.protocol.provider_is_secure and fixed.key != free.key
    assert "with fixed seeds, made of 7" in fixed.notes[0] and "operating system" in free.notes[0]
    with pytest.raises(UserError, match="insecure_fixed_seeds is"):
        load_for_report([tmp_path])


@pytest.mark.parametrize("command", ["run", "party", "dealer"])
def test_no_help_shows_the_option(command: str) -> None:
    shown = CliRunner().invoke(LazyGroup("mpcbench"), [command, "--help"])
    assert shown.exit_code == 0 and "fixed-seeds" not in shown.stdout

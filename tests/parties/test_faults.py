"""Whatever happens to one process of a run, the others end soon, and say whom and when it happened to."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mpcbench.errors import PeerError, UserError
from mpcbench.parties.party import STAGES
from tests.disks import small_disk
from tests.parties.conftest import TOKENS, Exported
from tests.parties.faults import NAMES, ROLES, faulty_run, started_run
from tests.parties.processes import port_is_free

LIMIT_SECONDS = 10


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens.safetensors"
    save_file({"tokens": TOKENS, "stop": torch.zeros(0, dtype=torch.long)}, path)
    return path


def _hit(shares: Path, tokens: Path, folder: Path, who: str, stage: str, number: signal.Signals) -> None:
    """One run; the survivors' ends are looked at here."""
    run, struck = faulty_run(folder, shares, tokens, who, stage, number)
    try:
        others = [role for role in ROLES if role != who]
        for role in others:
            run.processes[role].join(timeout=LIMIT_SECONDS + struck - time.monotonic())
            assert run.processes[role].exitcode == PeerError.exit_code, run.log(role)
        # A stage ends for one party a moment before it does for the other; a dealer is missed when it is
        # asked next.
        order = list(STAGES)
        later = order if who == "dealer" else order[order.index(stage) : order.index(stage) + 2]
        words = "|".join(STAGES[name] for name in later)
        for role in others:
            sentence = run.sentence(role)
            assert NAMES[who] in sentence, sentence
            if role != "dealer":
                assert re.search(words, sentence), sentence
            assert any(phase in sentence for phase in STAGES.values()), sentence
        run.end()
        assert all(port_is_free(port) for port in run.ports)
    finally:
        run.end()


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("who", ROLES)
def test_killed(exported: Exported, tokens: Path, tmp_path: Path, who: str, stage: str) -> None:
    _hit(exported.client, tokens, tmp_path, who, stage, signal.SIGKILL)


@pytest.mark.parametrize("stage", ["offline", "online"])
@pytest.mark.parametrize("who", ROLES)
def test_stopped(exported: Exported, tokens: Path, tmp_path: Path, who: str, stage: str) -> None:
    """Its kernel answers for it, but it sends no more heartbeats."""
    _hit(exported.client, tokens, tmp_path, who, stage, signal.SIGSTOP)


def test_a_full_disk_at_the_client_costs_the_record_alone(
    exported: Exported, tokens: Path, tmp_path: Path
) -> None:
    """The others have ended well by then, and the numbers are on the screen."""
    with small_disk(tmp_path / "disk") as disk:
        words = ("--results", str(disk.folder))
        run, _ = faulty_run(tmp_path, exported.client, tokens, "party1", "output", signal.SIGSTOP, *words)
        try:
            disk.fill()
            os.kill(run.processes["party1"].pid, signal.SIGCONT)
            for role in ROLES:
                run.processes[role].join(timeout=60)
            assert [run.processes[role].exitcode for role in ROLES] == [0, UserError.exit_code, 0]
            sentence = run.sentence("party1")
            assert sentence.startswith(f"cannot write the record {disk.folder}") and "No space" in sentence
            assert re.search(r"^online: .* MB by both parties", run.log("party1"), flags=re.MULTILINE)
            assert disk.names() == set()
        finally:
            run.end()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_flipped_bit_in_a_share_ends_all_three(
    exported: Exported, tokens: Path, tmp_path: Path, rank: int
) -> None:
    shares = shutil.copytree(exported.client, tmp_path / "shares")
    file = shares / f"party{rank}" / "shares.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 16
    file.write_bytes(content)
    run = started_run(tmp_path, shares, tokens)
    try:
        for role in ROLES:
            run.processes[role].join(timeout=60)
        codes = {role: run.processes[role].exitcode for role in ROLES}
        assert codes.pop(f"party{rank}") == UserError.exit_code
        assert set(codes.values()) == {PeerError.exit_code}
        for role in ROLES:
            assert "(shares.safetensors is damaged, its hash is not that of the export)" in run.sentence(role)
    finally:
        run.end()

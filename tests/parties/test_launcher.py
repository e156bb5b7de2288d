"""Both parties as processes: the result is right, and whatever happens to one of them, nothing is left."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from mpcbench.errors import PeerError, UserError
from mpcbench.parties.launcher import LocalRun, run_here
from mpcbench.parties.party import Outcome
from mpcbench.parties.result import merge_latency, merge_ledgers, merge_openings
from mpcbench.secure.meeting import listen
from tests.parties.conftest import TOKENS, Exported
from tests.parties.processes import all_gone, parties_of, port_is_free, port_of, start, wait_for

REPETITIONS, WARMUPS = 2, 1


def _local(shares: Path, **changes: object) -> LocalRun:
    usual = {"protocol": "crypten", "tokens": TOKENS, "repetitions": 1, "warmups": 0, "threads": 1,
             "provider": "first-party"}  # fmt: skip
    return LocalRun(shares, **{**usual, **changes})


# The result.


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def client(exported: Exported, steps: list) -> Outcome:
    run = _local(exported.client, repetitions=REPETITIONS, warmups=WARMUPS)
    return run_here(run, lambda *step: steps.append(step))


@pytest.fixture(scope="module")
def private(exported: Exported) -> Outcome:
    return run_here(_local(exported.private))


def test_dealer_gives_the_same_logits_and_its_traffic_is_offline(exported: Exported, client: Outcome) -> None:
    """Warm-up asks in line, the repetitions are dealt ahead: same traffic, none of it online."""
    dealt = run_here(_local(exported.client, repetitions=2, warmups=1, provider="dealer"))
    assert (dealt.logits - exported.logits()).abs().max() < 0.05
    ledger, without = merge_ledgers(dealt.results), merge_ledgers(client.results)
    assert (ledger.online.bytes, ledger.online.rounds) == (without.online.bytes, without.online.rounds)
    assert ledger.offline.bytes_sent[0] == 0 < ledger.offline.bytes_sent[1]
    assert without.offline.bytes == 0
    words = sum(sum(entry.tuples.values()) for entry in ledger.offline.entries)
    assert ledger.offline.bytes == 8 * words  # one correction a tuple, for CrypTen's kinds
    latency = merge_latency(dealt.results)
    assert all(seconds > 0 for seconds in latency.dealer_seconds)
    assert merge_latency(client.results).dealer_seconds == [0.0] * REPETITIONS


def test_dealer_that_is_missing_is_named(exported: Exported) -> None:
    """A party by hand without --dealer says what to do; so does one whose dealer never listens."""
    with listen("127.0.0.1", 0) as server:
        free = server.getsockname()[1]
    for options, expected in (
        ([], "start `mpcbench dealer`"),
        (["--dealer", f"127.0.0.1:{free}"], f"the dealer is not at 127.0.0.1:{free}"),
    ):
        command = ["mpcbench", "party", "--rank", "0", "--shares", str(exported.client / "party0"),
                   "--rendezvous", "127.0.0.1:0", "--provider", "dealer", "--wait", "1"]  # fmt: skip
        party = start(*command, *options)
        port = int(re.search(r":(\d+) for", party.stderr.readline())[1])
        with socket.create_connection(("127.0.0.1", port)):
            assert party.wait(timeout=30) in (UserError.exit_code, PeerError.exit_code)
        assert expected in party.stderr.read()
        party.stdout.close()
        party.stderr.close()


def test_client_gets_the_models_logits(exported: Exported, client: Outcome) -> None:
    expected = exported.logits()
    assert (client.logits - expected).abs().max() < 0.05
    assert client.logits.argmax() == expected.argmax()


def test_private_embedding_gives_the_same(exported: Exported, client: Outcome, private: Outcome) -> None:
    expected = exported.logits()
    assert (private.logits - expected).abs().max() < 0.05
    assert (private.logits - client.logits).abs().max() < 0.05
    assert private.logits.argmax() == expected.argmax()


def test_private_embedding_costs_one_more_product(client: Outcome, private: Outcome) -> None:
    ledgers = [merge_ledgers(outcome.results) for outcome in (client, private)]
    assert ledgers[1].online.rounds == ledgers[0].online.rounds + 1
    (entry,) = [entry for entry in ledgers[1].online.entries if entry.operator == "embedding"]
    rows, table = TOKENS.shape[1] * 64, 64 * 16
    assert entry.bytes_sent == (8 * (rows + table), 8 * (rows + table))


def test_ledger_agrees_with_the_wire(client: Outcome) -> None:
    ledger = merge_ledgers(client.results)
    for rank, result in enumerate(client.results):
        once = ledger.online.bytes_sent[rank] + ledger.offline.bytes_sent[rank]
        whole = ledger.setup.bytes_sent[rank] + (REPETITIONS + WARMUPS) * once
        assert result.payload_bytes_sent == whole
        assert result.other_bytes_sent > 8 << 20  # the probe of the bandwidth alone


def test_phases_are_apart(client: Outcome) -> None:
    ledger = merge_ledgers(client.results)
    assert (ledger.setup.bytes_sent, ledger.setup.rounds) == ((32, 32), 1)
    assert (ledger.offline.bytes, ledger.offline.rounds) == (0, 0)
    assert sum(sum(entry.tuples.values()) for entry in ledger.offline.entries) > 1000
    # Only the client learns the logits: 64 shares of 8 bytes, and none back.
    (output,) = [entry for entry in ledger.online.entries if entry.module == "output"]
    assert (output.bytes_sent, output.rounds) == ((512, 0), 1)


def test_latencies_are_of_every_repetition(client: Outcome) -> None:
    latency = merge_latency(client.results)
    assert len(latency.total_seconds) == len(latency.online_seconds) == REPETITIONS
    assert len(latency.warmup_total_seconds) == WARMUPS
    pairs = zip(latency.online_seconds, latency.total_seconds, strict=True)
    assert all(0 < online < total for online, total in pairs)
    assert all(seconds > 0 for seconds in latency.offline_seconds + latency.waiting_seconds)


def test_one_unmasked_opening_an_inference(client: Outcome, private: Outcome) -> None:
    for outcome in (client, private):
        assert merge_openings(outcome.results).unmasked == ["logits of the last position"]


def test_parties_say_who_they_are(client: Outcome) -> None:
    assert [(r.party.rank, r.party.role) for r in client.results] == [(0, "model owner"), (1, "client")]
    for result in client.results:
        assert result.party.threads == 1
        assert result.party.peak_memory_bytes > 50 << 20
        assert 0 < result.round_trip_seconds < 1
        assert result.bandwidth_bytes_per_second > 1e6


def test_progress_is_shown_up_to_the_whole(client: Outcome, steps: list) -> None:
    assert {what for what, _, _ in steps} == {"warm-up", "inference"}
    dones, totals = [done for _, done, _ in steps], {total for _, _, total in steps}
    assert dones == sorted(dones)
    assert len(totals) == 1
    assert dones[-1] == totals.pop()


# What a user may get wrong.


def _mixed(folder: Path, party0: Path, party1: Path) -> Path:
    folder.mkdir()
    for name, target in (("party0", party0), ("party1", party1)):
        (folder / name).symlink_to(target)
    return folder


def test_folders_of_the_wrong_parties(exported: Exported, tmp_path: Path) -> None:
    shares = _mixed(tmp_path / "swapped", exported.client / "party1", exported.client / "party0")
    with pytest.raises(UserError, match=r"^party \d .*holds the shares of party \d, not of party \d"):
        run_here(_local(shares))


@pytest.mark.parametrize(
    ("other", "words"), [("again", "different exports"), ("private", "different models")]
)
def test_folders_of_two_exports(exported: Exported, tmp_path: Path, other: str, words: str) -> None:
    shares = _mixed(tmp_path / "mixed", exported.client / "party0", getattr(exported, other) / "party1")
    with pytest.raises(PeerError, match=rf"^party \d .*share folders are of {words}"):
        run_here(_local(shares))


@pytest.mark.parametrize("missing", [0, 1])
def test_missing_folder(exported: Exported, tmp_path: Path, missing: int) -> None:
    folders = [exported.client / "party0", exported.client / "party1"]
    folders[missing] = tmp_path / "nowhere"
    with pytest.raises(UserError, match=rf"^party {missing} .*There is no folder .*party{missing}"):
        run_here(_local(_mixed(tmp_path / "half", *folders)))


@pytest.mark.parametrize("rank", [0, 1])
def test_damaged_folder_is_laid_at_its_owners_door(exported: Exported, tmp_path: Path, rank: int) -> None:
    folders = [exported.client / "party0", exported.client / "party1"]
    folders[rank] = shutil.copytree(folders[rank], tmp_path / "damaged")
    tensors = folders[rank] / "shares.safetensors"
    os.truncate(tensors, tensors.stat().st_size - 100)
    with pytest.raises(UserError, match=rf"^party {rank} .*is not a whole share folder"):
        run_here(_local(_mixed(tmp_path / "both", *folders)))


def test_busy_port(exported: Exported) -> None:
    with listen("127.0.0.1", 0) as server:
        port = server.getsockname()[1]
        started = time.monotonic()
        with pytest.raises(UserError, match=rf"^party 0 .*Cannot listen on 127\.0\.0\.1:{port} \(Address"):
            run_here(_local(exported.client, rendezvous=f"127.0.0.1:{port}"))
        assert time.monotonic() - started < 10
    assert not parties_of(os.getpid())


# What may happen to a process.


@pytest.fixture
def endless(exported: Exported) -> Iterator[Future]:
    """A run that would take minutes, in the middle of its inferences."""
    begun = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        run = _local(exported.client, repetitions=5000)
        future = thread.submit(run_here, run, lambda *step: begun.set())
        wait_for(lambda: begun.is_set() or future.done(), 60, "inference")
        yield future
        for party in parties_of(os.getpid()):
            party.kill()


@pytest.mark.parametrize("rank", [0, 1])
def test_killed_party_is_named_and_nothing_is_left(endless: Future, rank: int) -> None:
    parties = parties_of(os.getpid())
    port = port_of(parties)
    killed = time.monotonic()
    parties[rank].kill()
    role = ("model owner", "client")[rank]
    when = "(in the (offline|online) phase|while the output was opened)"
    with pytest.raises(PeerError, match=rf"^party {rank} \({role}\) was killed by signal 9 {when}") as caught:
        endless.result(timeout=30)
    assert time.monotonic() - killed < 10
    assert caught.value.exit_code != 0
    assert all_gone(parties)
    assert port_is_free(port)


@pytest.mark.parametrize("rank", [0, 1])
def test_stopped_party_is_named_and_nothing_is_left(endless: Future, rank: int) -> None:
    parties = parties_of(os.getpid())
    port = port_of(parties)
    stopped = time.monotonic()
    parties[rank].suspend()
    role = ("model owner", "client")[rank]
    words = rf"^party {1 - rank} \(.*\): party {rank} \({role}\) has been silent for 6 s (in|while) "
    with pytest.raises(PeerError, match=words):
        endless.result(timeout=30)
    assert time.monotonic() - stopped < 10
    assert all_gone(parties)
    assert port_is_free(port)


@pytest.fixture
def launcher(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[subprocess.Popen, list[psutil.Process]]]:
    """A launcher in a process of its own, with its parties in the middle of their inferences."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # for the folder that a killed launcher cannot remove
    tokens = ",".join(str(token) for token in TOKENS[0].tolist())
    process = start("tests.parties.launch", str(exported.client), tokens)
    try:
        line = process.stdout.readline()
        assert line.startswith("inference"), process.stderr.read()
        parties = parties_of(process.pid)
        assert len(parties) == 2
        yield process, parties
        for party in parties:
            if party.is_running():
                party.kill()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def test_interrupt_leaves_nothing(launcher: tuple) -> None:
    process, parties = launcher
    port = port_of(parties)
    (folder,) = {Path(word).parent for word in parties[1].cmdline() if word.endswith("logits.safetensors")}
    assert folder.is_dir()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    assert all_gone(parties)
    assert port_is_free(port)
    assert not folder.exists()
    assert re.fullmatch(r"mpcbench: interrupted; .*\n", process.stderr.read())


def test_parties_end_with_a_launcher_that_was_killed(launcher: tuple) -> None:
    process, parties = launcher
    port = port_of(parties)
    process.kill()
    process.wait(timeout=10)
    wait_for(lambda: all_gone(parties), 5, "end of both parties")
    assert port_is_free(port)

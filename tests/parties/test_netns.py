"""Two hosts on one kernel: a network namespace a party, joined by a virtual Ethernet cable.

What the parties say they have sent is held against the kernel's own counters of that cable, and the
cable is pulled in the middle of a run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mpcbench.checkpoints import load
from mpcbench.distill import Texts
from mpcbench.errors import PeerError
from mpcbench.parties.result import PartyResult
from mpcbench.pipeline.export import export
from tests.parties.processes import start
from tests.tiny import tiny_folder, tiny_texts

pytestmark = pytest.mark.netns

ADDRESSES = ("10.83.0.1", "10.83.0.2")
CABLE = "cable"
FRAMING = 0.06
"""Most that Ethernet, IP and TCP add: 66 bytes to 1,448 (4.6 %), and an acknowledgement now and then."""


@dataclass(frozen=True)
class Hosts:
    """The names of the two namespaces, party 0's first, and what runs in them."""

    names: tuple[str, str]
    running: list[subprocess.Popen] = field(default_factory=list)

    def party(self, rank: int, shares: Path, *options: str) -> subprocess.Popen:
        """``mpcbench party`` on one of the hosts."""
        words = ("party", "--rank", str(rank), "--shares", str(shares / f"party{rank}"),
                 "--provider", "first-party")  # fmt: skip
        meet = ("--rendezvous", f"{ADDRESSES[0]}:29500", "--insecure-no-tls")
        inside = ("ip", "netns", "exec", self.names[rank])
        self.running.append(start("mpcbench", *words, *meet, *options, prefix=inside))
        return self.running[-1]

    def sent(self, rank: int) -> int:
        """Bytes that the kernel has put on the cable at this host, headers of all layers included."""
        shown = subprocess.run(
            ["ip", "-n", self.names[rank], "-s", "-j", "link", "show", "dev", CABLE],
            check=True, capture_output=True,
        )  # fmt: skip
        return json.loads(shown.stdout)[0]["stats64"]["tx"]["bytes"]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` command")
    names = (f"mpcbench-{os.getpid()}-0", f"mpcbench-{os.getpid()}-1")
    made = []
    try:
        for name in names:
            result = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
            if result.returncode:
                pytest.skip(f"no right to make network namespaces: {result.stderr.strip()}")
            made.append(name)
        _ip("-n", names[0], "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            _ip("-n", name, "address", "add", f"{address}/24", "dev", CABLE)
            _ip("-n", name, "link", "set", CABLE, "up")
        hosts = Hosts(names)
        yield hosts
        for process in hosts.running:
            process.kill()
            process.communicate()
    finally:
        for name in made:
            _ip("netns", "del", name)


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a vocabulary that makes messages of megabytes, looked up under MPC."""
    folder = tmp_path_factory.mktemp("wide")
    checkpoint = load(str(tiny_folder(folder / "model", vocab=4096, hidden=64, intermediate=96, layers=1)))
    export(checkpoint, folder / "shares", "private", 16, Texts(tiny_texts(vocab=4096), "test", "0"))
    return folder / "shares"


PROMPT = " ".join(f"w{index}" for index in range(3, 19))


def test_ledger_agrees_with_the_kernels_counters(hosts: Hosts, shares: Path, tmp_path: Path) -> None:
    before = [hosts.sent(rank) for rank in (0, 1)]
    report = tmp_path / "report.json"
    owner = hosts.party(0, shares)
    client = hosts.party(1, shares, "--prompt", PROMPT, "--repetitions", "5", "--out", str(report))
    for process in (owner, client):
        _, errors = process.communicate(timeout=90)
        assert process.returncode == 0, errors
    results = [PartyResult.model_validate(item) for item in json.loads(report.read_text())]
    for rank, result in enumerate(results):
        ours = result.payload_bytes_sent + result.other_bytes_sent
        kernels = hosts.sent(rank) - before[rank]
        assert result.payload_bytes_sent > 20e6
        assert 1 <= kernels / ours < 1 + FRAMING, f"party {rank}: {ours} bytes, the kernel counts {kernels}"


def test_pulled_cable_ends_both_parties(hosts: Hosts, shares: Path) -> None:
    before = hosts.sent(0)
    owner = hosts.party(0, shares)
    client = hosts.party(1, shares, "--prompt", PROMPT, "--repetitions", "5000")
    deadline = time.monotonic() + 60
    while hosts.sent(0) - before < 30e6:  # well within the inferences
        assert time.monotonic() < deadline and owner.poll() is None and client.poll() is None
        time.sleep(0.05)
    pulled = time.monotonic()
    _ip("-n", hosts.names[0], "link", "set", CABLE, "down")
    for process, peer in ((owner, "party 1 (client)"), (client, "party 0 (model owner)")):
        _, errors = process.communicate(timeout=30)
        assert time.monotonic() - pulled < 10  # 6 s of silence
        assert process.returncode == PeerError.exit_code, errors
        assert f"mpcbench: {peer} " in errors
        assert "Traceback" not in errors

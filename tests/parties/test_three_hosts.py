"""Three hosts on one kernel: a network namespace each for both parties and the dealer, joined by a switch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mpcbench.errors import PeerError
from mpcbench.graph.ranges import known
from mpcbench.graph.secure_graph import SecureGraph
from mpcbench.parties.certificates import make_certificates
from mpcbench.records.store import read_folder
from tests.parties.conftest import TOKENS, Exported
from tests.parties.faults import NAMES, ROLES, TIMEOUT, Run

pytestmark = pytest.mark.netns

ADDRESSES = dict(zip(ROLES, ("10.84.0.1", "10.84.0.2", "10.84.0.3"), strict=True))
CABLE = "cable"


@dataclass(frozen=True)
class Network:
    """The namespaces by role, and the file that says where everybody is."""

    names: dict[str, str]
    hosts: Path

    def pull(self, role: str) -> None:
        """Unplug this host's cable."""
        _ip("-n", self.names[role], "link", "set", CABLE, "down")

    def sent(self, role: str) -> int:
        """Bytes that this host has put on its cable."""
        shown = _ip("-n", self.names[role], "-s", "-j", "link", "show", "dev", CABLE)
        return json.loads(shown)[0]["stats64"]["tx"]["bytes"]


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    if shutil.which("ip") is None:
        pytest.skip("there is no `ip` command")
    names = {role: f"mpcbench-{os.getpid()}-{role}" for role in (*ROLES, "switch")}
    made = []
    try:
        for name in names.values():
            if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
                pytest.skip("no right to make network namespaces")
            made.append(name)
        switch = names["switch"]
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for role, address in ADDRESSES.items():
            _ip(
                "-n", switch, "link", "add", role, "type", "veth", "peer", "name", CABLE, "netns", names[role]
            )
            _ip("-n", switch, "link", "set", role, "master", "bridge", "up")
            _ip("-n", names[role], "address", "add", f"{address}/24", "dev", CABLE)
            _ip("-n", names[role], "link", "set", CABLE, "up")
        hosts = tmp_path / "hosts.yaml"
        hosts.write_text(
            f"parties:\n  - {{rank: 0, host: {ADDRESSES['party0']}, port: 29500}}\n"
            f"  - {{rank: 1, host: {ADDRESSES['party1']}}}\n"
            f"dealer: {{host: {ADDRESSES['dealer']}, port: 29501}}\n"
        )
        yield Network(names, hosts)
    finally:
        for name in made:
            _ip("netns", "del", name)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    run.end()


def _start(run: Run, network: Network, shares: Path, protect: dict[str, list[str]], *client: str) -> None:
    asked = {"tokens": TOKENS, "stop": torch.zeros(0, dtype=torch.long)}
    save_file(asked, run.folder / "tokens.safetensors")
    common = ["--hosts", str(network.hosts), "--wait", str(PATIENCE), "--timeout", str(TIMEOUT)]
    run.start("dealer", "dealer", *common, *protect["dealer"], inside=network.names["dealer"])
    for rank, role in enumerate(ROLES[:2]):
        words = ["party", "--rank", str(rank), "--shares", str(shares / role), "--provider", "dealer",
                 "--threads", "1", *common, *protect[role]]  # fmt: skip
        if rank == 1:
            words += ["--token-ids", str(run.folder / "tokens.safetensors"), *client]
        run.start(role, *words, inside=network.names[role])


def _certified(folder: Path) -> dict[str, list[str]]:
    make_certificates(folder, 1)
    return {role: ["--certs", str(folder / role)] for role in ROLES}


PLAIN = {role: ["--insecure-no-tls"] for role in ROLES}
PATIENCE = 240
"""Seconds for what takes a few on a machine that has nothing else to do."""


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plaintext"])
def test_run_on_three_hosts_leaves_a_record(
    run: Run, network: Network, exported: Exported, tmp_path: Path, tls: bool
) -> None:
    protect = _certified(tmp_path / "certs") if tls else PLAIN
    _start(run, network, exported.client, protect, "--results", str(tmp_path / "results"))
    for role in ROLES:
        run.processes[role].join(timeout=PATIENCE)
        assert run.processes[role].exitcode == 0, run.log(role)
    (record,) = read_folder(tmp_path / "results")
    assert (record.link.profile, record.link.encryption) == ("hosts", "tls" if tls else "none")
    assert any("--insecure-no-tls" in note for note in record.notes) != tls
    assert record.protocol.provider == "dealer" and record.protocol.provider_is_secure
    assert record.ledger.offline.bytes_sent[1] > 0
    assert record.ledger.online.bytes > 0
    assert record.model.checkpoint_sha256 == exported.checkpoint.sha256
    graph = SecureGraph.read(exported.client / "party1" / "graph.json")
    assert record.graph_sha256 == graph.sha256() and record.ranges == known(graph)


@pytest.mark.parametrize("who", ROLES)
def test_pulled_cable(run: Run, network: Network, exported: Exported, tmp_path: Path, who: str) -> None:
    protect = _certified(tmp_path / "certs")
    _start(run, network, exported.client, protect, "--repetitions", "5000")
    deadline = time.monotonic() + PATIENCE
    while network.sent("party1") < 24e6:  # more than the probe of the bandwidth: inferences have begun
        assert time.monotonic() < deadline and all(p.is_alive() for p in run.processes.values())
        time.sleep(0.05)
    network.pull(who)
    pulled = time.monotonic()
    for role in ROLES:
        run.processes[role].join(timeout=10 + pulled - time.monotonic())
        assert run.processes[role].exitcode == PeerError.exit_code, run.log(role)
        sentence = run.sentence(role)
        assert "cannot be reached any more" in sentence or "has been silent" in sentence, sentence
        assert "phase" in sentence or "while the output was opened" in sentence, sentence
        if role != who:
            assert NAMES[who] in sentence, sentence


def test_certificates_of_two_makings_do_not_meet(
    run: Run, network: Network, exported: Exported, tmp_path: Path
) -> None:
    protect = _certified(tmp_path / "certs")
    protect["party1"] = _certified(tmp_path / "others")["party1"]
    _start(run, network, exported.client, protect)
    for role in ROLES[:2]:
        run.processes[role].join(timeout=PATIENCE)
        assert run.processes[role].exitcode == PeerError.exit_code
        assert "another authority" in run.sentence(role)

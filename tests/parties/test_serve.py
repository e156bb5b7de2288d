"""Runs with a client and a dealer that are served, as three hosts would have it, here on loopback."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

import mpcbench
from mpcbench.errors import PeerError, UserError
from mpcbench.parties.certificates import make_certificates
from mpcbench.parties.driver import RemoteRuns
from mpcbench.parties.hosts import Hosts, read_hosts
from mpcbench.parties.launcher import LocalRun
from mpcbench.parties.network import LinkProfile
from mpcbench.parties.orders import Order, read_order
from mpcbench.parties.result import merge_ledgers
from mpcbench.parties.site import address_of, credentials_for
from mpcbench.secure.meeting import listen
from tests.parties.conftest import TOKENS, Exported
from tests.parties.processes import start, wait_for
from tests.secure.links import links, outcomes


def _hosts(folder: Path) -> Path:
    """A hosts file with free ports of loopback."""
    ports = []
    for _ in range(3):
        with listen("127.0.0.1", 0) as server:
            ports.append(server.getsockname()[1])
    path = folder / "hosts.yaml"
    path.write_text(
        "parties:\n"
        f"  - {{rank: 0, host: 127.0.0.1, port: {ports[0]}}}\n"
        f"  - {{rank: 1, host: 127.0.0.1, port: {ports[1]}}}\n"
        f"dealer: {{host: 127.0.0.1, port: {ports[2]}}}\n"
    )
    return path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[tuple[Hosts], list[subprocess.Popen]]]:
    """The hosts, and the client's and the dealer's servers."""
    yield from _served(tmp_path, {"client": (), "dealer": ()})


@pytest.fixture
def protected(tmp_path: Path) -> Iterator[tuple[tuple[Hosts], list[subprocess.Popen]]]:
    """The same with certificates, which lie in ``certs`` of the test's folder."""
    certs = tmp_path / "certs"
    make_certificates(certs, 1)
    options = {
        role: ("--certs", str(certs / name)) for role, name in (("client", "party1"), ("dealer", "dealer"))
    }
    yield from _served(tmp_path, options)


def _served(folder: Path, options: dict[str, tuple[str, ...]]) -> Iterator[tuple]:
    hosts = _hosts(folder)
    servers = [
        start("mpcbench", "serve", role, "--hosts", str(hosts), *options[role])
        for role in ("client", "dealer")
    ]
    yield (read_hosts(hosts),), servers
    for server in servers:
        server.kill()
        server.wait()
        server.stdout.close()
        server.stderr.close()


def _run(exported: Exported, **changes: object) -> LocalRun:
    return replace(LocalRun(exported.client, "frontier", TOKENS, 1, 0, 1), **changes)


def test_several_runs_and_a_goodbye(exported: Exported, served: tuple) -> None:
    """Protocols and providers may change between runs; a wrong order spoils no later run."""
    place, servers = served
    steps: list[str] = []
    with RemoteRuns(*place) as site:
        with pytest.raises(UserError, match="choose a packaged --network"):
            site.run(_run(exported, network=LinkProfile("moon", None, 1.0)))
        first = site.run(_run(exported), lambda what, done, total: steps.append(what))
        second = site.run(_run(exported, protocol="crypten", provider="first-party"))
    for outcome in (first, second):
        assert (outcome.logits - exported.logits()).abs().max() < 0.05
        assert [result.party.rank for result in outcome.results] == [0, 1]
    assert merge_ledgers(first.results).offline.bytes > 0 == merge_ledgers(second.results).offline.bytes
    assert "inference" in steps
    codes = [server.wait(timeout=30) for server in servers]
    said = [server.stderr.read() for server in servers]
    assert codes == [0, 0], said
    assert "took part in 2 runs" in said[0] and "dealt for 1 runs" in said[1]


def test_with_certificates_everything_is_under_tls(
    exported: Exported, protected: tuple, tmp_path: Path
) -> None:
    """The processes of a run get the role's certificate too: one without could not reach the dealer."""
    place, servers = protected
    with RemoteRuns(*place, tmp_path / "certs" / "party0") as site:
        assert site.encrypted and site.client.role == "party1" and site.dealer.role == "dealer"
        outcome = site.run(_run(exported))
    assert (outcome.logits - exported.logits()).abs().max() < 0.05
    assert [server.wait(timeout=30) for server in servers] == [0, 0]


def test_a_killed_client_is_named_and_the_next_run_succeeds(exported: Exported, served: tuple) -> None:
    place, servers = served
    with RemoteRuns(*place) as site:
        begun = threading.Event()

        def kill() -> None:
            begun.wait(120)
            for child in psutil.Process(servers[0].pid).children():
                child.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with pytest.raises(PeerError, match=r"^party 1 \(client\) was killed by signal 9"):
            site.run(_run(exported, repetitions=5000), lambda *step: begun.set())
        killer.join()
        assert (site.run(_run(exported)).logits - exported.logits()).abs().max() < 0.05
    assert [server.wait(timeout=30) for server in servers] == [0, 0]


def test_servers_end_with_a_model_owner_that_dies(exported: Exported, served: tuple) -> None:
    place, servers = served
    site = RemoteRuns(*place)
    site.client.close()
    site.dealer.close()
    assert [server.wait(timeout=30) for server in servers] == [PeerError.exit_code] * 2
    for server in servers:
        assert "the model owner has closed the connection" in server.stderr.read()
    wait_for(lambda: not any(psutil.pid_exists(server.pid) for server in servers), 5, "end")


def test_other_hosts_need_certificates(tmp_path: Path) -> None:
    hosts = Hosts.model_validate(
        {
            "parties": [{"rank": 0, "host": "10.0.0.1", "port": 1}, {"rank": 1, "host": "10.0.0.2"}],
            "dealer": {"host": "10.0.0.3", "port": 2},
        }
    )
    with pytest.raises(UserError, match=r"^10\.0\.0\.1 is not this machine.*mpcbench certs"):
        credentials_for(hosts.names(), "party0", None, False)
    assert credentials_for(hosts.names(), "party0", None, True) is None
    with pytest.raises(UserError, match="contradict each other"):
        credentials_for(hosts.names(), "party0", tmp_path, True)
    assert address_of(hosts, "dealer") == ("10.0.0.3", 2)
    with pytest.raises(UserError, match="gives party1 no port"):
        address_of(hosts, "party1")


ORDER = {
    "sharing": "a", "protocol": {}, "tokens": [1, 2], "repetitions": 1, "warmups": 0, "threads": 1,
    "rendezvous": "127.0.0.1:1", "dealer": None, "network": "loopback",
    "backend": "transport",
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": [1]},
        {"tokens": [-1, 2]},
        {"repetitions": -1},
        {"threads": 0},
        {"shell": "rm"},
        {"sharing": 1},
    ],
)
def test_an_order_is_checked(change: dict) -> None:
    assert read_order({"run": ORDER}, "x") == Order(**ORDER)
    for wrong in ({**ORDER, **change}, None):
        with pytest.raises(PeerError, match=r"^x sent an order that is none"):
            read_order({"run": wrong}, "x")


def test_versions_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from mpcbench.parties.orders import greet_server

    def other(link) -> None:
        link.swap_control({"version": "0"})
        link.hear()

    with links() as (left, right):
        mine, theirs = outcomes(lambda: greet_server(left), lambda: other(right))
    assert str(mine) == f"party 1 runs mpcbench 0, this end {mpcbench.__version__}: install the same."
    assert isinstance(theirs, PeerError)

"""A run over an emulated link takes as long as its rounds and bytes say; an error in either shows here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mpcbench.checkpoints import load
from mpcbench.distill import Texts
from mpcbench.parties.launcher import LocalRun, run_here
from mpcbench.parties.namespaces import usable
from mpcbench.parties.network import NO_EMULATION, Backend, LinkProfile, load_link
from mpcbench.parties.party import Outcome
from mpcbench.parties.result import PartyResult, merge_latency, merge_ledgers
from mpcbench.pipeline.export import export
from mpcbench.secure.protocol import load_protocol
from tests.tiny import tiny_folder, tiny_texts

TOLERANCE = 0.05
ATTEMPTS = 5
PROTOCOL = "frontier"
TOKENS = torch.tensor([[5, 9, 33, 60, 3, 17, 17]])


@pytest.fixture(scope="module", autouse=True)
def undisturbed() -> Iterator[None]:
    """Parties that are started here go before other programs of the machine, where that is allowed."""
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        if os.getloadavg()[0] > 1:
            pytest.skip("other programs are running, and there is no right to go before them")
    yield
    os.sched_setscheduler(0, policy, priority)


@pytest.fixture(scope="module")
def shares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small graph: one layer and the LM head."""
    folder = tmp_path_factory.mktemp("small")
    checkpoint = load(str(tiny_folder(folder / "model", layers=1)))
    bits = load_protocol(PROTOCOL).fixed_point.fraction_bits
    export(checkpoint, folder / "shares", "client", bits, Texts(tiny_texts(), "test", "0"))
    return folder / "shares"


def _run(shares: Path, network: LinkProfile, backend: Backend = "transport", warm: bool = True) -> Outcome:
    # Loopback alone takes milliseconds, and the scheduler some of them to give each party a core of its own.
    times = {"repetitions": 5 if network.emulated else 40, "warmups": 1}
    if not warm:
        times = {"repetitions": 1, "warmups": 0}
    run = LocalRun(shares, PROTOCOL, TOKENS, threads=1, network=network, backend=backend, **times)
    return run_here(run)


def _computing(parties: tuple[PartyResult, PartyResult]) -> list[float]:
    """What both parties did not wait online, their mean, for every repetition.

    A mean, because the parties wait for one another: who is late in one round is waited for in the next.
    """
    pairs = zip(*(party.inferences for party in parties), strict=True)
    return [sum(i.seconds - i.offline_seconds - i.waiting_seconds for i in pair) / 2 for pair in pairs]


def _profile(folder: Path, round_trip: str, bandwidth: str) -> LinkProfile:
    file = folder / "link.yaml"
    file.write_text(f"bandwidth: {bandwidth}\nround_trip: {round_trip}\n")
    return load_link(str(file))


def _check_latency(
    shares: Path, network: LinkProfile, backend: Backend = "transport", warm: bool = True
) -> Outcome:
    """latency = compute + rounds × one-way delay + bytes a party sends / bandwidth, within 5 %.

    Compute is taken from the same inferences: a processor that has waited for long has cold caches, so
    that what it took on loopback would be too little. Where no delay is asked for, a round takes what it
    takes on loopback, as the parties measured it before the run.
    """
    ratios = []
    for _ in range(ATTEMPTS):
        outcome = _run(shares, network, backend, warm)
        online = merge_ledgers(outcome.results).online
        link = network.seconds(online.rounds, max(online.bytes_sent))
        if not network.emulated:
            link += online.rounds * min(result.round_trip_seconds for result in outcome.results) / 2
        latencies = merge_latency(outcome.results).online_seconds
        # Other programs only ever add to a latency, so the quickest inference says most.
        quickest, compute = min(zip(latencies, _computing(outcome.results), strict=True))
        ratios.append(quickest / (compute + link))
        if abs(ratios[-1] - 1) < TOLERANCE:
            return outcome
    pytest.fail(f"measured / expected: {ratios}")


@pytest.mark.parametrize(
    ("round_trip", "bandwidth"),
    [("0 ms", "unlimited"), ("5 ms", "unlimited"), ("20 ms", "unlimited"), ("50 ms", "unlimited"),
     ("0 ms", "1 Mbit/s"), ("20 ms", "1 Mbit/s")],
)  # fmt: skip
def test_latency_is_compute_and_rounds_and_bytes(
    round_trip: str, bandwidth: str, shares: Path, tmp_path: Path
) -> None:
    network = _profile(tmp_path, round_trip, bandwidth)
    outcome = _check_latency(shares, network)
    assert {result.link_backend for result in outcome.results} == {
        "transport" if network.emulated else "none"
    }


def test_first_inference_hides_no_delay_in_its_offline_phase(shares: Path, tmp_path: Path) -> None:
    """Its correlated randomness is dealt in line: party 1 waits for it between any two rounds."""
    _check_latency(shares, _profile(tmp_path, "50 ms", "unlimited"), warm=False)


@pytest.mark.netns
@pytest.mark.parametrize(("round_trip", "bandwidth"), [("20 ms", "unlimited"), ("20 ms", "5 Mbit/s")])
def test_a_line_that_tcp_crosses_takes_as_long(
    round_trip: str, bandwidth: str, shares: Path, tmp_path: Path
) -> None:
    """The transport's emulation and packets between two namespaces obey the same formula."""
    if usable() is None:
        pytest.skip("no right to make network namespaces with TUN devices")
    outcome = _check_latency(shares, _profile(tmp_path, round_trip, bandwidth), "namespaces")
    assert {result.link_backend for result in outcome.results} == {"namespaces"}


def test_kernel_without_netem_leaves_it_to_the_transport(shares: Path) -> None:
    """As on loopback, whose device is not the parties' alone, on any kernel."""
    outcome = _run(shares, load_link("lan"), "netem")
    assert {result.link_backend for result in outcome.results} == {"transport"}


def test_probe_finds_what_was_asked_for(shares: Path) -> None:
    wan = load_link("wan")
    for result in _run(shares, wan).results:
        assert result.round_trip_seconds == pytest.approx(wan.round_trip, rel=0.05)
        assert 8 * result.bandwidth_bytes_per_second == pytest.approx(wan.bandwidth, rel=0.05)
    for result in _run(shares, NO_EMULATION).results:
        assert result.round_trip_seconds < 0.005
        assert 8 * result.bandwidth_bytes_per_second > wan.bandwidth

"""``mpcbench party`` by hand, as on two hosts, and what it says to a stranger or to nobody."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from mpcbench.cli.party import command
from mpcbench.errors import PeerError, UserError
from mpcbench.parties.result import PartyResult
from mpcbench.secure.meeting import listen
from tests.parties.conftest import PROMPT, Exported
from tests.parties.processes import start
from tests.secure.links import CONTROL, frame


def _free_port() -> int:
    with listen("127.0.0.1", 0) as server:
        return server.getsockname()[1]


def _party(rank: int, shares: Path, *options: str, stdin: bool = False) -> subprocess.Popen:
    folder = str(shares / f"party{rank}")
    usual = ("--rank", str(rank), "--shares", folder, "--provider", "first-party")
    return start("mpcbench", "party", *usual, *options, stdin=stdin)


def _end(process: subprocess.Popen) -> tuple[int, str, str]:
    """Exit code, standard output and standard error, within half a minute."""
    try:
        out, errors = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, out, errors


def _sentence(errors: str) -> str:
    """The one sentence of a failure; no traceback beside it."""
    lines = [line for line in errors.splitlines() if line and not line.startswith("Listening on")]
    assert len(lines) == 1, errors
    return lines[0].removeprefix("mpcbench: ")


# Two commands.


def test_two_commands_make_a_run(exported: Exported, tmp_path: Path) -> None:
    meet = ("--rendezvous", f"127.0.0.1:{_free_port()}")
    # The client comes first: it tries until the model owner listens.
    client = _party(1, exported.client, *meet, "--prompt", PROMPT, "--out", str(tmp_path / "1.json"))
    time.sleep(0.5)
    owner = _party(0, exported.client, *meet, "--out", str(tmp_path / "0.json"))
    (code0, out0, errors0), (code1, out1, errors1) = _end(owner), _end(client)
    assert (code0, code1) == (0, 0), errors0 + errors1

    pattern = r"online: ([\d.]+) MB by both parties, (\d+) rounds, [\d.]+ s \(median of 1\)\n"
    cost = re.match(pattern, out0)
    assert cost is not None
    assert cost.groups() == re.match(pattern, out1).groups()
    token = int(exported.logits().argmax())
    assert f"next token: 'w{token}'" in out1
    assert "† Not secure" in out0 and "† Not secure" in out1
    assert "next token" not in out0  # the model owner does not learn it

    reports = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert reports[0] == reports[1]
    parties = [PartyResult.model_validate(report) for report in reports[0]]
    sent = [sum(line.bytes_sent for line in party.lines if line.phase == "online") for party in parties]
    assert f"{sum(sent) / 1e6:.3f}" == cost[1]


def test_two_commands_make_a_text(exported: Exported) -> None:
    meet = ("--rendezvous", f"127.0.0.1:{_free_port()}")
    owner = _party(0, exported.client, *meet)
    client = _party(1, exported.client, *meet, "--prompt", PROMPT, "--max-new-tokens", "2")
    (code0, out0, errors0), (code1, out1, errors1) = _end(owner), _end(client)
    assert (code0, code1) == (0, 0), errors0 + errors1
    assert "text: 'w" in out1
    assert "text: " not in out0
    assert len(re.findall(r"^next token: [\d.]+ MB, \d+ rounds, [\d.]+ s$", out0, re.M)) == 1


def test_different_protocols_are_named_at_both(exported: Exported, tmp_path: Path) -> None:
    from mpcbench.secure.protocol import available

    other = tmp_path / "other.yaml"
    other.write_text(available()["crypten"].read_text().replace("margin: 16.0", "margin: 15.0"))
    meet = ("--rendezvous", f"127.0.0.1:{_free_port()}")
    owner = _party(0, exported.client, *meet)
    client = _party(1, exported.client, *meet, "--prompt", PROMPT, "--protocol", str(other))
    for code, out, errors in (_end(owner), _end(client)):
        assert code == PeerError.exit_code
        assert _sentence(errors).endswith("use different protocol files: give both the same --protocol.")
        assert not out


# Nobody, or a stranger.


def test_peer_that_never_comes(exported: Exported) -> None:
    port = _free_port()
    started = time.monotonic()
    alone = [
        _party(0, exported.client, "--rendezvous", "127.0.0.1:0", "--wait", "1"),
        _party(1, exported.client, "--rendezvous", f"127.0.0.1:{port}", "--wait", "1", "--prompt", PROMPT),
    ]
    (code0, _, errors0), (code1, _, errors1) = (_end(process) for process in alone)
    assert time.monotonic() - started < 10
    assert (code0, code1) == (PeerError.exit_code, PeerError.exit_code)
    assert re.fullmatch(
        r"party 1 \(client\) did not come to 127\.0\.0\.1:\d+ within 1 s: start it\.", _sentence(errors0)
    )
    assert _sentence(errors1) == (
        f"party 0 (model owner) is not at 127.0.0.1:{port} "
        "(Connection refused; tried for 1 s): start it there."
    )


def test_started_by_a_launcher_a_party_ends_with_it(exported: Exported) -> None:
    """Its standard input closes when the launcher dies; here nothing else would tell."""
    party = _party(0, exported.client, "--rendezvous", "127.0.0.1:0", "--wait", "60", "--events", stdin=True)
    assert json.loads(party.stdout.readline())["event"] == "listening"
    assert party.poll() is None
    party.stdin.close()
    assert party.wait(timeout=5) == 1
    party.stdout.close()
    party.stderr.close()


def test_by_default_a_party_waits_ten_seconds() -> None:
    assert {option.name: option.default for option in command.params}["wait"] == 10


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", id="another program"),
        pytest.param(frame(CONTROL, b'{"rank": 1}'), id="another version"),
    ],
)
def test_stranger_at_the_door(exported: Exported, sent: bytes) -> None:
    port = _free_port()
    owner = _party(0, exported.client, "--rendezvous", f"127.0.0.1:{port}")
    assert owner.stderr.readline() == f"Listening on 127.0.0.1:{port} for party 1 (client).\n"
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(sent)
        code, _, errors = _end(owner)
    assert code == PeerError.exit_code
    assert _sentence(errors).startswith("party 1 (client) ")


# What can be said without a peer.


ALONE: dict[str, tuple[list[str], str]] = {
    "no prompt": (["--rank", "1", "--shares", "SHARES"], "The client needs a prompt"),
    "prompt of the owner": (["--rank", "0", "--shares", "SHARES", "--prompt", "x"], "client's secret"),
    "text of the owner": (
        ["--rank", "0", "--shares", "SHARES", "--max-new-tokens", "3"],
        "The client asks for a text",
    ),
    "private logits of no text": (
        ["--rank", "1", "--shares", "SHARES", "--prompt", "x", "--private-logits"],
        "give --max-new-tokens",
    ),
    "no folder": (["--rank", "0", "--shares", "SHARES/no"], "There is no folder SHARES/no"),
    "no link": (["--rank", "0", "--shares", "SHARES", "--network", "moon"], "There is no link moon: choose"),
    "no namespaces": (
        ["--rank", "0", "--shares", "SHARES", "--link-backend", "namespaces"],
        "Only run and compare make",
    ),
    "no address": (["--rank", "0", "--shares", "SHARES", "--rendezvous", "here"], "'here' is not an address"),
    "no such host": (
        ["--rank", "0", "--shares", "SHARES", "--rendezvous", "..:1", "--insecure-no-tls"],
        "Cannot listen on ..:1",
    ),
    "another host": (
        ["--rank", "0", "--shares", "SHARES", "--rendezvous", "10.0.0.1:1"],
        "10.0.0.1 is not this machine's loopback, so connections need TLS",
    ),
    "record at the owner": (["--rank", "0", "--shares", "SHARES", "--results", "x"], "The client writes the"),
    "nowhere to write": (
        ["--rank", "0", "--shares", "SHARES", "--out", "SHARES/no/report.json"],
        "Cannot write SHARES/no/report.json",
    ),
    "a folder to write": (["--rank", "0", "--shares", "SHARES", "--out", "SHARES"], "Cannot write SHARES"),
}


@pytest.mark.parametrize("case", ALONE)
def test_what_is_wrong_on_this_side_is_said_at_once(case: str, tmp_path: Path) -> None:
    words, expected = ALONE[case]
    started = time.monotonic()
    result = CliRunner().invoke(command, [word.replace("SHARES", str(tmp_path)) for word in words])
    assert isinstance(result.exception, UserError)
    assert expected.replace("SHARES", str(tmp_path)) in str(result.exception)
    assert time.monotonic() - started < 2

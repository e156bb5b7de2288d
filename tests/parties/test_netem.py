"""netem where the kernel has it, by a `tc` that only writes down what it is asked; and where it has not."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpcbench.parties.netem import netem
from mpcbench.parties.network import LinkProfile, load_link


def _program(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `tc` was asked, a line a call; `ip` says that every peer is behind eth7."""
    _program(tmp_path, "ip", """echo '[{"dst": "10.0.0.2", "dev": "eth7"}]'""")
    _program(tmp_path, "tc", f'echo "$@" >> {tmp_path}/asked')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "asked"


def test_the_device_to_the_peer_is_slowed_down_for_the_block(asked: Path) -> None:
    with netem("10.0.0.2", load_link("wan")) as done:
        assert done
        assert asked.read_text().splitlines() == [
            "qdisc add dev eth7 root netem limit 100000 delay 20000us rate 100000000bit"
        ]
    assert asked.read_text().splitlines()[1:] == ["qdisc del dev eth7 root"]


def test_a_bandwidth_that_is_not_limited_is_not_asked_for(asked: Path) -> None:
    with netem("10.0.0.2", LinkProfile("far", None, 0.1)):
        assert "rate" not in asked.read_text()


def test_kernel_without_netem(asked: Path, tmp_path: Path) -> None:
    _program(tmp_path, "tc", "echo 'Error: Specified qdisc kind is unknown.' >&2; exit 2")
    with netem("10.0.0.2", load_link("wan")) as done:
        assert not done


def test_loopback_belongs_to_everybody(asked: Path, tmp_path: Path) -> None:
    _program(tmp_path, "ip", """echo '[{"dev": "lo"}]'""")
    with netem("127.0.0.1", load_link("wan")) as done:
        assert not done
    assert not asked.exists()


@pytest.mark.parametrize("ip", ["exit 1", "echo nonsense", "echo '[]'"])
def test_peer_without_a_way_to_it(asked: Path, tmp_path: Path, ip: str) -> None:
    _program(tmp_path, "ip", ip)
    with netem("10.0.0.2", load_link("wan")) as done:
        assert not done

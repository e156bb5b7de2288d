"""The kernel's own emulation of a link, netem, at the device through which a party reaches its peer.

Meant for containers, whose device is theirs alone: everything that leaves it is slowed down. Not every
kernel has netem, and not every user may ask for it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from mpcbench.parties.network import LinkProfile

_PACKETS = 100_000
"""How many packets may wait on the line; netem drops what is more, and TCP would take that for congestion."""


@contextmanager
def netem(peer: str, network: LinkProfile) -> Iterator[bool]:
    """Slow down what leaves for the address ``peer`` during the block; False, and nothing done, where netem
    cannot be had: no ``tc``, no such kernel, no right, or the peer is on this machine's loopback.
    """
    device = _device(peer)
    if device in (None, "lo") or not _run("tc", *_words(str(device), network)):
        yield False
        return
    try:
        yield True
    finally:
        _run("tc", "qdisc", "del", "dev", str(device), "root")


def _words(device: str, network: LinkProfile) -> list[str]:
    words = ["qdisc", "add", "dev", device, "root", "netem", "limit", str(_PACKETS)]
    words += ["delay", f"{network.one_way * 1e6:.0f}us"]
    return words + (["rate", f"{network.bandwidth:.0f}bit"] if network.bandwidth else [])


def _device(peer: str) -> str | None:
    """The device through which ``peer`` is reached."""
    try:
        shown = subprocess.run(
            ["ip", "-j", "route", "get", peer], capture_output=True, timeout=5, check=True
        ).stdout
        return json.loads(shown)[0]["dev"]
    except (OSError, subprocess.SubprocessError, ValueError, LookupError):
        return None


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=5, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False

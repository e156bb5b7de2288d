"""``python -m mpcbench.parties.tun SOCKET HOST COMMAND...``: a program behind a TUN device of its own.

Started inside a fresh network namespace. The other end of the device goes through the Unix socket with file
descriptor SOCKET to the forwarder, see :mod:`mpcbench.parties.forwarder`; then COMMAND takes this process's
place and reaches the others at 10.83.0.x, itself at 10.83.0.(HOST + 1).
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

DEVICE = "mpcbench"
MTU = 9000
"""Jumbo frames: a forwarder in Python could not move as many packets of 1,500 bytes as a fast link does."""
_QUEUE = 10_000  # packets that the kernel keeps for the forwarder while it is busy
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
_SLOW_START_AFTER_IDLE = Path("/proc/sys/net/ipv4/tcp_slow_start_after_idle")


def address(host: int) -> str:
    """The IPv4 address of party 0, party 1 or the dealer (2)."""
    return f"10.83.0.{host + 1}"


def device(host: int) -> int:
    """Make this namespace's device and give it its address; the file descriptor of its other end."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    for words in (
        f"address add {address(host)}/24 dev {DEVICE}",
        f"link set {DEVICE} mtu {MTU} txqueuelen {_QUEUE} up",
        "link set lo up",
    ):
        subprocess.run(["ip", *words.split()], check=True)
    # Else every message after a pause would begin as slowly as the first, which long-lived links avoid.
    with suppress(OSError):
        _SLOW_START_AFTER_IDLE.write_text("0")
    return end


def main() -> None:
    """Hand the device over and become the command."""
    number, host, *command = sys.argv[1:]
    with socket.socket(fileno=int(number)) as forwarder:
        socket.send_fds(forwarder, [host.encode()], [device(int(host))])
    os.execv(command[0], command)


if __name__ == "__main__":
    main()

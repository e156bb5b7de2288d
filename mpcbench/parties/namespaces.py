"""A network namespace a party, joined by a line in user space that real TCP crosses.

Each party, and the dealer, is alone in its namespace with one TUN device; :mod:`mpcbench.parties.forwarder`
carries their packets as slowly as the link's profile says. It needs Linux with iproute2, util-linux,
``/dev/net/tun`` and the right to make network namespaces, as root or in a user namespace.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from mpcbench.errors import UserError
from mpcbench.parties.network import LinkProfile
from mpcbench.parties.tun import DEVICE, address

HOSTS = (0, 1, 2)
"""Party 0, party 1 and the dealer."""
_WAYS = (("unshare", "--net"), ("unshare", "--user", "--map-root-user", "--net"))


class Namespaces:
    """Where processes of a run are started, and how they reach each other."""

    def __init__(self, way: Sequence[str], sockets: Sequence[socket.socket]):
        self._way = way
        self._sockets = sockets

    def address(self, host: int) -> str:
        """Where the others find this host."""
        return address(host)

    def inside(self, host: int, command: Sequence[str]) -> tuple[list[str], list[int]]:
        """``command`` in the host's namespace, and the file descriptors that it has to inherit."""
        number = self._sockets[host].fileno()
        entry = [sys.executable, "-m", "mpcbench.parties.tun", str(number), str(host)]
        return [*self._way, *entry, *command], [number]


@contextmanager
def namespaces(network: LinkProfile) -> Iterator[Namespaces]:
    """Namespaces with the line between them, for the block.

    Raises UserError when this user or this kernel cannot have them.
    """
    way = usable()
    if way is None:
        raise UserError(
            "This user cannot make network namespaces with TUN devices here (`unshare --net`, iproute2, "
            "/dev/net/tun): choose --link-backend transport."
        )
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in HOSTS]
        for end in (end for pair in pairs for end in pair):
            stack.enter_context(end)
        theirs = [pair[1].fileno() for pair in pairs]
        command = [
            sys.executable, "-m", "mpcbench.parties.forwarder",
            str(network.bandwidth or 0.0), str(network.one_way), *map(str, theirs),
        ]  # fmt: skip
        forwarder = subprocess.Popen(
            command, stdin=subprocess.PIPE, pass_fds=theirs, start_new_session=True
        )  # fmt: skip
        try:
            yield Namespaces(way, [pair[0] for pair in pairs])
        finally:
            forwarder.stdin.close()
            forwarder.wait()


def usable() -> Sequence[str] | None:
    """The command that starts another one in a namespace of its own; None where nothing works."""
    for way in _WAYS:
        trial = [*way, "ip", "tuntap", "add", "dev", DEVICE, "mode", "tun"]
        try:
            if subprocess.run(trial, capture_output=True, timeout=10, check=False).returncode == 0:
                return way
        except (OSError, subprocess.TimeoutExpired):
            continue
    return None

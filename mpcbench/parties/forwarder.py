"""``python -m mpcbench.parties.forwarder BANDWIDTH DELAY SOCKET...``: the line between network namespaces.

Every namespace has a TUN device whose other end is here. A packet waits until the line has transmitted
all packets before it, headers included, at BANDWIDTH bits a second (0: unlimited), and then for DELAY
seconds. Each direction between each two hosts is a line of its own. The TCP that crosses it is the kernel's.
"""

from __future__ import annotations

import heapq
import os
import select
import socket
import sys
import time
from collections import defaultdict
from contextlib import suppress

from mpcbench.secure.delay import SPIN_SECONDS, precise_timers

_LARGEST = 1 << 16
_LAST_BYTE_OF_DESTINATION = 19  # of an IPv4 header


class Forwarder:
    """Moves packets between ``devices``, file descriptors by host: 0 and 1 are the parties, 2 the dealer."""

    def __init__(self, bandwidth: float, delay: float):
        self._seconds_per_byte = 8 / bandwidth if bandwidth else 0.0
        self._delay = delay
        self.devices: dict[int, int] = {}
        self._free_at: defaultdict[tuple[int, int], float] = defaultdict(float)
        self._waiting: list[tuple[float, int, int, bytes]] = []
        self._count = 0

    def step(self, readable: list[int]) -> None:
        """Take what has come and let go what is due."""
        for host, device in list(self.devices.items()):
            if device in readable:
                self._take(host, device)
        while self._waiting and self._waiting[0][0] <= time.perf_counter():
            _, _, host, packet = heapq.heappop(self._waiting)
            if host in self.devices:
                with suppress(OSError):  # its program has just ended, and its namespace with it
                    os.write(self.devices[host], packet)

    def patience(self) -> float | None:
        """Seconds until the next packet is due, None when none waits."""
        if not self._waiting:
            return None
        left = self._waiting[0][0] - time.perf_counter()
        return left - SPIN_SECONDS if left > SPIN_SECONDS else 0.0

    def _take(self, source: int, device: int) -> None:
        now = time.perf_counter()
        try:
            while packet := os.read(device, _LARGEST):
                self._hold(source, now, packet)
        except BlockingIOError:
            pass
        except OSError:  # the namespace has ended with its program
            del self.devices[source]

    def _hold(self, source: int, now: float, packet: bytes) -> None:
        if packet[0] >> 4 != 4:
            return  # IPv6 looking for neighbours: nobody here speaks it
        target = packet[_LAST_BYTE_OF_DESTINATION] - 1
        if target not in self.devices:
            return
        line = (source, target)
        self._free_at[line] = max(now, self._free_at[line]) + len(packet) * self._seconds_per_byte
        self._count += 1  # keeps packets that are due at the same time in order
        heapq.heappush(self._waiting, (self._free_at[line] + self._delay, self._count, target, packet))


def main() -> None:
    """Forward until standard input closes, as it does when the launcher ends."""
    bandwidth, delay, *numbers = sys.argv[1:]
    forwarder = Forwarder(float(bandwidth), float(delay))
    newcomers = {int(number): socket.socket(fileno=int(number)) for number in numbers}
    precise_timers()
    while True:
        watched = [0, *newcomers, *forwarder.devices.values()]
        readable, _, _ = select.select(watched, [], [], forwarder.patience())
        if 0 in readable:
            return
        for number in newcomers.keys() & set(readable):
            host, ends, _, _ = socket.recv_fds(newcomers.pop(number), 16, 1)
            if ends:  # else it has ended before it had a device
                forwarder.devices[int(host)] = ends[0]
        forwarder.step(readable)


if __name__ == "__main__":
    main()

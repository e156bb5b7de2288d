"""The line between namespaces: packets arrive at the right host, in order and not before their time."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from mpcbench.parties.forwarder import Forwarder
from mpcbench.parties.tun import address

SIZE = 1000


class Net:
    """Three hosts whose devices are sockets that keep packets apart."""

    def __init__(self, bandwidth: float, delay: float) -> None:
        self.forwarder = Forwarder(bandwidth, delay)
        self.hosts: list[socket.socket] = []
        for host in range(3):
            mine, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            mine.setblocking(False)
            device.setblocking(False)
            self.hosts.append(mine)
            self.forwarder.devices[host] = device.detach()

    def move(self, arrived: list[tuple[int, bytes, float]], count: int) -> None:
        """Until ``count`` packets have arrived; they go to ``arrived`` with host and time."""
        started = time.perf_counter()
        self.forwarder.step(list(self.forwarder.devices.values()))
        while len(arrived) < count and time.perf_counter() - started < 10:
            self.forwarder.step([])
            for host, end in enumerate(self.hosts):
                try:
                    arrived.append((host, end.recv(1 << 16), time.perf_counter() - started))
                except BlockingIOError:
                    continue


@pytest.fixture
def make_net() -> Iterator[type[Net]]:
    made = []

    def make(bandwidth: float, delay: float) -> Net:
        made.append(Net(bandwidth, delay))
        return made[-1]

    yield make
    for net in made:
        for end in net.hosts:
            end.close()
        for device in net.forwarder.devices.values():
            os.close(device)


def packet(target: int, mark: int, version: int = 4) -> bytes:
    """Something with the two fields of an IPv4 header that matter here."""
    header = bytearray(20)
    header[0] = version << 4 | 5
    header[16:20] = socket.inet_aton(address(target))
    return bytes(header) + bytes([mark]) * (SIZE - 20)


def test_packets_find_their_host_after_the_delay(make_net) -> None:
    net, arrived = make_net(0.0, 0.05), []
    for mark, (source, target) in enumerate([(0, 1), (1, 2), (2, 0)]):
        net.hosts[source].send(packet(target, mark))
    net.move(arrived, 3)
    assert sorted((host, data) for host, data, _ in arrived) == [
        (0, packet(0, 2)), (1, packet(1, 0)), (2, packet(2, 1)),
    ]  # fmt: skip
    assert all(seconds >= 0.05 for _, _, seconds in arrived)


def test_a_direction_carries_one_packet_after_another(make_net) -> None:
    """And the other direction, and other hosts, are lines of their own."""
    bandwidth = 8 * SIZE / 0.05
    net, arrived = make_net(bandwidth, 0.0), []
    for mark in range(4):
        net.hosts[0].send(packet(1, mark))
    net.hosts[1].send(packet(0, 9))
    net.hosts[2].send(packet(1, 8))
    net.move(arrived, 6)
    from_first = [(data, seconds) for host, data, seconds in arrived if host == 1 and data[-1] < 8]
    assert [data[-1] for data, _ in from_first] == [0, 1, 2, 3]
    assert all(seconds >= 0.05 * (mark + 1) for mark, (_, seconds) in enumerate(from_first))
    others = [seconds for _, data, seconds in arrived if data[-1] >= 8]
    assert max(others) < from_first[-1][1]


def test_what_nobody_waits_for_is_dropped(make_net) -> None:
    net, arrived = make_net(0.0, 0.0), []
    net.hosts[0].send(packet(7, 0))
    net.hosts[0].send(packet(1, 1, version=6))
    net.hosts[0].send(packet(1, 2))
    net.move(arrived, 1)
    assert [(host, data[-1]) for host, data, _ in arrived] == [(1, 2)]
    assert net.forwarder.patience() is None

"""A pod's bandwidth: how much gets through, and that a slot's next owner does not inherit it."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.lib.errors import ConflictError
from cuboid.lib.linux import netns
from cuboid.net.base import Attachment, Bandwidth, PortMapping
from tests.harness.network import (
    OUTSIDE_IP,
    Guest,
    HostNet,
    Who,
    connection,
    guest_of,
    host_net,
    inside,
    listener,
    missing,
)

pytestmark = [pytest.mark.net, pytest.mark.skipif(bool(missing()), reason=missing())]
WHO: Who = {"namespace": "default", "name": "web"}
SLOW = Bandwidth(ingress=8_000_000, egress=4_000_000)  # 1 and 0.5 MB/s
PAYLOAD = 600_000  # bytes


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[HostNet]:
    async with host_net(tmp_path) as made:
        yield made


def rates(attachment: Attachment) -> dict[str, int]:
    """Bits/s by interface, as the kernel tells them."""
    queues: list[dict[str, Any]] = json.loads(inside(attachment.netns, "tc", "-j", "qdisc", "show"))
    return {q["dev"]: 8 * q["options"]["rate"] for q in queues if q["kind"] == "tbf"}


async def seconds_to_send(host: HostNet, guest: Guest, *, from_guest: bool) -> float:
    """Until PAYLOAD bytes have arrived on the other side."""
    server = await netns.run_in(host.outside, listener(80))
    client = await guest.socket(connection(OUTSIDE_IP, 80))
    accepted, _ = server.accept()
    sender, receiver = (client, accepted) if from_guest else (accepted, client)

    def receive() -> int:
        return sum(map(len, iter(lambda: receiver.recv(65536), b"")))

    with server, client, accepted:
        started = time.monotonic()
        receiving = asyncio.to_thread(receive)

        def send() -> None:
            sender.sendall(bytes(PAYLOAD))
            sender.shutdown(socket.SHUT_WR)

        received, _ = await asyncio.gather(receiving, asyncio.to_thread(send))
        assert received == PAYLOAD
        return time.monotonic() - started


@pytest.mark.parametrize("prepared", [False, True])
async def test_no_more_than_the_limit_gets_through_in_either_direction(
    host: HostNet, tmp_path: Path, prepared: bool
) -> None:
    network = host.network()
    if prepared:
        await network.prepare("pod")
        attachment = await network.adopt("pod", **WHO, limits=SLOW)
    else:
        attachment = await network.attach("pod", **WHO, limits=SLOW)
    async with guest_of(attachment, tmp_path) as guest:
        down = await seconds_to_send(host, guest, from_guest=False)
        up = await seconds_to_send(host, guest, from_guest=True)
    assert down > 0.4  # 600 kB, of which 128 KiB may go at once, at 1 MB/s
    assert up > 0.8  # at 0.5 MB/s
    await network.detach("pod")
    assert host.leftovers() == []


async def test_limits_are_kept_per_direction_and_up_to_many_gigabits(host: HostNet) -> None:
    network = host.network()
    one = await network.attach("one", **WHO, limits=Bandwidth(ingress=1000))
    assert rates(one) == {"tap0": 1000}
    other = await network.attach("other", **WHO, limits=Bandwidth(egress=100_000_000_000))
    assert rates(other) == {"eth0": 100_000_000_000}
    await network.check("one")


async def test_a_failed_adoption_leaves_no_limit_behind(host: HostNet) -> None:
    network = host.network()
    await network.attach("first", **WHO, ports=(PortMapping(8080, 80),))
    slot = await network.prepare("slot")
    with pytest.raises(ConflictError):
        await network.adopt("slot", **WHO, limits=SLOW, ports=(PortMapping(8080, 80),))
    assert rates(slot) == {}
    await network.adopt("slot", **WHO)
    assert rates(slot) == {}


async def test_limits_of_a_record_survive_a_restart(host: HostNet) -> None:
    attachment = await host.network().attach("pod", **WHO, limits=SLOW)
    assert await host.network().attach("pod", **WHO, limits=SLOW) == attachment
    assert rates(attachment) == {"tap0": 8_000_000, "eth0": 4_000_000}

"""A pod that is paused answers no question for its address: who connects waits, and is not refused."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.lib.linux import netns
from cuboid.net.base import PortMapping
from tests.harness.network import HostNet, Who, host_net, inside, missing

pytestmark = [pytest.mark.net, pytest.mark.skipif(bool(missing()), reason=missing())]
WHO: Who = {"namespace": "default", "name": "web"}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[HostNet]:
    async with host_net(tmp_path) as made:
        yield made


def known(host: HostNet, address: str) -> list[tuple[str, list[str]]]:
    """What the host knows of an address: MACs with their states."""
    rows: list[dict[str, Any]] = json.loads(inside(host.netns, "ip", "-j", "neigh"))
    return [(row.get("lladdr", ""), row["state"]) for row in rows if row["dst"] == address]


async def connects(host: HostNet, address: str, seconds: float) -> str:
    """The name of the error with which a new connection ends; nobody answers here."""

    def attempt() -> str:
        try:
            socket.create_connection((address, 80), seconds).close()
        except OSError as error:
            return type(error).__name__
        return ""

    return await netns.run_in(host.netns, attempt)


async def test_who_connects_to_a_paused_pod_waits(host: HostNet) -> None:
    network = host.network()
    attachment = await network.attach("pod", **WHO)
    assert await connects(host, attachment.ip, 8) == "OSError", "nobody answers: no route to host"
    await network.hold("pod", frozen=True)
    await network.hold("pod", frozen=True)
    assert known(host, attachment.ip) == [(attachment.mac, ["PERMANENT"])]
    assert await connects(host, attachment.ip, 5) == "TimeoutError", "it waits"


async def test_after_a_pause_the_host_asks_again(host: HostNet) -> None:
    network = host.network()
    attachment = await network.attach("pod", **WHO)
    await network.hold("pod", frozen=True)
    await network.hold("pod", frozen=False)
    assert known(host, attachment.ip) == [(attachment.mac, ["STALE"])]
    await network.hold("pod", frozen=False)


async def test_nothing_is_left_of_a_pod_that_ends_while_it_is_paused(host: HostNet) -> None:
    network = host.network()
    attachment = await network.attach("pod", **WHO)
    await network.attach("other", **WHO)  # the bridge stays
    await network.hold("pod", frozen=True)
    await network.detach("pod")
    assert known(host, attachment.ip) == []
    await network.hold("pod", frozen=True)
    assert known(host, attachment.ip) == [], "a pod that is not attached"


async def test_a_pod_that_was_never_spoken_with_is_no_trouble(host: HostNet) -> None:
    network = host.network()
    attachment = await network.attach("pod", **WHO)
    await network.hold("pod", frozen=False)
    assert all("PERMANENT" not in states for _, states in known(host, attachment.ip))
    await network.detach("pod")


@pytest.mark.parametrize("paused", [True, False])
async def test_a_pod_whose_bridge_was_taken_away_ends(host: HostNet, paused: bool) -> None:
    network = host.network(subnet_v6="fd77::/64")
    await network.attach("pod", **WHO, ports=(PortMapping(8080, 80),))
    await network.hold("pod", frozen=paused)
    inside(host.netns, "ip", "link", "del", "cuboid0")
    await network.detach("pod")
    assert host.leftovers() == []


async def test_a_paused_pod_whose_bridge_was_taken_away_resumes_and_is_not_paused_again(host: HostNet) -> None:
    network = host.network()
    await network.attach("pod", **WHO)
    await network.hold("pod", frozen=True)
    inside(host.netns, "ip", "link", "del", "cuboid0")
    await network.hold("pod", frozen=False)
    with pytest.raises(OSError, match="no interface"):
        await network.hold("pod", frozen=True)

"""Prepared attachments on a real host: what an interrupted or failing adoption leaves, and what a pod gets by one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cuboid.lib.errors import NotFoundError, UnavailableError, UnsupportedError
from cuboid.lib.linux import netns
from cuboid.net.base import PortMapping
from cuboid.net.network import CniNetwork
from tests.harness.network import (
    HOST_IP,
    HostNet,
    Who,
    calls,
    connection,
    guest_of,
    host_net,
    inside,
    kill_when,
    listener,
    missing,
    plugin,
)

pytestmark = [pytest.mark.net, pytest.mark.skipif(bool(missing()), reason=missing())]
WHO: Who = {"namespace": "default", "name": "web"}
PORTS = (PortMapping(8080, 80),)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[HostNet]:
    async with host_net(tmp_path) as made:
        yield made


def with_portmap(host: HostNet, *, add: str, deadline: float = 10.0) -> CniNetwork:
    """The built-in network with a portmap plugin in sh, which ends by the real one's DEL."""
    plugin(host, "portmap", add=add, delete="exec /usr/lib/cni/portmap <$0.stdin")
    return host.network(plugin_folders=(str(host.root / "plugins"), "/usr/lib/cni"), plugin_deadline=deadline)


REAL = "/usr/lib/cni/portmap <$0.stdin"


async def test_a_published_port_of_a_slot_leads_to_its_guest(host: HostNet, tmp_path: Path) -> None:
    network = host.network()
    await network.prepare("slot-1")
    attachment = await network.adopt("slot-1", **WHO, ports=PORTS)
    async with guest_of(attachment, tmp_path) as guest:
        with await guest.socket(listener(80)) as server:
            client = await netns.run_in(host.outside, connection(HOST_IP, 8080))
            with client, server.accept()[0] as accepted:
                accepted.sendall(b"hello")
                assert client.recv(5, socket.MSG_WAITALL) == b"hello"
    await network.detach("slot-1")
    assert host.leftovers() == []


async def test_many_slots_prepared_at_once_have_addresses_of_their_own(host: HostNet) -> None:
    network = host.network(parallel=8)
    slots = await asyncio.gather(*(network.prepare(f"slot-{n}") for n in range(8)))
    assert len({slot.ip for slot in slots}) == 8
    wanted = [network.adopt(f"slot-{n}", **WHO, ports=(PortMapping(8000 + n, 80),)) for n in range(8)]
    assert await asyncio.gather(*wanted) == slots
    await network.clean(set())
    assert host.leftovers() == []


async def test_a_prepare_cancelled_at_any_moment_leaves_nothing(host: HostNet) -> None:
    network = host.network()
    for number, delay in enumerate((0.0, 0.002, 0.008, 0.02, 0.04, 0.06)):
        task = asyncio.create_task(network.prepare(f"slot-{number}"))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await network.detach(f"slot-{number}")
        assert host.leftovers() == [], f"cancelled after {delay} s"


async def test_an_adoption_cancelled_at_any_moment_is_whole_or_undone(host: HostNet) -> None:
    network = host.network()
    slot = await network.prepare("slot")
    for delay in (0.0, 0.001, 0.003, 0.01, 0.02, 0.03):
        task = asyncio.create_task(network.adopt("slot", **WHO, ports=PORTS))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await network.detach("slot")
            slot = await network.prepare("slot")
        assert network.attachments() == {"slot": slot}, f"cancelled after {delay} s"
        assert list((host.root / "claims").glob("*")) == []
        assert "CNI-DN-" not in inside(host.netns, "iptables-save", "-t", "nat")
    await network.adopt("slot", **WHO, ports=PORTS)
    await network.check("slot")


async def test_a_slot_stays_prepared_when_publishing_its_ports_fails(host: HostNet) -> None:
    network = with_portmap(host, add=f"{REAL} >/dev/null; echo oops >&2; exit 1")
    slot = await network.prepare("slot")
    with pytest.raises(UnavailableError, match="oops"):
        await network.adopt("slot", **WHO, ports=PORTS)
    assert calls(host, "portmap") == ["ADD", "DEL"]
    assert list((host.root / "claims").glob("*")) == []
    assert "CNI-DN-" not in inside(host.netns, "iptables-save", "-t", "nat")
    assert await network.adopt("slot", **WHO) == slot


KILLED = """
import asyncio, sys
from pathlib import Path
from cuboid.net.base import PortMapping
from tests.harness.network import HostNet
root = Path(sys.argv[1])
host = HostNet(root, root / "host-ns" / "host", root / "host-ns" / "outside")
network = host.network(plugin_folders=(str(root / "plugins"), "/usr/lib/cni"), plugin_deadline=1.0)
asyncio.run(network.prepare("slot"))
asyncio.run(network.adopt("slot", namespace="default", name="web", ports=(PortMapping(8080, 80),)))
"""


@pytest.mark.parametrize("namespace_lost", [False, True])
async def test_an_adoption_whose_process_was_killed_is_not_whole_and_is_cleaned(
    host: HostNet, namespace_lost: bool
) -> None:
    add = f"{REAL} >/dev/null; echo published >>{host.root}/plugins/portmap.log; exec sleep 60"
    network = with_portmap(host, add=add, deadline=1.0)
    await kill_when(host, "published", "portmap", KILLED, str(host.root))
    assert "CNI-DN-" in host.rules()
    assert network.attachments() == {}
    with pytest.raises(NotFoundError):
        await network.adopt("slot", **WHO)
    if namespace_lost:
        netns.remove(host.root / "a" / "run" / "netns" / "slot")
    assert await network.clean(set()) == ["slot"]
    assert host.leftovers() == []


async def test_a_slot_that_lost_its_tap_is_not_given_away(host: HostNet) -> None:
    network = host.network()
    slot = await network.prepare("slot")
    inside(slot.netns, "ip", "link", "del", slot.tap)
    with pytest.raises(NotFoundError, match="not whole"):
        await network.adopt("slot", **WHO)
    assert await network.clean(set()) == ["slot"]
    assert host.leftovers() == []


async def test_slots_are_found_after_a_restart_and_can_still_be_given_away(host: HostNet) -> None:
    slot = await host.network().prepare("slot-1")
    await host.network().adopt(slot.pod_uid, **WHO, ports=PORTS)
    other = await host.network().prepare("slot-2")
    again = host.network()
    assert again.attachments() == {"slot-1": slot, "slot-2": other}
    assert await again.clean({"slot-1", "slot-2"}) == []
    assert await again.adopt("slot-2", **WHO) == other
    await again.clean(set())
    assert host.leftovers() == []


async def test_a_network_of_third_party_plugins_prepares_nothing(host: HostNet) -> None:
    folder = host.root / "cni.d"
    folder.mkdir()
    (folder / "1.conflist").write_text('{"cniVersion": "1.0.0", "name": "theirs", "plugins": [{"type": "theirs"}]}')
    network = host.network()
    assert not network.prepares
    with pytest.raises(UnsupportedError, match="theirs prepares nothing"):
        await network.prepare("slot")
    assert host.leftovers() == []

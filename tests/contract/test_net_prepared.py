"""Prepared attachments on a real host: what an interrupted or failing adoption leaves, and what a pod gets by one."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from cuboid.lib.errors import ConflictError, NotFoundError, UnsupportedError
from cuboid.lib.linux import netns
from cuboid.net import netlink, redirect, wire
from cuboid.net.base import NO_LIMITS, Bandwidth, PortMapping
from cuboid.net.conntrack import _udp_port
from tests.harness.network import (
    HOST_IP,
    HostNet,
    Who,
    connection,
    guest_of,
    host_net,
    inside,
    listener,
    missing,
    udp,
)

pytestmark = [pytest.mark.net, pytest.mark.skipif(bool(missing()), reason=missing())]
WHO: Who = {"namespace": "default", "name": "web"}
PORTS = (PortMapping(8080, 80),)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[HostNet]:
    async with host_net(tmp_path) as made:
        yield made


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
        assert host.published() == []
    await network.adopt("slot", **WHO, ports=PORTS)
    await network.check("slot")


async def test_a_slot_stays_prepared_when_publishing_its_ports_fails(
    host: HostNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = host.network()
    slot = await network.prepare("slot")
    publish = redirect.publish

    def half(bridge: str, uid: str, ports: Sequence[PortMapping], addresses: Sequence[str]) -> None:
        publish(bridge, uid, ports[:1], addresses)
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(redirect, "publish", half)
    with pytest.raises(OSError, match="no memory"):
        await network.adopt("slot", **WHO, ports=(*PORTS, PortMapping(8081, 81)))
    monkeypatch.undo()
    assert list((host.root / "claims").glob("*")) == []
    assert host.published() == []
    assert await network.adopt("slot", **WHO, ports=PORTS) == slot
    (published,) = host.published()
    assert "slot" in published


async def flow(host: HostNet, port: int) -> None:
    """The outside has said something to this UDP port of the host's, and the kernel remembers it."""
    with await netns.run_in(host.outside, udp()) as client:
        client.sendto(b"hello", (HOST_IP, port))


async def flows(host: HostNet, port: int) -> set[bytes]:
    """The ids of the connections to a UDP port that the host's kernel tracks."""
    table, original, connection_id = 1 << 8 | 1, 1, 12  # linux/netfilter/nfnetlink_conntrack.h
    found = await netns.run_in(
        host.netns, lambda: list(netlink.dump(netlink.NETFILTER, table, netlink.filter_header(socket.AF_INET)))
    )
    tracked = (netlink.attributes(entry[4:]) for entry in found)
    return {each[connection_id] for each in tracked if _udp_port(each[original]) == port}


async def test_an_adoption_that_is_refused_a_port_leaves_the_connections_of_the_pod_that_has_it(host: HostNet) -> None:
    network = host.network()
    await network.attach("first", **WHO, ports=(PortMapping(5353, 53, "udp"),))
    slot = await network.prepare("slot")
    await flow(host, 5353)
    (known,) = await flows(host, 5353)
    for host_ip in ("", "", HOST_IP):
        wanted = (PortMapping(5454, 54, "udp"), PortMapping(5353, 53, "udp", host_ip))
        with pytest.raises(ConflictError, match="5353/udp is taken by the pod"):
            await network.adopt("slot", **WHO, ports=wanted)
        assert await flows(host, 5353) == {known}
    assert network.attachment("slot") == slot


async def test_an_adoption_that_is_refused_a_port_leaves_the_connections_of_the_process_that_has_it(
    host: HostNet,
) -> None:
    network = host.network()
    await network.attach("first", **WHO)  # with the rules come tracked connections
    slot = await network.prepare("slot")
    with await netns.run_in(host.netns, udp(5353)):
        await flow(host, 5353)
        (known,) = await flows(host, 5353)
        with pytest.raises(ConflictError, match=r"5353/udp is taken by .+ \(pid \d+\)"):
            await network.adopt("slot", **WHO, ports=(PortMapping(5353, 53, "udp"),))
        assert await flows(host, 5353) == {known}
    assert network.attachment("slot") == slot
    assert list((host.root / "claims").glob("*")) == []


@pytest.mark.parametrize("step", ["withdraw", "limit"])
async def test_a_slot_whose_failed_adoption_could_not_be_undone_is_nobodys_until_it_is_detached(
    host: HostNet, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Its ports may lead to it, its limits may hold: who is told NotFoundError takes another and detaches this one."""
    network = host.network()
    await network.prepare("slot")
    publish, limit = redirect.publish, wire.limit

    def half(bridge: str, uid: str, ports: Sequence[PortMapping], addresses: Sequence[str]) -> None:
        publish(bridge, uid, ports[:1], addresses)
        raise OSError(errno.ENOMEM, "no memory")

    def not_withdrawn(bridge: str, ports: Sequence[PortMapping], addresses: Sequence[str]) -> None:
        raise OSError(errno.EIO, "not undone")

    async def only_set(namespace: Path, limits: Bandwidth) -> None:
        if limits == NO_LIMITS:
            raise OSError(errno.EIO, "not undone")
        await limit(namespace, limits)

    monkeypatch.setattr(redirect, "publish", half)
    monkeypatch.setattr(redirect, "withdraw", not_withdrawn if step == "withdraw" else redirect.withdraw)
    monkeypatch.setattr(wire, "limit", only_set if step == "limit" else limit)
    with pytest.raises(OSError, match="no memory"):
        await network.adopt("slot", **WHO, ports=PORTS, limits=Bandwidth(ingress=10**6))
    monkeypatch.undo()
    assert len(host.published()) == 1
    for again in (network, host.network()):
        assert again.attachments() == {}
        assert again.attachment("slot") is None
        with pytest.raises(NotFoundError, match="no prepared network slot"):
            await again.adopt("slot", **WHO)
    with pytest.raises(ConflictError, match="8080/tcp is taken by the pod default/web"):
        await network.attach("other", namespace="default", name="other", ports=PORTS)
    await network.detach("slot")
    assert host.leftovers() == []


KILLED = """
import asyncio, os, sys
from pathlib import Path
from cuboid.net import redirect
from cuboid.net import netlink, redirect, wire
from cuboid.net.base import NO_LIMITS, Bandwidth, PortMapping
from tests.harness.network import HostNet
root = Path(sys.argv[1])
host = HostNet(root, root / "host-ns" / "host", root / "host-ns" / "outside")
network = host.network()
publish = redirect.publish
def killed(*arguments):
    publish(*arguments)
    os.kill(os.getpid(), 9)
redirect.publish = killed
asyncio.run(network.prepare("slot"))
asyncio.run(network.adopt("slot", namespace="default", name="web", ports=(PortMapping(8080, 80),)))
"""


@pytest.mark.parametrize("namespace_lost", [False, True])
async def test_an_adoption_whose_process_was_killed_is_not_whole_and_is_cleaned(
    host: HostNet, namespace_lost: bool
) -> None:
    network = host.network()
    environment = {**os.environ, "PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'src'}"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(host.root), env=environment)
    async with asyncio.timeout(20):
        assert await process.wait() == -9
    assert len(host.published()) == 1
    assert network.attachments() == {}
    with pytest.raises(NotFoundError):
        await network.adopt("slot", **WHO)
    if namespace_lost:
        netns.remove(host.root / "a" / "run" / "netns" / "slot")
    assert await network.clean(set()) == ["slot"]
    async with asyncio.timeout(10):
        while (
            namespace_lost and host.veths()
        ):  # the kernel takes a lost namespace's links away by itself, a little later
            await asyncio.sleep(0.05)
    assert host.leftovers() == []


async def test_undoing_a_killed_adoption_leaves_the_port_to_the_pod_that_had_it(host: HostNet) -> None:
    """Killed after its record named the port and before the claim was refused."""
    network, ports = host.network(), (*PORTS, PortMapping(5353, 53, "udp"))
    await network.attach("first", **WHO, ports=ports)
    await network.prepare("slot")
    await flow(host, 5353)
    known = await flows(host, 5353)
    path = host.root / "a" / "run" / "net-records" / "slot.json"
    record = json.loads(path.read_bytes())
    record |= {"phase": "publishing", "ports": [asdict(port) for port in ports]}
    path.write_text(json.dumps(record))
    await host.network().detach("slot")
    assert len(host.published()) == 2
    assert len(known) == 1
    assert await flows(host, 5353) == known
    await network.check("first")


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

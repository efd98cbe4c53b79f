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

from cuboid.lib.errors import NotFoundError, UnsupportedError
from cuboid.lib.linux import netns
from cuboid.net import redirect
from cuboid.net.base import PortMapping
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


KILLED = """
import asyncio, os, sys
from pathlib import Path
from cuboid.net import redirect
from cuboid.net import redirect
from cuboid.net.base import PortMapping
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
    assert host.leftovers() == []


async def test_undoing_a_killed_adoption_leaves_the_port_to_the_pod_that_had_it(host: HostNet) -> None:
    """Killed after its record named the port and before the claim was refused."""
    network = host.network()
    await network.attach("first", **WHO, ports=PORTS)
    await network.prepare("slot")
    path = host.root / "a" / "run" / "net-records" / "slot.json"
    record = json.loads(path.read_bytes())
    record |= {"phase": "publishing", "ports": [asdict(port) for port in PORTS]}
    path.write_text(json.dumps(record))
    await host.network().detach("slot")
    assert len(host.published()) == 1
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

"""Machines made ahead: a start takes one, a miss is slower and never a failure, and nothing is left of any of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cuboid.guest.client import AgentClient
from cuboid.lib.errors import ConflictError, ExhaustedError, UnavailableError
from cuboid.node.daemon import NodeDaemon
from cuboid.node.settings import NodeSettings
from cuboid.node.warm.machines import WarmMachines
from cuboid.vmm.fake import FakeVm
from tests.harness.node_world import SETTINGS, Host, ready

WARM = replace(SETTINGS, templates=4, warm_min=1, warm_max=4, warm_percent=100)
RESTORED = replace(WARM, warm_min=0, warm_max=0)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.end()


@asynccontextmanager
async def running(host: Host, settings: NodeSettings = WARM) -> AsyncIterator[WarmMachines]:
    """A node agent, with as many machines waiting as it always has."""
    async with host.agent_running(settings) as daemon:
        machines = _machines(daemon)
        await host.api.until(lambda: waiting(machines) >= settings.warm_min)
        yield machines


def _machines(daemon: NodeDaemon) -> WarmMachines:
    return daemon._tools.warm


def waiting(machines: WarmMachines) -> int:
    return sum(machines.counts().values())


def receipt(host: Host, name: str = "demo") -> dict[str, Any]:
    text = host.api.pods["default", name]["metadata"]["annotations"].get("cuboid.dev/receipt", "{}")
    found: dict[str, Any] = json.loads(text)
    return found


async def started(host: Host, name: str = "demo", **spec: Any) -> str:
    """Start a pod; how its machine came up."""
    host.api.put(host.pod(name, **spec))
    await host.api.until(lambda: ready(host.api.status(name)) and receipt(host, name))
    return str(receipt(host, name)["start"])


async def gone(host: Host) -> None:
    """No pod is in the API, and none on record."""
    await host.api.until(lambda: not host.api.pods and not list((host.folder / "state" / "pods").iterdir()))


async def test_a_start_takes_the_machine_that_waits(host: Host) -> None:
    async with running(host) as machines:
        (vm,) = host.vms.machines
        assert await started(host) == "warm"
        assert vm in host.vms.machines and vm.startswith("warm-")
        agent = host.agents[vm]
        assert agent.setup is not None and agent.setup.interfaces[0].device == "eth0"
        assert len(agent.rehearsals) == 1 and agent.containers["app"].call.args == ["/app"]
        await host.api.until(lambda: waiting(machines) >= 1)


async def test_a_machine_that_waits_is_not_taken_for_one_that_is_lost(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AgentClient.__init__, "__kwdefaults__", {"on_final": None, "ping_seconds": 0.1})
    async with running(host):
        (vm,) = host.vms.machines
        agent = host.agents[vm]
        with monkeypatch.context() as silent:
            silent.setattr(agent.wire, "send", lambda *_, **__: None)
            await asyncio.sleep(0.7)
        assert agent.wire.greetings == 1, "its connection is the one it had"
        assert await started(host) == "warm"


async def test_nothing_is_left_of_a_pod_that_had_one(host: Host) -> None:
    async with running(host):
        await started(host)
        host.api.delete("demo")
        await gone(host)
    assert host.leftovers() == []


async def test_its_disks_and_limits_are_the_pod_s(host: Host) -> None:
    async with running(host):
        (vm,) = host.vms.machines
        await started(host)
        machine = host.vms.machines[vm]
        paths = {serial: disk.path for serial, disk in machine.disks.items()}
        assert paths["ro0"] == host.images._device
        assert str(host.api.pods["default", "demo"]["metadata"]["uid"]) in str(paths["rw0"])


async def test_a_pod_of_another_size_finds_none_and_boots(host: Host) -> None:
    big = [{"name": "app", "image": "demo:1", "resources": {"limits": {"memory": "3Gi"}}}]
    async with running(host):
        assert await started(host, containers=big) == "cold"
        second = await started(host, "second", containers=big)
        assert second in ("warm", "restored", "cold")
        await host.api.until(lambda: len(list((host.folder / "templates").iterdir())) == 2)


async def test_without_waiting_machines_a_pod_is_restored_in_its_own_network(host: Host) -> None:
    async with running(host, RESTORED) as machines:
        assert await started(host) == "cold"
        await host.api.until(
            lambda: (host.folder / "templates").is_dir() and any((host.folder / "templates").iterdir())
        )
        await asyncio.sleep(0.1)
        assert await started(host, "second") == "restored"
        assert machines.counts() == {}
        names = [phase["name"] for phase in receipt(host, "second")["phases"]]
        assert "agent" in names and "kernel" not in names


async def test_a_machine_that_cannot_take_the_pod_s_disk_is_replaced_by_a_restore(host: Host) -> None:
    async with running(host):
        host.driver.fail_next("attach_disk", UnavailableError("the slot is stuck"))
        assert await started(host) == "restored"
        assert any("the slot is stuck" in note for note in receipt(host)["notes"])
        host.api.delete("demo")
        await gone(host)
    assert host.leftovers() == []


async def test_a_template_that_cannot_be_restored_is_looked_at_and_the_pod_boots(host: Host) -> None:
    async with running(host, RESTORED):
        await started(host)
        await host.api.until(lambda: any((host.folder / "templates").glob("*")))
        await asyncio.sleep(0.1)
        host.driver.fail_next("restore", ConflictError("made under another CPU", reason="SnapshotIncompatible"))
        host.driver.fail_next("verify", ConflictError("a byte is wrong", reason="SnapshotCorrupt"))
        assert await started(host, "second") == "cold"
        assert any("made under another CPU" in note for note in receipt(host, "second")["notes"])
        await asyncio.sleep(0.3)
        assert await started(host, "third") == "restored"


async def test_a_template_that_cannot_be_made_costs_no_pod_its_start(host: Host) -> None:
    host.driver.fail_next("snapshot", UnavailableError("no room"), times=9)
    async with host.agent_running(WARM):
        assert await started(host) == "cold"
        assert await started(host, "second") == "cold"
        host.api.delete("demo")
        host.api.delete("second")
        await gone(host)
    assert host.leftovers() == []


async def test_one_that_ends_while_it_waits_is_replaced(host: Host) -> None:
    async with running(host) as machines:
        (vm,) = host.vms.machines
        await host.driver.vmm_die(vm)
        await host.api.until(lambda: waiting(machines) == 1 and len(host.vms.machines) == 1)
        assert vm not in host.vms.machines
        assert await started(host) == "warm"


async def test_a_taken_port_leaves_the_machine_to_the_next_pod(host: Host) -> None:
    ports = [{"name": "app", "image": "demo:1", "ports": [{"containerPort": 80, "hostPort": 8080}]}]
    async with running(host) as machines:
        assert await started(host, containers=ports) == "warm"
        await host.api.until(lambda: waiting(machines) >= 1)
        host.api.put(host.pod("second", containers=ports))
        await host.api.until(lambda: host.api.status("second").get("reason") == "PortTaken", seconds=20)
        await host.api.until(lambda: waiting(machines) >= 1)


async def test_an_agent_that_ends_takes_waiting_machines_with_it_and_no_pod(host: Host) -> None:
    async with running(host) as machines:
        await started(host)
        await host.api.until(lambda: waiting(machines) >= 1)
        (mine,) = [vm for vm, agent in host.agents.items() if agent.setup is not None]
    assert list(host.vms.machines) == [mine]


async def test_after_a_kill_waiting_machines_are_swept_and_a_pod_s_own_is_found_again(host: Host) -> None:
    daemon = NodeDaemon(host.tools(WARM), host.folder / "state", host.claims, boot_id=host.boot_id)
    task = asyncio.ensure_future(daemon.run(asyncio.Event()))
    await host.api.until(lambda: waiting(_machines(daemon)) >= 1)
    assert await started(host) == "warm"
    await host.api.until(lambda: waiting(_machines(daemon)) >= 1)
    (mine,) = [vm for vm, agent in host.agents.items() if agent.setup is not None]
    before, networks = set(host.vms.machines), len(host.network.attachments())
    assert len(before) >= 2 and networks >= 2
    _machines(daemon)._idle.clear()  # as if killed: nobody says goodbye to them
    task.cancel()
    await asyncio.wait([task])
    for view in daemon.pods():
        await view.work.close_guest()  # type: ignore[attr-defined]
    async with host.agent_running(RESTORED):
        await host.api.until(lambda: set(host.vms.machines) == {mine})
        await host.api.until(lambda: ready(host.api.status("demo")))
        assert host.agents[mine].containers["app"].call.attempt == 0
        host.api.delete("demo")
        await gone(host)
    assert host.leftovers() == []


async def test_a_burst_is_served_and_the_next_one_finds_its_machines(host: Host) -> None:
    async with running(host, replace(WARM, warm_max=8)) as machines:
        first = await asyncio.gather(*(started(host, f"a{number}") for number in range(6)))
        assert "warm" in first
        await host.api.until(lambda: waiting(machines) >= 6, seconds=30)
        second = await asyncio.gather(*(started(host, f"b{number}") for number in range(6)))
        assert second == ["warm"] * 6


async def test_a_pod_removed_while_it_takes_a_machine_leaves_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def for_ever(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with running(host) as machines:
        monkeypatch.setattr(FakeVm, "attach_disk", for_ever)
        host.api.put(host.pod())
        await asyncio.wait_for(begun.wait(), 10)
        (mine,) = [vm for vm in host.vms.machines if vm not in {row["vm"] for row in machines.rows()}]
        host.api.delete("demo", grace=0)
        await gone(host)
        assert mine not in host.vms.machines
    assert host.leftovers() == []


async def test_a_full_disk_ends_no_pool(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    full = [ExhaustedError("the disk is full")] * 2

    async def prepare(*_: object) -> None:
        if full:
            raise full.pop()

    monkeypatch.setattr(host.disks, "prepare_writables", prepare)
    monkeypatch.setattr("cuboid.node.warm.machines.RETRY_SECONDS", 0.05)
    async with running(host):
        assert not full
        assert await started(host) == "warm"


async def test_a_machine_that_waits_is_left_in_peace(host: Host) -> None:
    """Its guest stands still: what is written to it piles up, and a channel cut for its silence would be missed."""
    async with running(host) as machines:
        (machine,) = machines._idle[next(iter(machines.counts()))]
        client = machine.guest
        assert isinstance(client, AgentClient) and client._frozen
        await started(host)
        assert not client._frozen


async def test_a_host_without_an_address_blames_no_template(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cuboid.node.warm.machines.RETRY_SECONDS", 0.05)
    async with running(host) as machines:
        host.network.fail("prepare", ExhaustedError("no IP addresses available"))
        host.driver.fail_next("verify", ConflictError("read for nothing"))
        assert await started(host) == "warm"
        await host.api.until(lambda: waiting(machines) >= 1)
        assert host.driver._failures.get("verify")


async def test_a_killed_adoption_gives_its_ports_back_before_the_pod_asks_again(host: Host) -> None:
    ports = [{"name": "app", "image": "demo:1", "ports": [{"containerPort": 80, "hostPort": 8080}]}]
    daemon = NodeDaemon(host.tools(WARM), host.folder / "state", host.claims, boot_id=host.boot_id)
    adopt = host.network.adopt

    async def adopt_and_die(slot: str, **rest: Any) -> Any:
        await adopt(slot, **rest)
        _machines(daemon)._idle.clear()
        task.cancel()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(daemon.run(asyncio.Event()))
    await host.api.until(lambda: waiting(_machines(daemon)) >= 1)
    host.network.adopt = adopt_and_die  # type: ignore[method-assign]
    host.api.put(host.pod(containers=ports))
    await asyncio.wait([task])
    host.network.adopt = adopt  # type: ignore[method-assign]
    async with host.agent_running(RESTORED):
        await host.api.until(lambda: ready(host.api.status("demo")))
        host.api.delete("demo")
        await gone(host)
    assert host.leftovers() == []


async def test_a_machine_that_lost_its_network_is_discarded_and_the_next_one_taken(host: Host) -> None:
    async with running(host, replace(WARM, warm_min=2)) as machines:
        first = next(iter(machines.rows()))
        host.network.break_pod(str(first["slot"]))
        assert await started(host) == "warm"
        assert first["vm"] not in host.vms.machines

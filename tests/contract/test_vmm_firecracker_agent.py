"""A pod's whole way over the Firecracker driver: its agent is greeted, called, paused with, restored and ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.client import AgentClient
from cuboid.vmm.base import Disk, EndCause, State
from cuboid.vmm.firecracker.vm import FirecrackerVm
from tests.harness.firecracker.bench import FirecrackerBench
from tests.harness.firecracker.needs import needs_protocol

pytestmark = [needs_protocol]

SETUP = pb.Setup(hostname="pod", images=[pb.Device(name="image", serial="image")])
SLOTS = (Disk("image", None, True), Disk("data", None, False))


@pytest.fixture
async def bench() -> AsyncIterator[FirecrackerBench]:
    made = FirecrackerBench()
    try:
        assert (await made.driver.probe()).usable
        made.faults(guest="agent")
        yield made
    finally:
        await made.close()


def client_of(vm: object) -> AgentClient:
    assert isinstance(vm, FirecrackerVm)
    return AgentClient(vm.open_channel, name=vm.id)


async def test_a_pod_from_its_template_to_its_end(bench: FirecrackerBench, tmp_path: Path) -> None:
    template = await bench.running(id="template", template=True, disks=SLOTS)
    client = client_of(template)
    await client.connect(timeout=10)
    await client.close()
    await template.pause()
    await template.snapshot(tmp_path / "snapshot")
    await template.kill()
    for name in ("image", "data"):
        (tmp_path / name).write_bytes(bytes(1 << 20))
        (tmp_path / name).chmod(0o600)
    vm = await bench.driver.restore(bench.spec(id="pod", disks=SLOTS), tmp_path / "snapshot")
    for slot in SLOTS:
        await vm.attach_disk(Disk(slot.serial, tmp_path / slot.serial, slot.read_only))
    client = client_of(vm)
    await vm.resume()
    await client.connect(timeout=10)
    await client.setup(SETUP)
    assert (await client.list()).set_up
    await client.shutdown()
    await client.close()
    assert (await asyncio.wait_for(vm.wait(), 10)).cause == EndCause.POWEROFF
    assert await bench.driver.leftovers(set()) == []


async def test_a_connection_outlives_a_pause_and_a_restart_of_ours(bench: FirecrackerBench) -> None:
    vm = await bench.running()
    client = client_of(vm)
    await client.connect(timeout=10)
    await client.setup(SETUP)
    await vm.pause()
    await vm.resume()
    assert (await client.list()).set_up
    await client.close()
    await bench.restart()
    again = await bench.driver.recover(vm.handle())
    assert again is not None
    assert again.state == State.RUNNING
    client = client_of(again)
    await client.connect(timeout=10)
    assert (await client.list()).set_up
    await client.close()


async def test_an_agent_of_a_paused_vm_is_waited_for(bench: FirecrackerBench) -> None:
    vm = await bench.running()
    await vm.pause()
    client = client_of(vm)
    connecting = asyncio.create_task(client.connect(timeout=20))
    await asyncio.sleep(0.1)
    assert not connecting.done()
    await vm.resume()
    await connecting
    await client.close()

"""Ends that nobody asked for: an agent that gives up, memory that never suffices, a volume beyond its limit."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest import initramfs
from cuboid.guest.assets import GENERAL, guest_assets
from cuboid.guest.client import AgentClient
from cuboid.guest.errors import GuestError
from cuboid.vmm.base import Boot, EndCause
from tests.harness.guest_image import ROOT
from tests.harness.guest_rig import Rig, real_guest
from tests.harness.vms import Vms, needs_vms

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180), needs_vms]
MIB = 1 << 20


def broken_initramfs(folder: Path) -> Path:
    """One whose last module is not there: the agent gives up after the console's bus was found."""
    assets = guest_assets(kind=GENERAL)
    modules = initramfs.Modules(ROOT / "build/kernel/modules" / initramfs.kernel_release(assets.kernel))
    rows = initramfs.members((ROOT / "build/guest/cuboid-agent").read_bytes(), modules, initramfs.SMALL)
    rows = [row for row in rows if row.name != "etc/modules.load"]
    (good,) = (row for row in initramfs.members(b"", modules, ()) if row.name == "etc/modules.load")
    rows.append(initramfs.Member("etc/modules.load", stat.S_IFREG | 0o644, good.data + b"/lib/modules/missing.ko\n"))
    path = folder / "initramfs"
    data = initramfs.cpio(rows)
    path.write_bytes(data + bytes(-len(data) % initramfs.PAGE))
    return path


async def test_why_an_agent_gave_up_is_on_the_console_and_in_the_end_s_detail() -> None:
    async with Vms("fatal") as vms:
        boot = Boot(guest_assets(kind=GENERAL).kernel, broken_initramfs(vms.folder))
        vm = await vms.create(vms.spec(boot=boot))
        await vm.start()
        ended = await asyncio.wait_for(vm.wait(), 90)
        assert ended.cause is EndCause.POWEROFF
        assert "cuboid-agent: fatal: " in ended.detail and "missing.ko" in ended.detail
        assert "missing.ko" in vm.console_tail()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        yield await real_guest(tmp_path, stack)


async def test_lack_of_memory_and_of_disk_is_told(rig: Rig) -> None:
    events: asyncio.Queue[pb.Event] = asyncio.Queue()
    client = AgentClient(rig.path, events.put)
    await client.connect(timeout=rig.boot_seconds)
    setup = pb.Setup()
    setup.CopyFrom(rig.setup)
    setup.volumes.add(name="small").disk.size_bytes = 2 * MIB
    setup.volumes.add(name="large").disk.size_bytes = 64 * MIB
    await client.setup(setup)
    await check_memory(client, events)
    await check_volumes(client, events)
    await check_awaited_output(client)
    assert (await client.stats()).agent_memory_bytes < 6 * MIB
    await client.close()


async def told(events: asyncio.Queue[pb.Event], kind: str) -> pb.Event:
    async with asyncio.timeout(60):
        while (event := await events.get()).WhichOneof("event") != kind:
            pass
    return event


def container(name: str, script: str, **more: object) -> pb.StartContainer:
    fields = {"args": ["sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", **more}
    return pb.StartContainer(name=name, image="image", **fields)  # type: ignore[arg-type]


async def check_memory(client: AgentClient, events: asyncio.Queue[pb.Event]) -> None:
    """A limit that not even the start of the program fits in."""
    tiny = container("tiny", "sleep 1000", resources=pb.Resources(memory_bytes=64 << 10))
    try:
        await client.start_container(tiny)
    except GuestError as refused:
        assert refused.code == pb.Error.NO_MEMORY
        return
    status = (await told(events, "exited")).exited.exit
    assert (status.code, status.oom_killed) == (137, True)


async def check_volumes(client: AgentClient, events: asyncio.Queue[pb.Event]) -> None:
    mounts = [pb.Mount(volume="small", path="/small"), pb.Mount(volume="large", path="/large")]
    fill = "head -c 4000000 /dev/zero > /large/file; head -c 4000000 /dev/zero > /small/file; sleep 1000"
    await client.start_container(container("filler", fill, mounts=mounts))
    over = (await told(events, "volume_over_limit")).volume_over_limit
    assert (over.volume, over.limit_bytes) == ("small", 2 * MIB)


async def check_awaited_output(client: AgentClient) -> None:
    """More than the history holds waits for who was announced; none of it is lost, and none comes twice."""
    await client.start_container(container("talker", "seq 1 100000; sleep 1000", await_attach=True))
    await asyncio.sleep(1)  # long enough for all of it, were it not held
    text = b""
    call = pb.Attach(container="talker", stdout=True, history=True)
    async with asyncio.timeout(60), await client.attach(call) as stream:
        async for _, data in stream.received():
            text += data
            if text.endswith(b"\n100000\n"):
                break
    assert text.splitlines() == [b"%d" % number for number in range(1, 100_001)]

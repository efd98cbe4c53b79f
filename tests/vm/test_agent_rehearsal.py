"""A rehearsal runs everything that a pod needs and leaves no trace of it."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.client import AgentClient
from cuboid.guest.errors import CommandError
from cuboid.node.warm import rehearsal as warm
from cuboid.vmm.base import Disk
from tests.harness.clones import Clones
from tests.harness.clones import start as clone_start
from tests.harness.guest_rig import Rig, image, real_guest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180)]

# What somebody who may see everything can see: a privileged container.
LOOK = r"""
cat /proc/mounts /proc/self/cgroup /proc/sys/kernel/hostname /proc/sys/kernel/domainname /proc/sys/net/core/somaxconn
echo / /* /sys/fs/cgroup/* /dev/shm/* /proc/[0-9]* /sys/class/net/* /volumes/*/*
cat /proc/net/dev /proc/net/route /proc/net/fib_trie /proc/net/tcp /proc/net/udp /proc/swaps /proc/net/unix
"""


def setup_of(rig: Rig) -> pb.Setup:
    setup = pb.Setup(shm_bytes=1 << 20, sysctls={"net.core.somaxconn": "77"}, share_process_namespace=True)
    setup.MergeFrom(rig.setup)
    setup.volumes.add(name="memory").memory.size_bytes = 1 << 20
    setup.volumes.add(name="disk").disk.size_bytes = 1 << 20
    setup.volumes.add(name="config").files.files.add(path="key", content=b"one", mode=0o444)
    return setup


def start(name: str, script: str, **more: object) -> pb.StartContainer:
    mounts = [pb.Mount(volume=volume, path=f"/volumes/{volume}") for volume in ("memory", "disk", "config")]
    call = pb.StartContainer(
        name=name, image="image", args=["sh", "-c", script], env=["PATH=/bin"], cwd="/", mounts=mounts,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip
    call.security.privileged = True
    return call


def rehearsal(rig: Rig, script: str) -> pb.Rehearse:
    setup = setup_of(rig)
    setup.entropy, setup.hostname, setup.domainname = os.urandom(64), "rehearsed", "rehearsed"
    setup.machine_id = "0" * 31 + "1"
    return pb.Rehearse(setup=setup, start=start("rehearsed", script, termination_message_path="/end"))


async def seen(client: AgentClient, rig: Rig) -> str:
    """What a pod's container sees of its machine."""
    await client.setup(setup_of(rig))
    await client.start_container(start("app", "exec sleep 1000"))
    output = b""
    async with await client.exec(pb.Exec(container="app", args=["sh", "-c", LOOK])) as stream:
        async for _, data in stream.received():
            output += data
    return output.decode()


async def test_a_pod_after_rehearsals_sees_what_one_in_a_fresh_guest_sees(tmp_path: Path) -> None:
    looks = []
    for rehearsals in (0, 1):
        async with AsyncExitStack() as stack:
            (folder := tmp_path / str(rehearsals)).mkdir()
            rig = await real_guest(folder, stack)
            client = AgentClient(rig.path)
            stack.push_async_callback(client.close)
            await client.connect(timeout=rig.boot_seconds)
            if rehearsals:
                leaves = (
                    "echo words; echo left > /dev/shm/left; echo left > /volumes/disk/left; sleep 1000 & echo > /end"
                )
                await client.rehearse(rehearsal(rig, leaves))
                with pytest.raises(CommandError):
                    failing = rehearsal(rig, "")
                    failing.start.args[:] = ["no-such-command"]
                    await client.rehearse(failing)
                await client.rehearse(rehearsal(rig, "sleep 1000"))  # has to be killed
            looks.append(await seen(client, rig))
    fresh, rehearsed = looks
    assert "rehearsed" not in rehearsed
    assert rehearsed == fresh


async def test_after_a_rehearsal_other_disks_come_into_the_slots_and_the_device_gets_its_address(
    tmp_path: Path,
) -> None:
    stage = tmp_path / "stage.erofs"
    warm.make_image(stage)
    own = image(tmp_path)
    async with Clones("rehearsal", own) as clones:
        small = await clones.disk("small", 32 << 20)
        clone = await clones.clone(disks=(Disk("ro0", stage, read_only=True), small))
        call = pb.Rehearse(setup=clone.setup(hostname="rehearsed"), start=clone_start("rehearsed", warm.PROGRAM))
        for _ in range(2):
            await clone.client.rehearse(call)
        await clone.vm.pause()
        for disk in (clones.image, await clones.disk("large", 64 << 20)):
            await clone.vm.detach_disk(disk.serial)
            await clone.vm.attach_disk(disk)
        await clone.vm.resume()
        await clone.client.setup(clone.setup())
        await clone.client.start_container(clone_start("app", "sleep", "1000"))
        assert (await clone.run("cat", "/sys/class/net/eth0/address", "/sys/class/net/eth0/mtu")).split() == [
            clone.mac,
            "1400",
        ]
        sizes = await clone.run("cat", "/sys/block/vda/size", "/sys/block/vdb/size")
        assert sizes.split() == [str(own.stat().st_size // 512), str((64 << 20) // 512)]
        stats = await clone.client.stats()
        assert stats.writable_total_bytes > 40 << 20, "the file system is the large disk's"
        assert "rehearsed" not in await clone.run("cat", "/etc/hosts", "/etc/hostname", "/proc/mounts")
        assert clone.events == []

"""A rehearsal runs everything that a pod needs and leaves no trace of it."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.client import AgentClient
from cuboid.guest.errors import CommandError
from tests.harness.guest_rig import Rig, real_guest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180)]

# What somebody who may see everything can see: a privileged container.
LOOK = r"""
cat /proc/mounts /proc/self/cgroup /proc/sys/kernel/hostname /proc/sys/kernel/domainname /proc/sys/net/core/somaxconn
echo / /* /sys/fs/cgroup/* /dev/shm/* /proc/[0-9]* /sys/class/net/* /volumes/*/*
cat /proc/net/dev /proc/net/route /proc/net/fib_trie /proc/swaps /proc/net/unix
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

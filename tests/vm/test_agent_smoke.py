"""The guest agent as containers meet it: what they get, what they do not, how their ends are told apart."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.client import AgentClient
from cuboid.guest.errors import CommandError, GuestError
from tests.harness.guest_rig import Rig, real_guest

MACHINE_ID = "0123456789abcdef0123456789abcdef"
BOOT_ID = "01234567-89ab-4def-8123-456789abcdef"
pytestmark = [pytest.mark.vm, pytest.mark.timeout(240)]


class Pod:
    """A set-up guest, and the events that it has sent."""

    def __init__(self, rig: Rig) -> None:
        self.client = AgentClient(rig.path, self._take)
        self.events: list[pb.Event] = []
        self._arrived = asyncio.Event()

    async def _take(self, event: pb.Event) -> None:
        self.events.append(event)
        self._arrived.set()

    async def start(self, name: str, script: str = "sleep 1000", **more: object) -> pb.Started:
        fields = {"args": ["sh", "-c", script], "env": ["PATH=/bin"], "cwd": "/", **more}
        return await self.client.start_container(
            pb.StartContainer(name=name, image="image", **fields)  # type: ignore[arg-type]
        )

    async def run(self, script: str, container: str = "app", **more: object) -> tuple[str, int]:
        """(stdout and stderr, exit code) of a script in a container."""
        call = pb.Exec(container=container, args=["sh", "-c", script], **more)  # type: ignore[arg-type]
        output = b""
        async with await self.client.exec(call) as stream:
            async for _, data in stream.received():
                output += data
            return output.decode(), (await stream.reply()).exit.code

    async def event(self, kind: str, name: str) -> pb.Event:
        """The first event of a kind about a container."""
        async with asyncio.timeout(30):
            while True:
                for event in self.events:
                    if event.WhichOneof("event") == kind and getattr(event, kind).name == name:
                        return event
                self._arrived.clear()
                await self._arrived.wait()

    async def exit(self, name: str) -> pb.ExitStatus:
        return (await self.event("exited", name)).exited.exit


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    async with AsyncExitStack() as stack:
        rig = await real_guest(tmp_path, stack)
        pod = Pod(rig)
        await pod.client.connect(timeout=rig.boot_seconds)
        stack.push_async_callback(pod.client.close)
        setup = pb.Setup()
        setup.CopyFrom(rig.setup)
        setup.machine_id, setup.boot_id = MACHINE_ID, BOOT_ID
        setup.volumes.add(name="memory").memory.size_bytes = 1 << 20
        setup.volumes.add(name="config").files.files.add(path="key", content=b"one", mode=0o444)
        await pod.client.setup(setup)
        yield pod


async def test_a_container_gets_its_volumes_and_the_host_can_replace_files(pod: Pod) -> None:
    mounts = [
        pb.Mount(volume="memory", path="/data"),
        pb.Mount(volume="config", path="/config", read_only=True),
        pb.Mount(volume="config", path="/one/key", sub_path="key"),
    ]
    await pod.start("app", mounts=mounts)
    assert await pod.run("echo kept > /data/x; cat /data/x /config/key /one/key") == ("kept\noneone", 0)
    assert (await pod.run("echo no > /config/key"))[1] != 0
    await pod.client.write_volume(
        pb.WriteVolume(volume="config", files=[pb.File(path="key", content=b"two", mode=0o444)])
    )
    assert await pod.run("cat /config/key") == ("two", 0)


IDS = "cat /etc/machine-id /proc/sys/kernel/random/boot_id /etc/hostname"


async def test_containers_read_the_pod_s_ids_until_it_gets_others(pod: Pod) -> None:
    await pod.start("app")
    await pod.start("bare", security=pb.Security(privileged=True))
    await pod.start("own", mounts=[pb.Mount(volume="config", path="/etc/machine-id", sub_path="key")])
    for name in ("app", "bare"):
        assert await pod.run(IDS, name) == (f"{MACHINE_ID}\n{BOOT_ID}\npod\n", 0)
    assert (await pod.run("cat /etc/machine-id", "own"))[0] == "one"
    machine_id, boot_id = MACHINE_ID[::-1], BOOT_ID.replace("0", "f")
    renew = pb.Renew(entropy=bytes(range(64)), machine_id=machine_id, boot_id=boot_id, hostname="other")
    await pod.client.renew(renew)
    for name in ("app", "bare"):
        text, _ = await pod.run(f"{IDS}; cat /proc/sys/kernel/hostname", name)
        assert text == f"{machine_id}\n{boot_id}\nother\nother\n"


async def test_a_container_is_held_to_its_user_limits_and_filter(pod: Pod) -> None:
    security = pb.Security(read_only_root=True, no_new_privileges=True, drop_capabilities=["ALL"])
    await pod.start(
        "app",
        security=security,
        user=pb.User(name="1000:1001", supplementary=[7]),
        resources=pb.Resources(memory_bytes=32 << 20, pids=20),
        rlimits=[pb.Rlimit(name="nofile", soft=99, hard=99)],
    )
    status, _ = await pod.run("cat /proc/self/status")
    rows = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert rows["Uid"].split() == ["1000"] * 4
    assert rows["Gid"].split() == ["1001"] * 4
    assert rows["Groups"].split() == ["7"]
    assert {rows[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (rows["NoNewPrivs"], rows["Seccomp"]) == ("1", "2")
    assert await pod.run("ulimit -n; cat /sys/fs/cgroup/memory.max") == (f"99\n{32 << 20}\n", 0)
    assert (await pod.run("echo x > /x"))[1] != 0
    assert (await pod.run("cat /proc/kcore 2>/dev/null"))[0] == ""


SHARE = r"""
read -r _ begin < /sys/fs/cgroup/cpu.stat; read -r t0 _ < /proc/uptime
while read -r t1 _ < /proc/uptime; [ "${t1%.*}" -lt $((${t0%.*} + 4)) ]; do :; done
read -r _ end < /sys/fs/cgroup/cpu.stat; read -r max < /sys/fs/cgroup/cpu.max
echo "$max" $((end - begin)) "$t0" "$t1" > /data/share; sleep 1000
"""


async def test_a_twentieth_of_a_cpu_is_enough_to_start_and_no_more_is_given(pod: Pod) -> None:
    await pod.start("app", SHARE, resources=pb.Resources(cpu_millis=50), mounts=[
        pb.Mount(volume="memory", path="/data")
    ])  # fmt: skip
    await pod.start("reader", mounts=[pb.Mount(volume="memory", path="/data")])
    async with asyncio.timeout(60):
        while len(words := (await pod.run("test -e /data/share && cat /data/share", "reader"))[0].split()) < 5:
            await asyncio.sleep(0.5)
    assert words[:2] == ["5000", "100000"]
    used, (begin, end) = int(words[2]) / 1e6, map(float, words[3:])
    assert used / (end - begin) < 0.1, "twice the limit would be none; a tick more than the quota may run"


async def test_ends_are_told_apart(pod: Pod) -> None:
    await pod.start("code", "echo bye > /end; exit 3", termination_message_path="/end")
    await pod.start("signal", "kill -9 $$; sleep 1000")
    hungry = "x=aaaaaaaaaaaaaaaa; while true; do x=$x$x; done"
    await pod.start("hungry", hungry, resources=pb.Resources(memory_bytes=16 << 20))
    status = await pod.exit("code")
    assert (status.code, status.signal, status.message, status.oom_killed) == (3, 0, "bye\n", False)
    # The first process of a process namespace is beyond its own signals: it goes on.
    assert [row.running for row in (await pod.client.list()).containers if row.name == "signal"] == [True]
    await pod.client.signal("signal", 15)
    await pod.client.signal("signal", 9)
    status = await pod.exit("signal")
    assert (status.code, status.signal, status.oom_killed) == (137, 9, False)
    status = await pod.exit("hungry")
    assert (status.code, status.oom_killed) == (137, True)
    assert (await pod.event("oom", "hungry")).oom.pid > 0


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        ("nowhere", 127, "nowhere: not found in the container's PATH"),
        ("/etc", 126, "/etc cannot be run: it is a directory"),
    ],
)
async def test_a_command_that_cannot_run_is_named(pod: Pod, command: str, code: int, sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence) as failed:
        await pod.start("app", args=[command])
    assert failed.value.exit_code == code
    assert not (await pod.client.list()).containers


async def test_files_go_in_and_out_and_never_outside(pod: Pod) -> None:
    await pod.start("app")
    assert await _copy_in(pod, {"folder/" + "n" * 150: b"content"}) == ""
    assert await pod.run("cat /tmp/folder/*") == ("content", 0)
    assert "leads out of the folder" in await _copy_in(pod, {"../../evil": b"x"})
    archive = b""
    async with await pod.client.copy_out("app", "/tmp/folder") as stream:
        async for _, data in stream.received():
            archive += data
        await stream.reply()
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        assert found.getnames() == ["folder", "folder/" + "n" * 150]


async def _copy_in(pod: Pod, files: dict[str, bytes]) -> str:
    """What the guest has to say against it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    try:
        async with await pod.client.copy_in("app", "/tmp") as stream:
            await stream.send(buffer.getvalue())
            await stream.send_end()
            await stream.reply()
    except GuestError as error:
        return str(error)
    return ""


async def test_probes_tell_changes_only(pod: Pod) -> None:
    ready = pb.Probe(
        kind=pb.Probe.READINESS, exec=pb.ExecAction(args=["cat", "/ok"]), period_ms=200, failure_threshold=1
    )
    alive = pb.Probe(kind=pb.Probe.LIVENESS, tcp=pb.TcpAction(port=9), period_ms=200, failure_threshold=2)
    await pod.start("app", "sleep 1; echo > /ok; sleep 1000", probes=[ready, alive])
    async with asyncio.timeout(30):
        while len(changes := [event.probe for event in pod.events if event.HasField("probe")]) < 2:
            await asyncio.sleep(0.1)
    assert {(change.kind, change.success) for change in changes} == {
        (pb.Probe.READINESS, True),
        (pb.Probe.LIVENESS, False),
    }
    (state,) = (await pod.client.list()).containers
    assert (state.ready_probe_ok, state.live_probe_ok, state.started_probe_ok) == (True, False, True)


async def test_a_terminal_has_a_size_and_an_exec_ends_with_its_host(pod: Pod) -> None:
    await pod.start("app")
    output, code = await pod.run(
        "test -t 0 && echo terminal; cat /proc/self/stat | head -c 0", tty=True, rows=20, cols=70
    )
    assert (output, code) == ("terminal\r\n", 0)
    async with await pod.client.exec(pb.Exec(container="app", args=["sleep", "777"])):
        await asyncio.sleep(0.2)
    async with asyncio.timeout(20):
        while "777" in (await pod.run("cat /proc/[0-9]*/cmdline"))[0]:
            await asyncio.sleep(0.2)

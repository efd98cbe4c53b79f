"""One suite for whatever claims to be a guest agent: the fake, and the real one in a real VM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import Stream
from cuboid.guest.client import AgentClient
from cuboid.guest.errors import CommandError, GuestConflictError, GuestError, GuestInvalidError, GuestNotFoundError
from cuboid.guest.fake import FakeAgent
from tests.harness.guest_rig import SETUP, Rig, real_guest

SLEEPER = ["sleep", "1000"]


async def fake_guest(folder: Path, stack: AsyncExitStack) -> Rig:
    path = folder / "agent.sock"
    await stack.enter_async_context(FakeAgent(path))
    return Rig(path=path, setup=SETUP, boot_seconds=5.0)


@pytest.fixture(params=["fake", pytest.param("real", marks=[pytest.mark.vm, pytest.mark.timeout(180)])])
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        make = fake_guest if request.param == "fake" else real_guest
        yield await make(tmp_path, stack)


class Guest:
    """A client of the guest under test, and the events it has been told."""

    def __init__(self, rig: Rig) -> None:
        self.events: list[pb.Event] = []
        self.client = AgentClient(rig.path, self._take)
        self._arrived = asyncio.Event()

    async def _take(self, event: pb.Event) -> None:
        self.events.append(event)
        self._arrived.set()

    async def exited(self, name: str, attempt: int = 0) -> pb.ExitStatus:
        async with asyncio.timeout(20):
            while True:
                for event in self.events:
                    if (event.exited.name, event.exited.attempt) == (name, attempt):
                        return event.exited.exit
                self._arrived.clear()
                await self._arrived.wait()


@pytest.fixture
async def guest(rig: Rig) -> AsyncIterator[Guest]:
    guest = Guest(rig)
    await guest.client.connect(timeout=rig.boot_seconds)
    try:
        yield guest
    finally:
        await guest.client.close()


def container(name: str = "app", attempt: int = 0, **more: object) -> pb.StartContainer:
    fields = {"args": SLEEPER, "cwd": "/", "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], **more}
    return pb.StartContainer(name=name, attempt=attempt, image="image", **fields)  # type: ignore[arg-type]


async def collect(stream_call: object) -> tuple[dict[int, bytes], pb.Reply]:
    output: dict[int, bytes] = {}
    async with stream_call as stream:  # type: ignore[attr-defined]
        async for channel, data in stream.received():
            output[channel] = output.get(channel, b"") + data
        return output, await stream.reply()


async def test_a_pod_from_setup_to_shutdown(guest: Guest, rig: Rig) -> None:
    client = guest.client
    with pytest.raises(GuestConflictError):
        await client.start_container(container())
    assert not (await client.list()).set_up
    done = await client.setup(rig.setup)
    assert done.memory_bytes > 0
    assert (await client.setup(rig.setup)).kernel == done.kernel

    with pytest.raises(GuestNotFoundError):
        await client.start_container(pb.StartContainer(name="x", image="other", args=SLEEPER))
    started = await client.start_container(container())
    again = await client.start_container(container())
    assert (started.pid, started.started_unix_ns) == (again.pid, again.started_unix_ns)
    with pytest.raises(GuestConflictError):
        await client.start_container(container(attempt=1))

    output, reply = await collect(await client.exec(pb.Exec(container="app", args=["echo", "hello", "world"])))
    assert (output, reply.exit.code) == ({1: b"hello world\n"}, 0)
    _, reply = await collect(await client.exec(pb.Exec(container="app", args=["sh", "-c", "exit 7"])))
    assert reply.exit.code == 7
    with pytest.raises(CommandError) as failed:
        await collect(await client.exec(pb.Exec(container="app", args=["no-such-command"])))
    assert failed.value.exit_code == 127
    with pytest.raises(GuestNotFoundError):
        await collect(await client.exec(pb.Exec(container="nobody", args=["true"])))

    assert [row.name for row in (await client.stats()).containers] == ["app"]
    await client.signal("app", 9)
    exit_status = await guest.exited("app")
    assert (exit_status.code, exit_status.signal) == (137, 9)
    (state,) = (await client.list()).containers
    assert (state.running, state.exit.signal) == (False, 9)
    with pytest.raises(GuestConflictError):
        await client.signal("app", 15)

    await client.start_container(container(attempt=1))
    await client.remove_container("app")
    assert not (await client.list()).containers
    with pytest.raises(GuestNotFoundError):
        await client.remove_container("app")
    await client.shutdown()


BOOT_IDS = ("11111111-2222-4333-8444-555555555555", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee")


async def greeting(guest: Guest, rig: Rig) -> pb.HelloAck:
    """What a host that comes anew is told. The guest's client is another afterwards."""
    await guest.client.close()
    guest.client = AgentClient(rig.path)
    return await guest.client.connect(timeout=10)


async def test_a_guest_has_a_boot_id_from_its_set_up_on_and_another_when_it_is_renewed(guest: Guest, rig: Rig) -> None:
    with pytest.raises(GuestConflictError):
        await guest.client.renew(pb.Renew(entropy=bytes(32)))
    assert (await greeting(guest, rig)).boot_id == ""
    restored = pb.Setup(interfaces=[pb.Interface(device="eth0")])
    with pytest.raises(GuestInvalidError, match="entropy"):
        await guest.client.setup(restored)
    setup = pb.Setup(boot_id=BOOT_IDS[0])
    setup.MergeFrom(rig.setup)
    assert (await guest.client.setup(setup)).boot_id == BOOT_IDS[0]
    assert (await greeting(guest, rig)).boot_id == BOOT_IDS[0]
    await guest.client.start_container(container())
    with pytest.raises(GuestInvalidError, match="entropy"):
        await guest.client.renew(pb.Renew(boot_id=BOOT_IDS[1], entropy=b"too little"))
    assert (await greeting(guest, rig)).boot_id == BOOT_IDS[0]
    await guest.client.renew(pb.Renew(boot_id=BOOT_IDS[1], entropy=bytes(range(32))))
    assert (await greeting(guest, rig)).boot_id == BOOT_IDS[1]
    assert [row.running for row in (await guest.client.list()).containers] == [True]


def rehearsal(rig: Rig, **more: Any) -> pb.Rehearse:
    setup = pb.Setup(entropy=bytes(range(64)), boot_id=BOOT_IDS[0])
    setup.MergeFrom(rig.setup)
    return pb.Rehearse(setup=setup, start=container("rehearsed", args=["echo", "words"]))


async def test_a_rehearsal_leaves_nothing_and_the_pod_comes_after_it(guest: Guest, rig: Rig) -> None:
    with pytest.raises(GuestInvalidError, match="entropy"):
        await guest.client.rehearse(pb.Rehearse(setup=rig.setup, start=container()))
    for _ in range(2):
        await guest.client.rehearse(rehearsal(rig))
    with pytest.raises(GuestNotFoundError):
        await guest.client.rehearse(pb.Rehearse(setup=rehearsal(rig).setup, start=pb.StartContainer(name="x")))
    state = await guest.client.list()
    assert (state.set_up, len(state.containers)) == (False, 0)
    assert (await greeting(guest, rig)).boot_id == ""
    with pytest.raises(GuestConflictError):
        await guest.client.start_container(container())
    await guest.client.setup(rig.setup)
    with pytest.raises(GuestNotFoundError):
        await collect(await guest.client.logs("rehearsed", 0, follow=False))
    with pytest.raises(GuestConflictError):
        await guest.client.rehearse(rehearsal(rig))
    await guest.client.start_container(container())
    assert [row.name for row in (await guest.client.list()).containers] == ["app"]
    assert not guest.events


async def test_a_start_may_be_asked_for_together_with_the_set_up(guest: Guest, rig: Rig) -> None:
    setup = asyncio.create_task(guest.client.setup(rig.setup))
    await asyncio.sleep(0)  # it has been sent
    started = await guest.client.start_container(container())
    assert started.pid > 0
    assert (await setup).memory_bytes > 0


async def test_streams_carry_bytes_unharmed_at_any_size(guest: Guest, rig: Rig) -> None:
    await guest.client.setup(rig.setup)
    await guest.client.start_container(container())
    data = bytes(range(256)) * 4096  # four windows
    stream = await guest.client.exec(pb.Exec(container="app", args=["cat"], stdin=True))

    async def feed() -> None:
        for start in range(0, len(data), 50_000):
            await stream.send(data[start : start + 50_000])
        await stream.send_end()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        output, reply = await collect(stream)
    assert output[1] == data
    assert reply.exit.code == 0


async def test_an_exec_with_a_time_limit_is_ended_by_it(guest: Guest, rig: Rig) -> None:
    await guest.client.setup(rig.setup)
    await guest.client.start_container(container())
    _, reply = await collect(await guest.client.exec(pb.Exec(container="app", args=["sleep", "60"], timeout_ms=200)))
    assert reply.exit.timed_out


async def test_a_host_that_vanishes_and_returns_learns_what_happened(guest: Guest, rig: Rig) -> None:
    await guest.client.setup(rig.setup)
    await guest.client.start_container(container())
    await guest.client.start_container(container("other"))
    await guest.client.close()
    second = Guest(rig)
    await second.client.connect(timeout=10)
    try:
        state = await second.client.list()
        assert [row.running for row in state.containers] == [True, True]
        await second.client.signal("other", 9)
        assert (await second.exited("other")).signal == 9
    finally:
        await second.client.close()
    third = Guest(rig)
    await third.client.connect(timeout=10)
    try:
        await third.client.list()
        assert not third.events, "what was acknowledged does not come again"
    finally:
        await third.client.close()


async def test_the_log_can_be_read_followed_and_acknowledged(guest: Guest, rig: Rig) -> None:
    client = guest.client
    await client.setup(rig.setup)
    await client.start_container(container())
    output, reply = await collect(await client.logs("app", 0, follow=False))
    assert output == {}
    assert reply.logs.end_offset == 0
    await client.ack_logs("app", 10_000)
    assert (await client.list()).containers[0].log_end_offset == 0, "what was never written cannot be acknowledged"
    with pytest.raises(GuestNotFoundError):
        await collect(await client.logs("nobody", 0, follow=False))
    follower = asyncio.get_running_loop().create_task(collect(await client.logs("app", 0, follow=True)))
    await client.remove_container("app")
    async with asyncio.timeout(10):
        _, reply = await follower
    assert reply.logs.first_offset == 0


async def test_who_asks_for_the_history_gets_everything_from_the_start_once_and_in_order(
    guest: Guest, rig: Rig
) -> None:
    await guest.client.setup(rig.setup)
    await guest.client.start_container(container(args=["cat"], stdin=True, tty=False))
    call = pb.Attach(container="app", stdin=True, stdout=True, stderr=True)
    async with await guest.client.attach(call) as stream:  # this one takes no history
        await stream.send(b"first\n")
        await stream.send(b"second\n")
        assert await text_of(stream, 13) == b"first\nsecond\n"
    call.history = True
    async with await guest.client.attach(call) as stream:
        await stream.send(b"third\n")
        assert await text_of(stream, 19) == b"first\nsecond\nthird\n"
    await guest.client.signal("app", 9)
    await guest.exited("app")
    with pytest.raises(GuestConflictError):
        await collect(await guest.client.attach(call))


async def test_the_history_outlives_the_container(guest: Guest, rig: Rig) -> None:
    await guest.client.setup(rig.setup)
    await guest.client.start_container(container(args=["cat"], stdin=True))
    async with await guest.client.attach(pb.Attach(container="app", stdin=True, stdout=True)) as stream:
        await stream.send(b"said\n")
        assert await text_of(stream, 5) == b"said\n"
    await guest.client.signal("app", 9)
    await guest.exited("app")
    output, reply = await collect(await guest.client.attach(pb.Attach(container="app", stdout=True, history=True)))
    assert (output, reply.exit.signal) == ({1: b"said\n"}, 9)


async def text_of(stream: Stream, count: int) -> bytes:
    text = b""
    async with asyncio.timeout(20):
        async for _, data in stream.received():
            text += data
            if len(text) >= count:
                break
    return text


async def test_a_port_forward_to_a_closed_port_fails_in_words(guest: Guest, rig: Rig) -> None:
    await guest.client.setup(rig.setup)
    with pytest.raises(GuestError) as refused:
        await collect(await guest.client.port_forward(1))
    assert str(refused.value)

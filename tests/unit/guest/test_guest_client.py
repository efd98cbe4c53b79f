"""The client against the fake agent: reconnects, events, flow control, hostile guests. No VM, no network."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.client import AgentClient
from cuboid.guest.errors import GuestLostError
from cuboid.guest.fake import FakeAgent, Script
from cuboid.guest.frames import WINDOW, Kind, encode_plain
from cuboid.lib.errors import CuboidError, DeadlineError, ExhaustedError, HostileError, InvalidError

SETUP = pb.Setup(hostname="pod", images=[pb.Device(name="image", serial="image")])
APP = pb.StartContainer(name="app", image="image", args=["sleep", "1000"])


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[FakeAgent]:
    async with FakeAgent(tmp_path / "a") as agent:
        yield agent


@pytest.fixture
async def client(agent: FakeAgent) -> AsyncIterator[AgentClient]:
    client = AgentClient(agent.path)
    await client.connect(timeout=5)
    yield client
    await client.close()


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def run_app(client: AgentClient) -> None:
    await client.setup(SETUP)
    await client.start_container(APP)


async def test_connecting_waits_for_a_socket_that_comes_later(tmp_path: Path) -> None:
    client = AgentClient(tmp_path / "a")
    connecting = asyncio.get_running_loop().create_task(client.connect(timeout=5))
    await asyncio.sleep(0.05)
    async with FakeAgent(tmp_path / "a"):
        assert (await connecting).version == 1
        await client.close()


async def test_a_guest_that_never_answers_the_greeting_runs_into_the_deadline(agent: FakeAgent) -> None:
    agent.faults.no_greeting = True
    client = AgentClient(agent.path)
    with pytest.raises(DeadlineError):
        await client.connect(timeout=0.1)
    await client.close()


async def test_a_guest_that_never_answers_a_call_runs_into_its_deadline(agent: FakeAgent, client: AgentClient) -> None:
    agent.faults.never_answer.add("stats")
    with pytest.raises(DeadlineError, match="stats"):
        await client.stats(timeout=0.1)
    await client.list()
    await eventually(lambda: not agent.wire.streams)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 900), events=st.integers(1, 20))
def test_a_connection_cut_at_any_byte_loses_no_event(tmp_path: Path, cut: int, events: int) -> None:
    async def scenario() -> None:
        got: list[int] = []

        async def take(event: pb.Event) -> None:
            got.append(event.number)

        async with FakeAgent(tmp_path / "a") as agent:
            agent.faults.cut_after = cut
            client = AgentClient(agent.path, take)
            await client.connect(timeout=5)
            for _ in range(events):
                agent.wire.push(pb.Event(warning=pb.Warning(message="w" * 40)))
            await eventually(lambda: agent.wire.unacknowledged == 0)
            assert got == list(range(1, events + 1))
            await client.close()

    asyncio.run(scenario())


async def test_an_event_is_acknowledged_only_when_the_hook_has_taken_it(agent: FakeAgent) -> None:
    release = asyncio.Event()
    got: list[int] = []

    async def take(event: pb.Event) -> None:
        await release.wait()
        got.append(event.number)

    client = AgentClient(agent.path, take)
    await client.connect(timeout=5)
    agent.wire.push(pb.Event(warning=pb.Warning()))
    agent.wire.push(pb.Event(warning=pb.Warning()))
    await client.list()
    assert agent.wire.unacknowledged == 2
    agent.wire.cut()
    await eventually(lambda: agent.wire.greetings == 2)
    release.set()
    await eventually(lambda: agent.wire.unacknowledged == 0)
    assert got == [1, 2]
    await client.close()


async def test_a_failing_hook_is_called_again(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cuboid.guest.client.HOOK_RETRY", 0.01)
    calls: list[int] = []

    async def take(event: pb.Event) -> None:
        calls.append(event.number)
        if len(calls) == 1:
            raise OSError("no space left")

    client = AgentClient(agent.path, take)
    await client.connect(timeout=5)
    agent.wire.push(pb.Event(warning=pb.Warning()))
    await eventually(lambda: agent.wire.unacknowledged == 0)
    assert calls == [1, 1]
    await client.close()


async def test_open_calls_fail_when_the_channel_breaks_and_new_ones_work(agent: FakeAgent, client: AgentClient) -> None:
    await run_app(client)
    stream = await client.exec(pb.Exec(container="app", args=["cat"], stdin=True))
    await stream.send(b"x")
    agent.wire.cut()
    with pytest.raises(GuestLostError):
        await stream.reply()
    with pytest.raises(ConnectionError):
        await stream.send(b"y")
    assert (await client.list()).set_up


async def test_a_sender_waits_for_credit_and_a_receiver_gives_it_back(agent: FakeAgent) -> None:
    async def consume_late(call: pb.Exec, stream: object) -> int:
        await asyncio.sleep(0.05)
        total = 0
        while (item := await stream.receive())[1] is not None:  # type: ignore[attr-defined]
            total += len(item[1])
        return total // WINDOW

    agent._on_exec = consume_late
    client = AgentClient(agent.path)
    await client.connect(timeout=5)
    await run_app(client)
    async with await client.exec(pb.Exec(container="app", args=["x"])) as stream:
        begin = time.monotonic()
        await stream.send(bytes(3 * WINDOW))
        assert time.monotonic() - begin >= 0.04, "the window holds only a third of it"
        await stream.send_end()
        assert (await stream.reply()).exit.code == 3
    await client.close()


async def test_data_that_nobody_takes_is_dropped_when_only_the_reply_is_wanted(agent: FakeAgent) -> None:
    async def talk(call: pb.Exec, stream: object) -> int:
        await stream.send(bytes(4 * WINDOW), 1)  # type: ignore[attr-defined]
        return 5

    agent._on_exec = talk
    client = AgentClient(agent.path)
    await client.connect(timeout=5)
    await run_app(client)
    async with await client.exec(pb.Exec(container="app", args=["x"])) as stream:
        assert (await stream.reply()).exit.code == 5
    await client.close()


async def test_leaving_a_stream_resets_it_in_the_guest(agent: FakeAgent, client: AgentClient) -> None:
    await run_app(client)
    async with await client.exec(pb.Exec(container="app", args=["cat"], stdin=True)) as stream:
        await eventually(lambda: stream.id in agent.wire.streams)
    await eventually(lambda: stream.id not in agent.wire.streams)


async def test_a_message_of_megabytes_arrives_whole(agent: FakeAgent, client: AgentClient) -> None:
    content = os.urandom(3 << 20)
    volume = pb.Volume(name="config", files=pb.FilesVolume(files=[pb.File(path="big", content=content)]))
    await client.setup(pb.Setup(volumes=[volume]))
    assert agent.volumes["config"]["big"] == content
    with pytest.raises(InvalidError, match="too long"):
        await client.write_volume(pb.WriteVolume(volume="config", files=[pb.File(content=bytes(9 << 20))]))


async def test_more_streams_than_a_guest_allows_are_refused_here(agent: FakeAgent, client: AgentClient) -> None:
    await run_app(client)
    for _ in range(256):
        await client.exec(pb.Exec(container="app", args=["cat"]))
    with pytest.raises(ExhaustedError):
        await client.exec(pb.Exec(container="app", args=["true"]))


async def test_a_silent_guest_is_connected_to_anew(agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cuboid.guest.channel.GREETING_SECONDS", 0.05)
    client = AgentClient(agent.path, ping_seconds=0.02)
    await client.connect(timeout=5)
    await asyncio.sleep(0.15)
    assert agent.wire.greetings == 1, "answered pings keep it"
    with monkeypatch.context() as silent:
        silent.setattr(agent.wire, "send", lambda *_, **__: None)
        await asyncio.sleep(0.15)
        assert not client.connected
    await client.connect(timeout=5)
    await client.close()


async def test_a_guest_that_answers_no_greeting_is_connected_to_anew(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cuboid.guest.client.GREET_FIRST", 0.1)
    client = AgentClient(agent.path)
    deaf = agent.wire.serve
    with monkeypatch.context() as lost:
        lost.setattr(agent.wire, "serve", _swallow)
        with pytest.raises(DeadlineError):
            await client.connect(timeout=0.05)
    assert agent.wire.serve == deaf
    await client.connect(timeout=5)
    await client.close()


async def _swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A connection of which the guest learns nothing."""
    while await reader.read(65536):
        pass
    writer.close()


async def test_a_guest_that_is_paused_on_purpose_may_be_silent(
    agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = AgentClient(agent.path, ping_seconds=0.02)
    await client.connect(timeout=5)
    client.hold(True)
    with monkeypatch.context() as silent:
        silent.setattr(agent.wire, "send", lambda *_, **__: None)
        await asyncio.sleep(0.15)
        assert client.connected
        with pytest.raises(GuestLostError, match="is paused"):
            await client.list()
        client.hold(False)
        await eventually(lambda: not client.connected)
    await client.close()


Attack = Callable[[FakeAgent], None]


def frames(kind: Kind, stream: int, payload: bytes, *, count: int = 1, flags: int = 0) -> Attack:
    def attack(agent: FakeAgent) -> None:
        for _ in range(count):
            agent.wire.send(kind, stream, payload, flags)

    return attack


def raw(data: bytes) -> Attack:
    return lambda agent: agent.wire.send_raw(data)


def event(number: int) -> bytes:
    return encode_plain(Kind.EVENT, 0, pb.Event(number=number).SerializeToString())


ATTACKS: dict[str, Attack] = {
    "garbage": raw(b"no frame at all, at least sixteen bytes"),
    "an oversized frame": raw(encode_plain(Kind.DATA, 1)[:8] + (1 << 30).to_bytes(4, "little") + bytes(4)),
    "a stream that does not exist": frames(Kind.DATA, 99, b"x"),
    "data beyond its credit": frames(Kind.DATA, 3, bytes(65_536), count=5),
    "credit without end": frames(Kind.CREDIT, 3, b"\xff\xff\xff\xff", count=300),
    "a malformed credit": frames(Kind.CREDIT, 3, b"x"),
    "an undecodable reply": frames(Kind.REPLY, 3, b"\xff\xff"),
    "a reply without end": frames(Kind.REPLY, 3, bytes(65_536), count=130, flags=1),
    "events that do not count": raw(event(4) + event(4)),
    "events without end": raw(b"".join(event(number) for number in range(1, 1030))),
    "an oversized event": frames(Kind.EVENT, 0, bytes(20_000)),
    "a host's frame": frames(Kind.CALL, 3, b""),
    "a second answer to the greeting": frames(Kind.HELLO_ACK, 0, b""),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=list(ATTACKS))
async def test_a_hostile_guest_is_cut_off_for_good(agent: FakeAgent, attack: Attack) -> None:
    final: list[CuboidError] = []

    async def never(event: pb.Event) -> None:
        await asyncio.Event().wait()

    client = AgentClient(agent.path, never, on_final=final.append)
    await client.connect(timeout=5)
    await run_app(client)
    stream = await client.exec(pb.Exec(container="app", args=["cat"]))
    assert stream.id == 3
    attack(agent)
    await eventually(lambda: bool(final))
    with pytest.raises(HostileError):
        await stream.reply()
    with pytest.raises(HostileError):
        await client.list()
    assert (len(final), agent.wire.greetings) == (1, 1)
    await client.close()


async def test_an_answer_of_the_wrong_kind_is_hostile(agent: FakeAgent) -> None:
    async def lie(call: pb.GetStats, stream: object) -> pb.Reply:
        return pb.Reply(empty=pb.Empty())

    agent._do_stats = lie  # type: ignore[method-assign,assignment]
    client = AgentClient(agent.path)
    await client.connect(timeout=5)
    with pytest.raises(HostileError, match="empty, not stats"):
        await client.stats()
    await client.close()


async def test_noise_without_end_instead_of_a_greeting_does_not_connect(agent: FakeAgent) -> None:
    agent.faults.garbage_greeting = True
    client = AgentClient(agent.path)
    with pytest.raises(DeadlineError):
        await client.connect(timeout=0.1)
    agent.faults.garbage_greeting = False
    await client.close()


async def test_calls_after_close_say_so(agent: FakeAgent) -> None:
    client = AgentClient(agent.path)
    await client.connect(timeout=5)
    await client.close()
    with pytest.raises(GuestLostError, match="closed by us"):
        await client.list()


async def test_bulk_data_is_not_slowed_by_the_client(agent: FakeAgent) -> None:
    size = 64 << 20

    async def talk(call: pb.Exec, stream: object) -> int:
        await stream.send(bytes(size), 1)  # type: ignore[attr-defined]
        return 0

    agent._on_exec = talk
    client = AgentClient(agent.path)
    await client.connect(timeout=5)
    await run_app(client)
    begin, total = time.process_time(), 0
    async with await client.exec(pb.Exec(container="app", args=["x"])) as stream:
        async for _, data in stream.received():
            total += len(data)
    rate = total / (time.process_time() - begin) / 1e6
    print(f"{rate:.0f} MB/s of CPU time, both ends in one process")
    assert total == size
    assert rate > 100
    await client.close()


async def test_a_scripted_container_writes_exits_and_is_probed(agent: FakeAgent) -> None:
    got: list[pb.Event] = []

    async def take(event: pb.Event) -> None:
        got.append(event)

    probes = {pb.Probe.READINESS: [(0.01, True)]}
    agent.scripts["app"] = Script(output=[(1, b"hi"), (2, b"oh")], exit_after=0.05, exit_code=3, probes=probes)
    client = AgentClient(agent.path, take)
    await client.connect(timeout=5)
    await run_app(client)
    await eventually(lambda: len(got) == 2)
    assert (got[0].probe.success, got[1].exited.exit.code) == (True, 3)
    async with await client.logs("app", 0, follow=False) as stream:
        log = b"".join([data async for _, data in stream.received()])
    assert [line.split(b" ", 1)[1] for line in log.splitlines()] == [b"stdout F hi", b"stderr F oh"]
    await client.close()


async def test_a_log_read_from_before_its_first_kept_byte_says_where_it_starts(
    agent: FakeAgent, client: AgentClient
) -> None:
    agent.scripts["app"] = Script(output=[(1, b"one"), (1, b"two")])
    await run_app(client)
    await eventually(lambda: agent.containers["app"].log.endswith(b"two\n"))
    first = agent.containers["app"].log.index(b"\n") + 1
    await client.ack_logs("app", first)
    async with await client.logs("app", 0, follow=False) as stream:
        log = b"".join([data async for _, data in stream.received()])
        reply = await stream.reply()
    assert log.endswith(b"F two\n") and log.count(b"\n") == 1
    assert reply.logs.first_offset == first

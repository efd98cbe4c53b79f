from __future__ import annotations

import asyncio

import pytest

from cuboid.kube.streaming import tunnel
from cuboid.kube.streaming.socket import DisconnectedError
from cuboid.kube.streaming.spdy import (
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    Ping,
    ProtocolError,
    Reset,
    SynReply,
    SynStream,
    WindowUpdate,
)
from cuboid.kube.streaming.tunnel import ResetError, SpdySession, SpdyStream


class Client:
    """The other end of a socket, in memory: frames in, frames out."""

    def __init__(self) -> None:
        self.encoder, self.decoder = Encoder(), Decoder()
        self.incoming: asyncio.Queue[bytes | str | None] = asyncio.Queue()
        self.answers: list[Frame] = []

    def send(self, *frames: Frame) -> None:
        for frame in frames:
            self.incoming.put_nowait(self.encoder.encode(frame))

    def leave(self) -> None:
        self.incoming.put_nowait(None)

    async def receive(self) -> bytes | str:
        message = await self.incoming.get()
        if message is None:
            raise DisconnectedError
        return message

    async def send_(self, message: bytes | str) -> None:
        assert isinstance(message, bytes)
        self.answers += self.decoder.feed(message)

    async def close(self, code: int = 1000, reason: str = "") -> None: ...


class _Socket:
    def __init__(self, client: Client) -> None:
        self.receive = client.receive
        self.send = client.send_
        self.close = client.close


class World:
    def __init__(self) -> None:
        self.client = Client()
        self.streams: list[SpdyStream] = []
        self.session = SpdySession(_Socket(self.client), self._opened)

    async def _opened(self, stream: SpdyStream) -> None:
        if stream.headers.get("bad"):
            raise ValueError("bad")
        self.streams.append(stream)

    async def run(self) -> None:
        self.client.leave()
        with pytest.raises(DisconnectedError):
            await self.session.run()


def opened(number: int, *headers: tuple[str, str]) -> SynStream:
    return SynStream(number, headers)


async def test_a_stream_is_answered_and_its_headers_are_known() -> None:
    world = World()
    world.client.send(opened(1, ("Port", "80")), opened(3))
    await world.run()
    assert [s.id for s in world.streams] == [1, 3]
    assert world.streams[0].headers == {"port": "80"}
    assert world.client.answers[:2] == [SynReply(1), SynReply(3)]


async def test_data_comes_in_order_up_to_its_end_and_gives_windows_back() -> None:
    world = World()
    world.client.send(opened(1), Data(1, b"one"), Data(1, b"two", fin=True))
    running = asyncio.get_running_loop().create_task(world.session.run())
    await asyncio.sleep(0.01)
    assert [piece async for piece in world.streams[0].received()] == [b"one", b"two"]
    world.client.leave()
    with pytest.raises(DisconnectedError):
        await running
    assert WindowUpdate(1, 3) not in world.client.answers  # the client has ended the stream: it needs no window


async def test_a_stream_that_nobody_reads_holds_the_client_back_until_it_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tunnel, "BUFFERED", 10)
    world = World()
    world.client.send(opened(1), Data(1, b"x" * 8), Data(1, b"x" * 8), Data(1, b"x" * 8), Ping(1))
    running = asyncio.get_running_loop().create_task(world.session.run())
    await asyncio.sleep(0.02)
    assert Ping(1) not in world.client.answers
    await world.streams[0].ignore()
    await asyncio.sleep(0.02)
    assert Ping(1) in world.client.answers
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_reset_and_the_end_of_the_connection_wake_the_reader() -> None:
    world = World()
    world.client.send(opened(1), opened(3), Reset(1, 5))
    await world.run()
    for stream in world.streams:
        with pytest.raises(ResetError):
            async for _ in stream.received():
                pass
        with pytest.raises(ResetError):
            await stream.send(b"x")


async def test_closing_and_resetting_twice_says_it_once() -> None:
    world = World()
    world.client.send(opened(1), opened(3))
    running = asyncio.get_running_loop().create_task(world.session.run())
    await asyncio.sleep(0.01)
    one, two = world.streams
    for _ in range(2):
        await one.close()
        await two.reset()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert world.client.answers.count(Data(1, b"", fin=True)) == 1
    assert sum(isinstance(f, Reset) for f in world.client.answers) == 1


async def test_a_stream_with_useless_headers_is_reset_and_the_session_goes_on() -> None:
    world = World()
    world.client.send(opened(1, ("bad", "1")), opened(3))
    await world.run()
    assert any(isinstance(f, Reset) and f.stream == 1 for f in world.client.answers)
    assert [s.id for s in world.streams] == [3]


async def test_too_many_streams_are_refused_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "MAX_STREAMS", 2)
    world = World()
    world.client.send(opened(1), opened(3), opened(5))
    await world.run()
    assert [s.id for s in world.streams] == [1, 3]
    assert Reset(5, 3) in world.client.answers


@pytest.mark.parametrize(
    "frames",
    [
        [opened(2)],
        [opened(3), opened(1)],
        [opened(1), opened(1)],
        [Data(7, b"x")],
        [SynReply(1)],
        [opened(1), Data(1, b"", fin=True), Data(1, b"x")],
    ],
)
async def test_a_client_that_breaks_the_rules_is_told_and_cut_off(frames: list[Frame]) -> None:
    world = World()
    world.client.send(*frames)
    with pytest.raises(ProtocolError):
        await asyncio.wait_for(world.session.run(), 5)
    assert isinstance(world.client.answers[-1], GoAway)


async def test_a_text_message_breaks_the_protocol() -> None:
    world = World()
    world.client.incoming.put_nowait("text")
    with pytest.raises(ProtocolError):
        await world.session.run()

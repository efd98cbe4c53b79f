"""exec, attach and port forwarding over real TLS WebSockets, against a fake guest."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.fake import Refused
from cuboid.guest.fake_wire import FakeStream
from cuboid.kube.streaming import command
from cuboid.kube.streaming.spdy import Data, Decoder, Encoder, Frame, Ping, Reset, SynReply, SynStream, WindowUpdate
from tests.harness.kubelet_rig import KubeletRig, hear, kubelet, say

EXEC = "/exec/default/web/main?stdout=true&stderr=true"
SPDY = "SPDY/3.1+portforward.k8s.io"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[KubeletRig]:
    async with kubelet(tmp_path) as rig:
        yield rig


async def everything(socket: ClientConnection) -> dict[int, bytes]:
    """All that is said until the server closes, by channel."""
    said: dict[int, bytes] = {}
    try:
        async with asyncio.timeout(10):
            async for message in socket:
                assert isinstance(message, bytes)
                said[message[0]] = said.get(message[0], b"") + message[1:]
    except ConnectionClosed:
        pass
    return said


async def run(rig: KubeletRig, path: str, *protocols: str) -> tuple[dict[int, bytes], dict[str, Any]]:
    async with rig.socket(path, *protocols) as socket:
        said = await everything(socket)
    return said, json.loads(said.get(3, b"{}"))


async def test_exec_gives_output_of_both_streams_and_the_exit_code_as_kubectl_reads_it(rig: KubeletRig) -> None:
    said, status = await run(rig, EXEC + "&command=both")
    assert (said[1], said[2]) == (b"out\n", b"err\n")
    assert status["status"] == "Failure" and status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_exec_of_true_succeeds_and_takes_a_few_milliseconds(rig: KubeletRig) -> None:
    async with rig.http() as client:  # TLS session code is warm then
        await client.get("/healthz")
    times = []
    for _ in range(5):
        start = asyncio.get_running_loop().time()
        _, status = await run(rig, EXEC + "&command=true")
        times.append(asyncio.get_running_loop().time() - start)
        assert status["status"] == "Success"
    assert min(times) < 0.1


async def test_the_first_message_tells_that_the_connection_stands(rig: KubeletRig) -> None:
    async with rig.socket(EXEC + "&command=deaf") as socket:
        assert await asyncio.wait_for(socket.recv(), 5) == b"\x01"


async def test_stdin_reaches_the_command_and_its_end_is_told_by_the_close_channel(rig: KubeletRig) -> None:
    async with rig.socket(EXEC + "&stdin=true&command=count") as socket:
        for _ in range(40):
            await say(socket, 0, b"x" * 32_000)
        await say(socket, 255, b"\x00")
        said = await everything(socket)
    assert said[1] == b"1280000\n"


async def test_a_command_that_reads_nothing_holds_the_client_back_and_ends_when_it_leaves(
    rig: KubeletRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "PROBE_SECONDS", 0.2)
    sent = 0
    async with rig.socket(EXEC + "&stdin=true&command=deaf") as socket:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                while sent < 200 << 20:
                    await say(socket, 0, b"x" * 65_536)
                    sent += 65_536
        assert sent < 32 << 20
        assert not rig.execs.reset.is_set()
        socket.transport.abort()
    await asyncio.wait_for(rig.execs.reset.wait(), 5)


async def test_a_client_that_reads_nothing_holds_the_command_back(rig: KubeletRig) -> None:
    async with rig.socket(EXEC + "&command=yes") as socket:
        await asyncio.sleep(0.7)
        before = rig.execs.written
        await asyncio.sleep(0.3)
        assert before == rig.execs.written < 32 << 20
        socket.transport.abort()
    await asyncio.wait_for(rig.execs.reset.wait(), 5)


async def test_a_client_that_leaves_ends_its_command(rig: KubeletRig) -> None:
    async with rig.socket(EXEC + "&stdin=true&command=cat") as socket:
        await say(socket, 0, b"x")
        assert await hear(socket, 1, 1) == b"x"
    await asyncio.wait_for(rig.execs.reset.wait(), 5)


async def test_a_command_that_is_missing_says_so_as_users_know_it(rig: KubeletRig) -> None:
    said, status = await run(rig, EXEC + "&command=nosuch")
    assert said[2] == b'exec: "nosuch": executable file not found in $PATH\r\n'
    assert status["details"]["causes"][0]["message"] == "127"
    said, status = await run(rig, EXEC + "&command=/bin/nosuch")
    assert said[2] == b'exec: "/bin/nosuch": /bin/nosuch: not found in the container\r\n'


async def test_the_size_of_the_terminal_reaches_the_guest(rig: KubeletRig) -> None:
    resized: asyncio.Queue[pb.Resize] = asyncio.Queue()
    plain = rig.agent._do_resize

    async def noting(call: pb.Resize, _: FakeStream) -> pb.Reply:
        resized.put_nowait(call)
        return await plain(call, _)

    rig.agent._do_resize = noting  # type: ignore[method-assign]
    async with rig.socket("/exec/default/web/main?stdin=true&stdout=true&tty=true&command=cat") as socket:
        await say(socket, 4, b'{"Width":80,"Height":24}')
        await say(socket, 4, b'{"Width":120,"Height":40}')
        got = await asyncio.wait_for(resized.get(), 5)
        assert (got.rows, got.cols, bool(got.stream)) == (40, 120, True)
        await say(socket, 4, b'{"Width":121,"Height":"x"}')
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await asyncio.wait_for(socket.recv(), 5)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1002
    first = rig.execs.calls[0]
    assert (first.tty, first.rows, first.cols) == (True, 24, 80)


async def test_a_size_that_comes_before_the_command_has_a_terminal_is_not_lost(rig: KubeletRig) -> None:
    """As after keys that were typed ahead: then the first message is no size."""
    refusals = iter(range(3))
    sizes: asyncio.Queue[pb.Resize] = asyncio.Queue()

    async def starting(call: pb.Resize, _: FakeStream) -> pb.Reply:
        if next(refusals, None) is not None:
            raise Refused(pb.Error.NOT_FOUND, "no such exec")
        sizes.put_nowait(call)
        return pb.Reply(empty=pb.Empty())

    rig.agent._do_resize = starting  # type: ignore[method-assign]
    async with rig.socket("/exec/default/web/main?stdin=true&stdout=true&tty=true&command=cat") as socket:
        await say(socket, 0, b"typed ahead")
        await say(socket, 4, b'{"Width":101,"Height":33}')
        got = await asyncio.wait_for(sizes.get(), 5)
    assert (got.rows, got.cols) == (33, 101)


async def test_old_clients_get_the_old_protocol(rig: KubeletRig) -> None:
    async with rig.socket(EXEC + "&command=both", "channel.k8s.io") as socket:
        said = await everything(socket)
    assert said[3] == b"command terminated with non-zero exit code: exit status 3"


async def test_browsers_may_speak_base64(rig: KubeletRig) -> None:
    async with rig.socket(EXEC + "&command=echo&command=hi", "base64.channel.k8s.io") as socket:
        texts = [message async for message in socket]
    assert texts == ["1", "1aGkK"]


@pytest.mark.parametrize(
    ("path", "code", "text"),
    [
        ("/exec/default/nobody/main?stdout=1&command=true", 404, 'pod "nobody" is not on this node'),
        ("/exec/default/web/nobody?stdout=1&command=true", 404, "container nobody not found in pod web"),
        ("/exec/default/web/main?stdout=1", 400, "at least 1 command"),
        ("/exec/default/web/main?command=true", 400, "at least 1 of stdin, stdout, stderr"),
        (EXEC + "&command=true&env=x", 400, "KEY=VALUE"),
        (EXEC + "&command=true&user=" + "u" * 200, 400, "too long"),
        ("/attach/default/web/main?stdout=1&tty=1", 400, "did not allocate one"),
        ("/portForward/default/nobody", 404, "not on this node"),
    ],
)
async def test_what_cannot_be_is_refused_with_a_status_before_the_websocket(
    rig: KubeletRig, path: str, code: int, text: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with rig.socket(path):
            pass
    assert refused.value.response.status_code == code
    assert text in json.loads(refused.value.response.body or b"{}")["message"]


async def test_a_container_that_is_not_running_is_refused(rig: KubeletRig) -> None:
    rig.agent.end("main")
    with pytest.raises(InvalidStatus) as refused:
        async with rig.socket(EXEC + "&command=true"):
            pass
    assert refused.value.response.status_code == 409


async def test_a_lost_guest_ends_the_session_with_a_reason(rig: KubeletRig) -> None:
    async with rig.socket(EXEC + "&stdin=true&command=cat") as socket:
        await say(socket, 0, b"x")
        await hear(socket, 1, 1)
        rig.agent.wire.cut()
        said = await everything(socket)
    status = json.loads(said[3])
    assert status["reason"] == "InternalError" and "guest" in status["message"]


async def test_attach_gives_live_output_takes_stdin_and_ends_with_the_container(rig: KubeletRig) -> None:
    async with rig.socket("/attach/default/web/term?stdin=1&stdout=1&tty=1") as socket:
        await hear_first(socket)
        await rig.agent.write("term", b"hello")
        assert await hear(socket, 1, 6) == b"hello\n"
        await say(socket, 0, b"typed")
        async with asyncio.timeout(5):
            while bytes(rig.agent.containers["term"].stdin) != b"typed":
                await asyncio.sleep(0.01)
        rig.agent.end("term", code=5)
        said = await everything(socket)
    assert json.loads(said[3])["details"]["causes"][0]["message"] == "5"


async def test_attach_with_history_begins_with_what_was_written_before(rig: KubeletRig) -> None:
    await rig.agent.write("term", b"early")
    async with rig.socket("/attach/default/web/term?stdin=1&stdout=1&tty=1&history=true") as socket:
        await hear_first(socket)
        assert await hear(socket, 1, 6) == b"early\n"
        await rig.agent.write("term", b"late")
        assert await hear(socket, 1, 5) == b"late\n"


async def waits(rig: KubeletRig) -> None:
    async with asyncio.timeout(5):
        while not len(rig.access.told):
            await asyncio.sleep(0.01)


async def test_an_attachment_that_waits_gets_all_of_a_container_that_starts_later(rig: KubeletRig) -> None:
    rig.access.views.clear()  # the pod is not on this node yet

    async def attached() -> bytes:
        async with rig.socket("/attach/default/web/term?stdout=1&history=true&wait=true") as socket:
            return await hear(socket, 1, 6)

    task = asyncio.get_running_loop().create_task(attached())
    await waits(rig)
    rig.view.up = False
    rig.access.views.append(rig.view)
    rig.access.told.tell("default", "web")
    await waits(rig)
    assert not task.done()
    await rig.agent.write("term", b"early")
    rig.view.up = True
    rig.access.told.tell("default", "web")
    assert await asyncio.wait_for(task, 5) == b"early\n"
    assert not len(rig.access.told)


async def test_who_leaves_before_the_container_starts_is_not_waited_for(rig: KubeletRig) -> None:
    rig.view.up = False

    async def attached() -> None:
        async with rig.socket("/attach/default/web/term?stdout=1&wait=true"):
            raise AssertionError("the container does not run")

    task = asyncio.get_running_loop().create_task(attached())
    await waits(rig)
    task.cancel()
    async with asyncio.timeout(5):
        while len(rig.access.told):
            await asyncio.sleep(0.01)


async def test_leaving_an_attachment_leaves_the_container_running(rig: KubeletRig) -> None:
    async with rig.socket("/attach/default/web/term?stdin=1&stdout=1&tty=1") as socket:
        await hear_first(socket)
    await asyncio.sleep(0.05)
    assert rig.view.running("term")


async def hear_first(socket: ClientConnection) -> None:
    assert await asyncio.wait_for(socket.recv(), 5) == b"\x01"
    await asyncio.sleep(0.05)  # the guest has taken the call


# --- port forwarding -------------------------------------------------------------------------------------------------


class Forwarder:
    """A client that speaks SPDY as kubectl does: no windows, an error and a data stream per connection."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.encoder = Encoder()
        self.decoder = Decoder()
        self.frames: list[Frame] = []
        self.next = 1

    async def send(self, *frames: Frame) -> None:
        for frame in frames:
            await self.socket.send(self.encoder.encode(frame))

    async def open(self, port: int, request: str) -> tuple[int, int]:
        """(error stream, data stream)"""
        error, data = self.next, self.next + 2
        self.next += 4
        for stream, kind in ((error, "error"), (data, "data")):
            headers = (("Streamtype", kind), ("Port", str(port)), ("Requestid", request))
            await self.send(SynStream(stream, headers))
            if kind == "error":
                await self.send(Data(stream, b"", fin=True))
        return error, data

    async def until(self, wanted: Any) -> list[Frame]:
        async with asyncio.timeout(10):
            while not wanted(self.frames):
                message = await self.socket.recv()
                assert isinstance(message, bytes)
                self.frames += self.decoder.feed(message)
        return self.frames

    def data(self, stream: int) -> bytes:
        return b"".join(f.payload for f in self.frames if isinstance(f, Data) and f.stream == stream)

    def ended(self, stream: int) -> bool:
        return any(isinstance(f, Data) and f.stream == stream and f.fin for f in self.frames)


async def test_a_port_is_forwarded_over_spdy_inside_the_websocket(rig: KubeletRig) -> None:
    async with rig.socket("/portForward/default/web", SPDY) as socket:
        assert socket.subprotocol == SPDY
        client = Forwarder(socket)
        error, data = await client.open(80, "0")
        sent = bytes(range(256)) * 4096
        sending = asyncio.get_running_loop().create_task(send_all(client, data, sent))
        await client.until(lambda _: len(client.data(data)) >= len(sent))
        await sending
        await client.send(Data(data, b"", fin=True))
        await client.until(lambda _: client.ended(data) and client.ended(error))
        assert client.data(data) == sent
        assert client.data(error) == b""
        assert [f for f in client.frames if isinstance(f, SynReply)] == [SynReply(error), SynReply(data)]
        assert sum(f.delta for f in client.frames if isinstance(f, WindowUpdate)) == len(sent)


async def send_all(client: Forwarder, stream: int, data: bytes) -> None:
    for start in range(0, len(data), 32_768):
        await client.send(Data(stream, data[start : start + 32_768]))


async def test_connections_share_one_websocket_and_a_refused_port_is_told_on_its_own(rig: KubeletRig) -> None:
    async with rig.socket("/portForward/default/web", SPDY) as socket:
        client = Forwarder(socket)
        _, first = await client.open(80, "0")
        refused_error, refused = await client.open(1, "1")
        _, third = await client.open(81, "2")
        await client.send(Data(first, b"one"), Data(third, b"three"), Ping(1))
        await client.until(
            lambda _: client.data(first) and client.data(third) and client.ended(refused) and Ping(1) in client.frames
        )
        assert (client.data(first), client.data(third)) == (b"one", b"three")
        assert b"error forwarding port 1 to pod web: connection refused" in client.data(refused_error)


async def test_a_stream_that_belongs_to_nothing_is_reset_and_the_others_go_on(rig: KubeletRig) -> None:
    async with rig.socket("/portForward/default/web", SPDY) as socket:
        client = Forwarder(socket)
        await client.send(SynStream(1, (("streamtype", "data"), ("port", "80"), ("requestid", "9"))))
        client.next = 3
        _, data = await client.open(80, "0")
        await client.send(Data(data, b"x"))
        await client.until(lambda frames: client.data(data) and any(isinstance(f, Reset) for f in frames))


async def test_a_client_that_resets_its_connection_frees_it(rig: KubeletRig) -> None:
    async with rig.socket("/portForward/default/web", SPDY) as socket:
        client = Forwarder(socket)
        _, data = await client.open(80, "0")
        await client.send(Data(data, b"x"))
        await client.until(lambda _: client.data(data))
        await client.send(Reset(data, 5))
        async with asyncio.timeout(5):
            while not all(stream.over for stream in rig.agent.wire.streams.values()) and rig.agent.wire.streams:
                await asyncio.sleep(0.01)
                if sum(not s.over for s in rig.agent.wire.streams.values()) <= 2:  # the two log followers
                    break


async def test_garbage_ends_the_connection_with_goaway_and_nothing_else(rig: KubeletRig) -> None:
    async with rig.socket("/portForward/default/web", SPDY) as socket:
        await socket.send(b"\xff" * 64)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await asyncio.wait_for(socket.recv(), 5)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1002
    assert (await run(rig, EXEC + "&command=true"))[1]["status"] == "Success"


async def test_a_port_is_forwarded_over_plain_channels(rig: KubeletRig) -> None:
    async with rig.socket("/portForward/default/web?ports=80,1", "v4.channel.k8s.io") as socket:
        opened = sorted([await socket.recv() for _ in range(4)])
        assert opened == [bytes((n,)) + struct.pack("<H", port) for n, port in enumerate((80, 80, 1, 1))]
        await say(socket, 0, b"hello")
        heard: dict[int, bytes] = {}
        async with asyncio.timeout(10):
            while len(heard.get(0, b"")) < 5 or 3 not in heard:
                message = await socket.recv()
                assert isinstance(message, bytes)
                heard[message[0]] = heard.get(message[0], b"") + message[1:]
        assert heard[0] == b"hello"
        assert b"connection refused" in heard[3]

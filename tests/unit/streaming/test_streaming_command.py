from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.kube.streaming.command import Channels, Result, first_size, serve_command, terminal_size
from cuboid.kube.streaming.portforward import parse_port
from cuboid.kube.streaming.socket import DisconnectedError, choose


class Socket:
    def __init__(self, messages: Sequence[bytes | str] = ()) -> None:
        self.messages = list(messages)
        self.sent: list[bytes | str] = []
        self.closed: int | None = None
        self.stay = asyncio.Event()

    async def receive(self) -> bytes | str:
        if self.messages:
            return self.messages.pop(0)
        await self.stay.wait()
        raise DisconnectedError

    async def send(self, message: bytes | str) -> None:
        self.sent.append(message)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.closed = code if self.closed is None else self.closed


class Program:
    """Takes stdin until its end, answers with it, ends."""

    def __init__(self, result: Result | None = None) -> None:
        self.taken = b""
        self.ended = asyncio.Event()
        self.sizes: list[tuple[int, int]] = []
        self._result = result or Result()

    async def stdin(self, data: bytes) -> None:
        self.taken += data

    async def stdin_end(self) -> None:
        self.ended.set()

    async def resize(self, rows: int, cols: int) -> None:
        self.sizes.append((rows, cols))

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        await self.ended.wait()
        yield 1, self.taken
        yield 2, b"err"

    async def result(self) -> Result:
        return self._result


async def serve(socket: Socket, program: Program, channels: Channels, protocol: str = "v5.channel.k8s.io") -> None:
    await asyncio.wait_for(serve_command(socket, protocol, channels, program), 5)


async def test_a_whole_session() -> None:
    socket = Socket([b"\x00hel", b"\x00lo", b"\xff\x00", b"\x00late"])
    program = Program()
    await serve(socket, program, Channels(stdin=True))
    assert socket.sent[:3] == [b"\x01", b"\x01hello", b"\x02err"]
    last = socket.sent[-1]
    assert isinstance(last, bytes) and json.loads(last[1:]) == {"metadata": {}, "status": "Success"}
    assert socket.closed == 1000


async def test_streams_that_were_not_asked_for_are_not_sent_and_stdin_is_not_taken() -> None:
    socket, program = Socket([b"\x00x"]), Program()
    program.ended.set()
    await serve(socket, program, Channels(stdin=False, stdout=False, stderr=True))
    assert [m[:1] for m in socket.sent if isinstance(m, bytes)] == [b"\x02", b"\x02", b"\x03"]
    assert program.taken == b""


async def test_on_a_terminal_everything_is_one_stream() -> None:
    socket, program = Socket(), Program()
    program.ended.set()
    await serve(socket, program, Channels(stderr=False, tty=True))
    assert socket.sent[1:-1] == [b"\x01err"]


async def test_a_client_that_leaves_ends_the_session_without_an_error() -> None:
    socket = Socket([b"\x00x"])
    socket.stay.set()
    await serve(socket, Program(), Channels(stdin=True))
    assert socket.closed is None


@pytest.mark.parametrize("message", [b"", b"\x04{", b"\x04[]", b'\x04{"Width":1}', b"\x04" + b"[" * 5000])
async def test_a_message_that_is_none_closes_with_a_protocol_error(message: bytes) -> None:
    socket = Socket([message])
    await serve(socket, Program(), Channels(stdin=True, tty=True))
    assert socket.closed == 1002


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=10), st.booleans())
def test_no_messages_do_more_than_close_the_session(messages: list[bytes], tty: bool) -> None:
    async def scenario() -> None:
        socket = Socket(messages)
        socket.stay.set()
        await serve(socket, Program(), Channels(stdin=True, tty=tty))

    asyncio.run(scenario())


async def test_a_program_that_takes_no_more_stdin_goes_on() -> None:
    class Deaf(Program):
        async def stdin(self, data: bytes) -> None:
            self.ended.set()
            raise BrokenPipeError

    socket = Socket([b"\x00x", b"\x00y"])
    await serve(socket, Deaf(), Channels(stdin=True))
    assert socket.closed == 1000


async def test_the_first_size_is_taken_and_any_other_first_message_is_not_lost() -> None:
    sized = Socket([b'\x04{"Width":80,"Height":24}', b"\x00x"])
    rest, size = await first_size(sized, "v5.channel.k8s.io")
    assert (size, await rest.receive()) == ((24, 80), b"\x00x")
    rest, size = await first_size(Socket([b"\x00x", b"\x00y"]), "v5.channel.k8s.io")
    assert (size, await rest.receive(), await rest.receive()) == ((0, 0), b"\x00x", b"\x00y")
    _, size = await first_size(Socket(), "v5.channel.k8s.io")
    assert size == (0, 0)


async def test_base64_is_text_both_ways() -> None:
    socket, program = Socket(["0aGk="]), Program()
    task = asyncio.get_running_loop().create_task(serve(socket, program, Channels(stdin=True), "base64.channel.k8s.io"))
    await asyncio.sleep(0.01)
    program.ended.set()
    await task
    assert socket.sent[:2] == ["1", "1aGk="]


@pytest.mark.parametrize(
    ("result", "reason"),
    [(Result(), None), (Result(3), "NonZeroExitCode"), (Result(message="gone"), "InternalError")],
)
def test_results_are_what_kubectl_expects(result: Result, reason: str | None) -> None:
    assert result.status().get("reason") == reason


def test_sizes_have_limits() -> None:
    assert terminal_size(b'{"Width":80,"Height":24}') == (24, 80)
    for wrong in (b'{"Width":-1,"Height":1}', b'{"Width":true,"Height":1}', b'{"Width":65536,"Height":1}', b"1" * 300):
        with pytest.raises(ValueError):
            terminal_size(wrong)


def test_the_newest_common_protocol_is_chosen() -> None:
    assert choose(["v4.channel.k8s.io", "v5.channel.k8s.io"], ["v5.channel.k8s.io", "v4.channel.k8s.io"]) == (
        "v5.channel.k8s.io"
    )
    assert choose(["x"], ["y"]) is None


@pytest.mark.parametrize("text", ["", "0", "65536", "-1", "8 0", "٣", "999999", "80x"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_port(text)

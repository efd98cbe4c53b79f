"""Answers of a VMM are hostile: anything it can send is an answer or one of our errors, in bounded time and memory."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.lib.errors import CuboidError, DeadlineError, HostileError, UnavailableError
from cuboid.vmm.firecracker import http, requests
from cuboid.vmm.firecracker.http import Answer, Api, ApiRefusedError

OK = b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n"


async def read(data: bytes) -> Answer:
    reader = asyncio.StreamReader(limit=http.MAX_HEAD)
    reader.feed_data(data)
    reader.feed_eof()
    return await http.read_answer(reader)


def answered(status: int, body: bytes) -> bytes:
    return f"HTTP/1.1 {status} \r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def vmm(folder: Path, answer: bytes, *, hang: bool = False) -> AsyncIterator[Path]:
    """Something that listens and says `answer` to whatever it is sent."""

    over = asyncio.Event()
    over.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over.clear()
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            if hang:
                await reader.read()
            writer.close()
            await writer.wait_closed()
        writer.close()
        over.set()

    server = await asyncio.start_unix_server(serve, str(folder / "api"))
    async with server:
        yield folder / "api"
        await over.wait()


async def test_an_answer_is_its_status_and_its_body() -> None:
    assert await read(OK) == Answer(204, b"")
    assert await read(answered(200, b'{"a": 1}')) == Answer(200, b'{"a": 1}')


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 0x10\r\n\r\n",
        b"HTTP/1.1 20\r\n\r\n",
        b"HTTP/9.9 200\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200\r\n folded: x\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 262145\r\n\r\n",
        b"HTTP/1.1 200\r\nX: " + b"x" * (http.MAX_HEAD + 1),
    ],
)
async def test_what_is_no_proper_answer_is_hostile(data: bytes) -> None:
    with pytest.raises(HostileError):
        await read(data + b"x" * (2 * http.MAX_HEAD))


@pytest.mark.parametrize(
    "data", [b"", b"HTTP/1.1 2", b"HTTP/1.1 200\r\n\r", b"HTTP/1.1 200\r\nContent-Length: 9\r\n\r\nshort"]
)
async def test_an_answer_that_breaks_off_is_a_vmm_that_went_away(data: bytes) -> None:
    with pytest.raises(UnavailableError, match="went away"):
        await read(data)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_an_answer_or_one_of_our_errors(data: bytes, status_first: bool) -> None:
    try:
        asyncio.run(read(b"HTTP/1.1 200 OK\r\n" + data if status_first else data))
    except CuboidError as error:
        assert isinstance(error, HostileError | UnavailableError)


@given(st.binary(max_size=100) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_any_body_becomes_one_printable_line_of_bounded_length(body: bytes | str) -> None:
    said = http.fault(body.encode() if isinstance(body, str) else body)
    assert said.isprintable()
    assert len(said) <= http.MAX_FAULT


def test_a_fault_is_told_in_the_vmms_words_made_printable() -> None:
    assert http.fault(b'{"fault_message": "no\\nsuch\\u001b[31m file"}') == "no such [31m file"
    assert http.fault(b'{"fault_message": 7}') == "it does not say why"
    assert http.fault(b"[" * 100_000) == "it does not say why"


def test_a_request_is_one_head_and_one_body() -> None:
    head, _, content = http.encode(requests.pause()).partition(b"\r\n\r\n")
    assert head.startswith(b"PATCH /vm HTTP/1.1\r\n")
    assert f"Content-Length: {len(content)}".encode() in head
    assert json.loads(content) == {"state": "Paused"}
    assert http.encode(requests.describe()).endswith(b"\r\n\r\n")


async def test_a_call_returns_the_object_of_the_answer(tmp_path: Path) -> None:
    async with vmm(tmp_path, answered(200, b'{"state": "Running"}')) as path:
        assert await Api(path, os.getpid(), seconds=5).get(requests.describe()) == {"state": "Running"}


@pytest.mark.parametrize("content", [b"[]", b"nonsense", b'"x"'])
async def test_an_answer_that_is_no_object_is_hostile(tmp_path: Path, content: bytes) -> None:
    async with vmm(tmp_path, answered(200, content)) as path:
        with pytest.raises(HostileError, match="JSON"):
            await Api(path, os.getpid(), seconds=5).get(requests.describe())


@pytest.mark.parametrize("status", [400, 404, 500, 302])
async def test_a_refusal_names_the_request_and_the_reason(tmp_path: Path, status: int) -> None:
    async with vmm(tmp_path, answered(status, b'{"fault_message": "not now"}')) as path:
        with pytest.raises(ApiRefusedError, match="refused PATCH /vm: not now"):
            await Api(path, os.getpid(), seconds=5).call(requests.pause())


async def test_a_vmm_that_never_answers_is_given_up_in_time(tmp_path: Path) -> None:
    async with vmm(tmp_path, b"", hang=True) as path:
        with pytest.raises(DeadlineError, match="PATCH /vm"):
            await Api(path, os.getpid(), seconds=0.05).call(requests.pause())


async def test_nothing_is_sent_to_another_process_behind_the_socket(tmp_path: Path) -> None:
    async with vmm(tmp_path, OK) as path:
        with pytest.raises(HostileError, match="another process"):
            await Api(path, os.getpid() + 1, seconds=5).call(requests.pause())


async def test_a_vmm_whose_queue_is_full_does_not_count_as_another_process(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(tmp_path / "api"))
        listener.listen(0)
        first.connect(str(tmp_path / "api"))
        with pytest.raises(UnavailableError):
            await Api(tmp_path / "api", os.getpid(), seconds=5).call(requests.pause())


async def test_no_socket_is_a_vmm_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="does not answer"):
        await Api(tmp_path / "nothing", os.getpid(), seconds=5).call(requests.pause())

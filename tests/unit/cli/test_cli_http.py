"""The command's own HTTP: an answer is understood however it is cut, and nothing that is none is taken for one."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.cli.http import Connection, Parser, ready
from cuboid.lib.errors import HostileError

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED


def body(parser: Parser) -> bytes:
    return parser.take(1 << 20)


@pytest.mark.parametrize(("answer", "status"), [(SIZED, 200), (CHUNKED, 201), (CONTINUED, 200)])
@given(cuts=st.sets(st.integers(0, 100)))
def test_an_answer_is_the_same_however_it_is_cut(answer: bytes, status: int, cuts: set[int]) -> None:
    parser = Parser()
    places = [0, *sorted(cut for cut in cuts if cut < len(answer)), len(answer)]
    for start, end in pairwise(places):
        parser.feed(answer[start:end])
    assert (parser.status, body(parser), parser.done, parser.reusable) == (status, b"hello", True, True)


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    parser = Parser()
    parser.feed(b"HTTP/1.0 200 OK\r\n\r\nhel")
    parser.feed(b"lo")
    assert not parser.done
    parser.eof()
    assert (body(parser), parser.done, parser.reusable) == (b"hello", True, False)


def test_what_follows_an_upgrade_is_kept_for_it() -> None:
    parser = Parser()
    parser.feed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x82\x00")
    assert (parser.begun, parser.done, parser.rest) == (True, True, b"\x82\x00")


@pytest.mark.parametrize("answer", [
    b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 two\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nlong\r\n", b"x" * 70_000,
    b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n",
])  # fmt: skip
def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    with pytest.raises(HostileError):
        Parser().feed(answer)


def test_an_answer_that_ends_in_its_middle_is_refused() -> None:
    parser = Parser()
    parser.feed(SIZED[:-1])
    with pytest.raises(HostileError):
        parser.eof()


@given(st.binary(max_size=300))
def test_random_bytes_are_an_answer_or_refused(data: bytes) -> None:
    parser = Parser()
    try:
        parser.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
        parser.eof()
    except HostileError:
        return


class Server:
    """Answers each request with the next of its answers, on one connection after the other."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.requests: list[bytes] = []
        self._dialled = 0
        self._connections = connections
        self._threads: list[threading.Thread] = []

    def dial(self, timeout: float | None) -> socket.socket:
        here, there = socket.socketpair()
        here.settimeout(5)
        answers = self._connections[self._dialled]
        self._dialled += 1
        thread = threading.Thread(target=self._serve, args=(there, answers), daemon=True)
        thread.start()
        self._threads.append(thread)
        return here

    def _serve(self, wire: socket.socket, answers: list[bytes]) -> None:
        with wire:
            for answer in answers:
                self.requests.append(wire.recv(65_536))
                wire.sendall(answer)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def connect() -> Iterator[list[Connection]]:
    opened: list[Connection] = []
    yield opened
    for connection in opened:
        connection.close()


def test_a_connection_is_used_again_unless_an_answer_was_not_read(connect: list[Connection]) -> None:
    server = Server([SIZED, CHUNKED, SIZED.replace(b"5", b"6")], [SIZED])
    connection = Connection(server.dial, "h:1", 5)
    connect.append(connection)
    assert connection.request("GET", "/a", {}).read() == b"hello"
    assert list(connection.request("POST", "/b", {"A": "b"}, b"data")) == [b"hello"]
    with connection.request("GET", "/c", {}) as response:
        assert response.read(2) == b"he"
    assert connection.request("GET", "/d", {}).read() == b"hello"
    server.join()
    assert server.requests[1].startswith(b"POST /b HTTP/1.1\r\nHost: h:1\r\nA: b\r\nContent-Length: 4\r\n\r\ndata")
    assert len(server.requests) == 4


def test_a_file_is_sent_in_chunks(connect: list[Connection]) -> None:
    server = Server([SIZED])
    connection = Connection(server.dial, "h", 5)
    connect.append(connection)
    connection.request("PUT", "/", {}, io.BytesIO(b"data")).close()
    assert b"Transfer-Encoding: chunked" in server.requests[0]


def test_a_line_break_in_a_request_is_refused_before_anything_is_sent(connect: list[Connection]) -> None:
    server = Server([SIZED])
    with pytest.raises(HostileError):
        Connection(server.dial, "h", 5).request("GET", "/ HTTP/1.1\r\nA: b", {})
    assert not server.requests


def test_what_came_with_the_head_is_not_waited_for(connect: list[Connection]) -> None:
    server = Server([CHUNKED])
    connection = Connection(server.dial, "h", 5)
    connect.append(connection)
    with connection.request("GET", "/", {}) as response:
        server.join()
        assert ready([response], 5) == [response]
        assert response.arrived() == b"hello"
        assert response.over

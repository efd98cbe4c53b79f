"""The command's own WebSocket against the `websockets` package: what one writes the other reads."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from cuboid.cli.websocket import BINARY, PING, Frames, Socket, accepted, frame
from cuboid.lib.errors import HostileError


def server() -> Protocol:
    return Protocol(Side.SERVER, state=State.OPEN, max_size=None)


def bytes_of(frame_: Frame) -> bytes:
    return frame_.serialize(mask=False)


@given(st.binary(max_size=200) | st.sampled_from([b"x" * 125, b"x" * 126, b"x" * 65_535, b"x" * 65_536]))
def test_a_server_reads_what_is_sent(data: bytes) -> None:
    reader = server()
    reader.receive_data(frame(BINARY, data))
    (event,) = reader.events_received()
    assert isinstance(event, Frame)
    assert bytes(event.data) == data


@given(parts=st.lists(st.binary(max_size=150), min_size=1), cuts=st.integers(1, 40))
def test_messages_in_parts_and_pings_between_are_read_however_they_are_cut(parts: list[bytes], cuts: int) -> None:
    sent = b""
    for number, part in enumerate(parts):
        kind = Opcode.BINARY if number == 0 else Opcode.CONT
        sent += bytes_of(Frame(kind, part, fin=number == len(parts) - 1)) + bytes_of(Frame(Opcode.PING, b"there?"))
    sent += bytes_of(Frame(Opcode.CLOSE, b"\x03\xe8bye"))
    frames = Frames()
    messages: list[bytes] = []
    for start in range(0, len(sent), cuts):
        messages += frames.feed(sent[start : start + cuts])
    assert messages == [b"".join(parts)]
    assert frames.close_code == 1000
    reader = server()
    reader.receive_data(bytes(frames.answers))
    kinds = [event.opcode for event in reader.events_received() if isinstance(event, Frame)]
    assert kinds == [Opcode.PONG] * len(parts) + [Opcode.CLOSE]


@pytest.mark.parametrize("sent", [
    b"\xc2\x00",  # an extension
    b"\x82\x80\x00\x00\x00\x00",  # masked
    b"\x80\x00",  # goes on with nothing
    b"\x02\x00\x02\x00",  # a second message inside the first
    b"\x09\x00",  # a ping in parts
    b"\x8b\x00", b"\x83\x00",  # unknown kinds
    b"\x82\x7f" + (1 << 40).to_bytes(8, "big"),
])  # fmt: skip
def test_what_breaks_the_protocol_is_refused(sent: bytes) -> None:
    with pytest.raises(HostileError):
        list(Frames().feed(sent))


@given(st.binary(max_size=300))
def test_random_bytes_are_frames_or_refused(data: bytes) -> None:
    try:
        list(Frames().feed(data))
    except HostileError:
        return


def test_the_key_of_the_rfc_is_answered_as_it_says() -> None:
    assert accepted("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_a_peer_that_does_not_read_is_not_waited_for_and_gets_all_of_it_later() -> None:
    here, there = socket.socketpair()
    with there:
        client, reader, sent = Socket(here, b""), server(), b"x" * 4_000_000
        client.send(sent)
        assert client.unsent  # more than the socket takes
        received = b""
        while len(received) < len(sent):
            reader.receive_data(there.recv(1 << 20))
            client.flush()
            for event in reader.events_received():
                assert isinstance(event, Frame)
                received += event.data
        assert received == sent
        client.close()


def test_the_end_of_the_connection_is_the_end_and_what_came_before_it_is_read() -> None:
    here, there = socket.socketpair()
    client = Socket(here, bytes_of(Frame(Opcode.BINARY, b"early")))
    assert client.waiting
    assert client.receive() == [b"early"]
    assert client.receive() == []
    there.close()
    assert client.receive() == []
    assert client.over
    client.close()


def test_a_ping_is_answered_at_once() -> None:
    here, there = socket.socketpair()
    with there:
        client = Socket(here, frame(PING, b"")[:0])
        there.sendall(bytes_of(Frame(Opcode.PING, b"a")))
        assert client.receive() == []
        reader = server()
        reader.receive_data(there.recv(100))
        (event,) = reader.events_received()
        assert isinstance(event, Frame)
        assert (event.opcode, bytes(event.data)) == (Opcode.PONG, b"a")
        client.close()

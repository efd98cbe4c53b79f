"""The frame codec against any garbage and any split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.frames import (
    HEADER,
    MAX_MESSAGE,
    MAX_PAYLOAD,
    MAX_SKIPPED,
    MORE,
    ZEROS,
    Frame,
    GuestDecoder,
    HostDecoder,
    Kind,
    encode,
    encode_plain,
    pieces,
)
from cuboid.lib.errors import HostileError, InvalidError

NONCE = bytes(range(16))
ACK = encode_plain(Kind.HELLO_ACK, 0, pb.HelloAck(version=1, nonce=NONCE).SerializeToString())
HELLO = encode(Kind.HELLO, 0, pb.Hello(version=1, nonce=NONCE).SerializeToString())
payloads = st.binary(max_size=400)
cuts = st.lists(st.integers(1, 97), min_size=1, max_size=20)


def feed(decoder: GuestDecoder, data: bytes) -> list[Frame]:
    """As a socket would: as much as there is room for at a time."""
    frames: list[Frame] = []
    while data:
        space = decoder.space()
        count = min(len(space), len(data))
        space[:count] = data[:count]
        frames += decoder.received(count)
        data = data[count:]
    return frames


def split(data: bytes, sizes: list[int]) -> list[bytes]:
    found, start, turn = [], 0, 0
    while start < len(data):
        size = sizes[turn % len(sizes)]
        found.append(data[start : start + size])
        start, turn = start + size, turn + 1
    return found


def greeted() -> GuestDecoder:
    decoder = GuestDecoder(NONCE)
    assert len(feed(decoder, ACK)) == 1
    return decoder


@given(st.lists(payloads, max_size=6), cuts)
def test_the_guests_frames_come_out_as_they_went_in_at_any_split(contents: list[bytes], sizes: list[int]) -> None:
    wire = b"".join(encode_plain(Kind.DATA, 7, content, 1) for content in contents)
    decoder = greeted()
    found = [frame for piece in split(wire, sizes) for frame in feed(decoder, piece)]
    assert found == [Frame(Kind.DATA, 1, 7, content) for content in contents]


@given(st.lists(payloads, max_size=6), cuts)
def test_the_hosts_frames_come_out_as_they_went_in_at_any_split(contents: list[bytes], sizes: list[int]) -> None:
    wire = HELLO + b"".join(encode(Kind.DATA, 7, content, 2) for content in contents)
    decoder = HostDecoder()
    found = [frame for piece in split(wire, sizes) for frame in decoder.received(piece)]
    assert found[1:] == [Frame(Kind.DATA, 2, 7, content) for content in contents]


@given(st.binary(max_size=2000), cuts)
def test_whatever_precedes_the_answer_to_our_greeting_is_dropped(garbage: bytes, sizes: list[int]) -> None:
    decoder = GuestDecoder(NONCE)
    found = [frame for piece in split(garbage + ACK, sizes) for frame in feed(decoder, piece)]
    assert [frame.kind for frame in found] == [Kind.HELLO_ACK]


@given(st.integers(0, len(ACK) - 1))
def test_an_answer_cut_short_or_to_another_greeting_is_no_answer(length: int) -> None:
    other = encode_plain(Kind.HELLO_ACK, 0, pb.HelloAck(version=1, nonce=bytes(16)).SerializeToString())
    frames = feed(GuestDecoder(NONCE), other + ACK[:length] + ACK)
    assert [frame.payload for frame in frames] == [ACK[HEADER.size :]]


@given(st.binary(min_size=1, max_size=3000))
def test_garbage_after_the_greeting_is_hostile_or_waits_for_more(garbage: bytes) -> None:
    try:
        feed(greeted(), garbage)
    except HostileError:
        return
    assert len(garbage) < HEADER.size or garbage.startswith(b"\xb1\xc0")


def test_a_guest_that_never_answers_is_given_up_after_a_bounded_number_of_bytes() -> None:
    decoder = GuestDecoder(NONCE)
    with pytest.raises(HostileError):
        for _ in range(MAX_SKIPPED // (1 << 17) + 2):
            feed(decoder, bytes(1 << 17))


@pytest.mark.parametrize(
    "header",
    [
        HEADER.pack(b"\xb1\xc1", Kind.DATA, 0, 1, 0, 0),
        HEADER.pack(b"\xb1\xc0", 0, 0, 1, 0, 0),
        HEADER.pack(b"\xb1\xc0", 13, 0, 1, 0, 0),
        HEADER.pack(b"\xb1\xc0", Kind.DATA, 0, 1, MAX_PAYLOAD + 1, 0),
    ],
)
def test_a_wrong_header_is_hostile(header: bytes) -> None:
    with pytest.raises(HostileError):
        feed(greeted(), header)


@given(st.integers(0, len(HELLO) - 1), payloads)
def test_a_host_cut_off_at_any_byte_is_understood_again_after_its_next_greeting(length: int, content: bytes) -> None:
    decoder = HostDecoder()
    call = encode(Kind.CALL, 3, content)
    broken = HELLO + call[: min(length, len(call) - 1)]
    frames = [*decoder.received(broken), *decoder.received(ZEROS + HELLO + call)]
    assert frames[-2:] == [Frame(Kind.HELLO, 0, 0, HELLO[HEADER.size :]), Frame(Kind.CALL, 0, 3, content)]


def test_a_call_inside_a_broken_frame_is_not_believed() -> None:
    decoder = HostDecoder()
    outer = bytearray(encode(Kind.DATA, 3, encode(Kind.CALL, 5, b"steal")))
    outer[12] ^= 1
    assert [frame.kind for frame in decoder.received(HELLO + bytes(outer) + encode(Kind.CALL, 7))] == [Kind.HELLO]


@given(st.binary(max_size=3 * MAX_PAYLOAD // 100))
def test_garbage_never_harms_the_hosts_decoder(garbage: bytes) -> None:
    decoder = HostDecoder()
    list(decoder.received(garbage))
    assert [frame.kind for frame in decoder.received(ZEROS + HELLO)][-1:] == [Kind.HELLO]


@given(st.integers(0, 3 * MAX_PAYLOAD))
def test_a_long_message_is_cut_into_frames_and_only_the_last_says_so(length: int) -> None:
    parts = list(pieces(bytes(length)))
    assert sum(len(payload) for _, payload in parts) == length
    assert [flags for flags, _ in parts] == [MORE] * (len(parts) - 1) + [0]
    assert all(len(payload) <= MAX_PAYLOAD for _, payload in parts)


def test_a_message_that_is_too_long_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidError, match="too long"):
        list(pieces(bytes(MAX_MESSAGE + 1)))

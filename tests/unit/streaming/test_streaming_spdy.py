from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.kube.streaming import spdy
from cuboid.kube.streaming.spdy import (
    DICTIONARY,
    Data,
    Decoder,
    Encoder,
    Frame,
    GoAway,
    Headers,
    Ping,
    ProtocolError,
    Reset,
    Settings,
    SynReply,
    SynStream,
    WindowUpdate,
)

STREAMS = st.integers(1, 2**31 - 1)
WORDS = st.integers(0, 2**31 - 1)
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).map(str.lower)
HEADERS = st.lists(st.tuples(NAMES, st.text(max_size=30)), max_size=6).map(tuple)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Data, STREAMS, st.binary(max_size=200), st.booleans()),
    st.builds(SynStream, STREAMS, HEADERS, st.booleans(), st.booleans()),
    st.builds(SynReply, STREAMS, HEADERS, st.booleans()),
    st.builds(Headers, STREAMS, HEADERS, st.booleans()),
    st.builds(Reset, STREAMS, WORDS),
    st.builds(Ping, WORDS),
    st.builds(GoAway, WORDS, WORDS),
    st.builds(WindowUpdate, WORDS, WORDS),
    st.builds(Settings, st.lists(st.tuples(st.integers(0, 2**24 - 1), WORDS), max_size=4).map(tuple)),
)


def test_the_dictionary_is_that_of_the_specification() -> None:
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2
    assert Encoder().encode(SynReply(1))[12:18].hex() == "78bbe3c6a7c2"


@settings(deadline=None)
@given(st.lists(FRAMES, max_size=8), st.integers(1, 64))
def test_frames_survive_any_cutting_of_the_bytes(frames: list[Frame], size: int) -> None:
    encoder, decoder = Encoder(), Decoder()
    sent = b"".join(encoder.encode(frame) for frame in frames)
    got = [frame for start in range(0, len(sent), size) for frame in decoder.feed(sent[start : start + size])]
    assert got == frames


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_do_more_than_break_the_protocol(data: bytes) -> None:
    try:
        Decoder().feed(data)
    except ProtocolError:
        return


@settings(deadline=None)
@given(st.lists(FRAMES, min_size=1, max_size=4), st.data())
def test_a_flipped_byte_does_no_more_than_break_the_protocol(frames: list[Frame], data: st.DataObject) -> None:
    encoder = Encoder()
    sent = bytearray(b"".join(encoder.encode(frame) for frame in frames))
    sent[data.draw(st.integers(0, len(sent) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        Decoder().feed(bytes(sent))
    except ProtocolError:
        return


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_header_block_does_more_than_break_the_protocol(block: bytes) -> None:
    try:
        spdy.parse_headers(block)
    except ProtocolError:
        return


def control(kind: int, payload: bytes, version: int = 3) -> bytes:
    return struct.pack("!HHI", 0x8000 | version, kind, len(payload)) + payload


def block(plain: bytes) -> bytes:
    deflate = zlib.compressobj(zdict=DICTIONARY)
    return deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack("!II", 1, spdy.MAX_DATA + 1),
        struct.pack("!II", 0, 1) + b"x",  # data on stream 0
        control(spdy.PING, b"1234", version=2),
        control(spdy.PING, b"12345"),
        control(5, b""),
        control(spdy.SYN_REPLY, b"\0\0\0\1" + b"not zlib at all"),
        control(spdy.SYN_REPLY, b"\0\0\0\1" + block(struct.pack("!I", 65))),
        control(spdy.SYN_REPLY, b"\0\0\0\1" + block(struct.pack("!II", 1, 99) + b"short")),
        control(spdy.SETTINGS, struct.pack("!I", 1 << 30)),
        struct.pack("!HHI", 0x8003, spdy.SYN_STREAM, spdy.MAX_CONTROL + 1),
    ],
)
def test_what_breaks_a_rule_or_limit_is_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(frame)


def test_a_header_block_that_unfolds_to_megabytes_is_refused_without_unfolding_it() -> None:
    bomb = block(struct.pack("!II", 1, 50 << 20) + b"\0" * (50 << 20))
    assert len(bomb) < spdy.MAX_CONTROL
    with pytest.raises(ProtocolError, match="too long"):
        Decoder().feed(control(spdy.SYN_REPLY, b"\0\0\0\1" + bomb))

"""Netlink questions and their answers, in the calling thread's network namespace: a start waits for no process.

Source: linux/netlink.h and linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

ROUTE, NETFILTER = 0, 12
ACKNOWLEDGE, CREATE, CREATE_OR_REPLACE = 0x004, 0x400, 0x500
_REQUEST, _DUMP = 0x001, 0x300
_ERROR, _DONE = 2, 3  # an error of 0 is success
_BEGIN, _END = 0x10, 0x11  # of a transaction
_NESTED = 0x8000
_LARGEST = 1 << 20  # bytes of one answer
_DEADLINE = 5.0  # s; the kernel answers within the call


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, value: bytes) -> bytes:
    return attribute(kind | _NESTED, value)


def attributes(data: bytes) -> dict[int, bytes]:
    """The inverse, by kind without its flags; the last of a kind counts."""
    found = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[4:length]
        data = data[-(-length // 4) * 4 :]
    return found


def filter_header(family: int, resource: int = 0) -> bytes:
    """`struct nfgenmsg`, with which every message to netfilter begins."""
    return struct.pack("=BBH", family, 0, socket.htons(resource))


def ask(protocol: int, kind: int, body: bytes, flags: int = 0) -> bytes:
    """The body of the kernel's first answer; OSError with its errno if that is a refusal."""
    with _socket(protocol) as netlink:
        netlink.sendto(_message(kind, flags, body), (0, 0))
        return _answer(netlink.recv(_LARGEST))


def transact(subsystem: int, kind: int, body: bytes, flags: int = 0) -> None:
    """One change as a transaction of netfilter's. Errors as `ask`."""
    begin, end = (_message(edge, 0, filter_header(0, subsystem)) for edge in (_BEGIN, _END))
    with _socket(NETFILTER) as netlink:
        netlink.sendto(begin + _message(kind, flags | ACKNOWLEDGE, body) + end, (0, 0))
        _answer(netlink.recv(_LARGEST))


def dump(protocol: int, kind: int, body: bytes) -> Iterator[bytes]:
    """The bodies of all that the kernel lists."""
    with _socket(protocol) as netlink:
        netlink.sendto(_message(kind, _DUMP, body), (0, 0))
        while True:
            data = netlink.recv(_LARGEST)
            while len(data) >= 16:
                length, answer = struct.unpack_from("=IH", data)
                if answer == _DONE:
                    return
                yield _answer(data[:length])
                data = data[-(-length // 4) * 4 :]


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 1, 0) + body


def _answer(message: bytes) -> bytes:
    length, kind = struct.unpack_from("=IH", message)
    body = message[16:length]
    if kind == _ERROR and (failure := struct.unpack_from("=i", body)[0]):
        raise OSError(-failure, os.strerror(-failure))
    return body


@contextmanager
def _socket(protocol: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as made:
        made.settimeout(_DEADLINE)
        yield made

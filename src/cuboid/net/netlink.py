"""One netlink question and its answer, in the calling thread's network namespace: a start waits for no process.

Source: linux/netlink.h.
"""

from __future__ import annotations

import os
import socket
import struct

ROUTE, NETFILTER = 0, 12
ACKNOWLEDGE, CREATE_OR_REPLACE = 0x004, 0x500
_REQUEST = 0x001
_ERROR = 2  # also tells of success, by 0


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def ask(family: int, kind: int, body: bytes, flags: int = 0) -> None:
    """Returns at the kernel's first answer; OSError with its errno if that is a refusal."""
    header = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST | flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family) as netlink:
        netlink.sendto(header + body, (0, 0))
        reply = netlink.recv(65536)
    answer, failure = struct.unpack_from("=4xH10xi", reply)
    if answer == _ERROR and failure:
        raise OSError(-failure, os.strerror(-failure))

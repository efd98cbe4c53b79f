"""Token bucket queues on interfaces of the calling thread's namespace, by rtnetlink: a start waits for no process.

Source: linux/rtnetlink.h, linux/pkt_sched.h and the kernel's net/sched/sch_tbf.c.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from cuboid.lib.errors import UnsupportedError
from cuboid.net.bandwidth import Bucket

_NEWQDISC, _DELQDISC = 36, 37
_REQUEST_ACK, _CREATE_REPLACE = 0x005, 0x500
_ROOT = 0xFFFFFFFF
_KIND, _OPTIONS = 1, 2
_PARAMETERS, _RATE64, _BURST = 1, 4, 6
_ETHERNET = 1  # of the rate: then the kernel computes by the rate alone and asks for no table
_ERROR = 2  # NLMSG_ERROR, also with 0 for success


def limit(interface: str, bucket: Bucket) -> None:
    """Hold what the interface sends to the bucket; replaces an earlier one. UnsupportedError without sch_tbf."""
    rate = struct.pack("=BBHhHI", 0, _ETHERNET, 0, 0, 0, min(bucket.rate, _ROOT))
    parameters = rate + bytes(len(rate)) + struct.pack("=III", bucket.queue, 0, 0)
    options = (
        _attribute(_PARAMETERS, parameters)
        + _attribute(_RATE64, struct.pack("=Q", bucket.rate))
        + _attribute(_BURST, struct.pack("=I", bucket.burst))
    )
    attributes = _attribute(_KIND, b"tbf\0") + _attribute(_OPTIONS, options)
    try:
        _ask(_NEWQDISC, _CREATE_REPLACE, interface, attributes)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise UnsupportedError(
                "this kernel cannot limit a pod's bandwidth: it has no token bucket filter",
                hint="modprobe sch_tbf, or leave the bandwidth annotations out",
            ) from error
        raise


def unlimit(interface: str) -> None:
    """Take the bucket away. Idempotent."""
    try:
        _ask(_DELQDISC, 0, interface, b"")
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):  # the default queue cannot be removed
            raise


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _ask(kind: int, flags: int, interface: str, attributes: bytes) -> None:
    """One request for the root queue of an interface; OSError with the kernel's errno."""
    body = struct.pack("=BxxxiIII", 0, socket.if_nametoindex(interface), 0, _ROOT, 0) + attributes
    header = struct.pack("=IHHII", 16 + len(body), kind, _REQUEST_ACK | flags, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as netlink:
        netlink.sendto(header + body, (0, 0))
        reply = netlink.recv(65536)
    answer, failure = struct.unpack_from("=4xH10xi", reply)
    if answer == _ERROR and failure:
        raise OSError(-failure, f"{os.strerror(-failure)}: the queue of {interface}")

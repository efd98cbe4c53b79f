"""Token bucket queues on interfaces of the calling thread's namespace, by rtnetlink.

Source: linux/rtnetlink.h, linux/pkt_sched.h and the kernel's net/sched/sch_tbf.c.
"""

from __future__ import annotations

import errno
import socket
import struct

from cuboid.lib.errors import UnsupportedError
from cuboid.net import netlink
from cuboid.net.bandwidth import Bucket

_NEWQDISC, _DELQDISC = 36, 37
_ROOT = 0xFFFFFFFF
_KIND, _OPTIONS = 1, 2
_PARAMETERS, _RATE64, _BURST = 1, 4, 6
_ETHERNET = 1  # of the rate: then the kernel computes by the rate alone and asks for no table


def limit(interface: str, bucket: Bucket) -> None:
    """Hold what the interface sends to the bucket; replaces an earlier one. UnsupportedError without sch_tbf."""
    rate = struct.pack("=BBHhHI", 0, _ETHERNET, 0, 0, 0, min(bucket.rate, _ROOT))
    parameters = rate + bytes(len(rate)) + struct.pack("=III", bucket.queue, 0, 0)
    options = (
        netlink.attribute(_PARAMETERS, parameters)
        + netlink.attribute(_RATE64, struct.pack("=Q", bucket.rate))
        + netlink.attribute(_BURST, struct.pack("=I", bucket.burst))
    )
    attributes = netlink.text(_KIND, "tbf") + netlink.attribute(_OPTIONS, options)
    try:
        _ask(_NEWQDISC, netlink.CREATE_OR_REPLACE, interface, attributes)
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


def _ask(kind: int, flags: int, interface: str, attributes: bytes) -> None:
    """One request for the root queue of an interface; OSError with the kernel's errno."""
    body = struct.pack("=BxxxiIII", 0, socket.if_nametoindex(interface), 0, _ROOT, 0) + attributes
    netlink.ask(netlink.ROUTE, kind, body, netlink.ACKNOWLEDGE | flags)

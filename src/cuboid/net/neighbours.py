"""The host's knowledge of where a pod's address is, which a paused pod cannot renew. In the calling thread's namespace.

Without an answer the host's kernel forgets a neighbour after about a minute and refuses new connections to it; a
permanent entry has them wait. Source: linux/neighbour.h.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterable

from cuboid.net import netlink

_NEW, _DELETE = 28, 29
_DESTINATION, _ADDRESS = 1, 2
_REPLACE = 0x100
_STALE, _PERMANENT = 0x04, 0x80
_GONE = (errno.ENOENT, errno.ENODEV, errno.ENXIO)


def pin(bridge: str, addresses: Iterable[str], mac: str) -> None:
    """Until `unpin` or `forget` the addresses (CIDR) are known to be behind this MAC. OSError if the bridge is gone."""
    index = socket.if_nametoindex(bridge)
    for address in addresses:
        body = _entry(index, address, _PERMANENT) + netlink.attribute(_ADDRESS, _bytes(mac))
        netlink.ask(netlink.ROUTE, _NEW, body, netlink.CREATE_OR_REPLACE | netlink.ACKNOWLEDGE)


def unpin(bridge: str, addresses: Iterable[str], mac: str) -> None:
    """The kernel asks for them again before it relies on them. What is not known stays so. OSError."""
    if index := _index(bridge):
        for address in addresses:
            body = _entry(index, address, _STALE) + netlink.attribute(_ADDRESS, _bytes(mac))
            _try(_NEW, body, _REPLACE)


def forget(bridge: str, addresses: Iterable[str]) -> None:
    """Nothing is known of them: the next pod that has one has another MAC. Idempotent. OSError."""
    if index := _index(bridge):
        for address in addresses:
            _try(_DELETE, _entry(index, address, 0), 0)


def _index(bridge: str) -> int:
    """0 if it is gone, and all that was known with it. The kernel, asked about 0, complains of the question."""
    try:
        return socket.if_nametoindex(bridge)
    except OSError:
        return 0


def _try(kind: int, body: bytes, flags: int) -> None:
    try:
        netlink.ask(netlink.ROUTE, kind, body, flags | netlink.ACKNOWLEDGE)
    except OSError as error:
        if error.errno not in _GONE:
            raise


def _entry(index: int, address: str, state: int) -> bytes:
    """`struct ndmsg` and the destination."""
    ip = ipaddress.ip_interface(address).ip
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    return struct.pack("=BxxxiHBB", family, index, state, 0, 0) + netlink.attribute(_DESTINATION, ip.packed)


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))

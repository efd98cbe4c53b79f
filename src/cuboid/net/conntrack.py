"""Connections that the kernel tracks: those of UDP outlive what they led to, as long as somebody sends.

Source: linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from contextlib import suppress

from cuboid.net import netlink

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2
_ORIGINAL = 1  # the tuple of the first packet
_PROTOCOL, _NUMBER, _DESTINATION = 2, 1, 3


def forget_udp(ports: Collection[int]) -> None:
    """End the UDP connections to these ports in this thread's namespace: their next packets meet the rules anew."""
    for family in (socket.AF_INET, socket.AF_INET6) if ports else ():
        header = netlink.filter_header(family)
        for entry in list(netlink.dump(netlink.NETFILTER, _GET, header)):
            original = netlink.attributes(entry[len(header) :]).get(_ORIGINAL, b"")
            if _udp_port(original) in ports:
                with suppress(FileNotFoundError):  # it has ended by itself
                    body = header + netlink.nested(_ORIGINAL, original)
                    netlink.ask(netlink.NETFILTER, _DELETE, body, netlink.ACKNOWLEDGE)


def _udp_port(original: bytes) -> int:
    """Where the first packet went; 0 if it was not of UDP."""
    protocol = netlink.attributes(netlink.attributes(original).get(_PROTOCOL, b""))
    if protocol.get(_NUMBER) != bytes([socket.IPPROTO_UDP]):
        return 0
    return int.from_bytes(protocol.get(_DESTINATION, b""), "big")

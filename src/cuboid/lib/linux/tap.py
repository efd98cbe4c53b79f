"""Tap devices and the few interface questions that need no netlink. All of it acts in the calling thread's namespace.

Source of the requests: linux/if_tun.h and linux/sockios.h.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path

_TUNSETIFF = 0x400454CA
_TUNSETPERSIST = 0x400454CB
_TUNSETOWNER = 0x400454CC
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_UP = 0x1
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCGIFMTU = 0x8921
_SIOCSIFMTU = 0x8922
_SIOCGIFHWADDR = 0x8927


def _name(interface: str) -> bytes:
    encoded = interface.encode("ascii")
    if not 0 < len(encoded) < 16:
        raise ValueError(f"{interface!r} is not an interface name")
    return encoded


def open_tap(name: str) -> int:
    """A descriptor of the tap `name`, made if missing: one queue, a virtio-net header before each frame, no other."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        bind_tap(descriptor, name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def bind_tap(descriptor: int, name: str) -> None:
    """Make a descriptor of /dev/net/tun one of the tap `name`. PermissionError for a user who does not own it."""
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", _name(name), flags))


def create_tap(name: str, *, owner: int, mtu: int) -> None:
    """A tap that stays when nobody has it open, is up, and that the uid `owner` may open. Idempotent."""
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")  # no router solicitation of the host's
    descriptor = open_tap(name)
    try:
        fcntl.ioctl(descriptor, _TUNSETOWNER, owner)
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)
    finally:
        os.close(descriptor)
    _ask(name, _SIOCSIFMTU, struct.pack("i", mtu))
    set_up(name)


def set_up(name: str) -> None:
    (flags,) = struct.unpack_from("H", _ask(name, _SIOCGIFFLAGS))
    _ask(name, _SIOCSIFFLAGS, struct.pack("H", flags | _IFF_UP))


def mac_of(name: str) -> str:
    """`aa:bb:cc:dd:ee:ff`; OSError if there is no such interface."""
    return _ask(name, _SIOCGIFHWADDR)[2:8].hex(":")


def mtu_of(name: str) -> int:
    (mtu,) = struct.unpack_from("i", _ask(name, _SIOCGIFMTU))
    return int(mtu)


def present(name: str) -> bool:
    """Whether this namespace has an interface of that name."""
    return any(interface == name for _, interface in socket.if_nameindex())


def _ask(name: str, request: int, argument: bytes = b"") -> bytes:
    """One interface request; returns the 24 bytes after the name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
        reply: bytes = fcntl.ioctl(control, request, struct.pack("16s24s", _name(name), argument))
    return reply[16:]

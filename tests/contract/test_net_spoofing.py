"""What a guest that writes its own frames gets past its tap: nothing in another's name."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cuboid.net import wire
from cuboid.net.base import Attachment
from tests.harness.network import Guest, HostNet, guest_of, host_net, missing

pytestmark = [pytest.mark.net, pytest.mark.skipif(bool(missing()), reason=missing())]

ALL_NODES, EVERYBODY = bytes.fromhex("333300000001"), b"\xff" * 6
ARP, IPV4, IPV6, VLAN = 0x0806, 0x0800, 0x86DD, 0x8100
ADVERTISEMENT, SOLICITATION, ROUTER = 136, 135, 134
LAST = b"the last frame"


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[HostNet]:
    async with host_net(tmp_path) as made:
        yield made


def address(text: str) -> bytes:
    return ipaddress.ip_address(text.partition("/")[0]).packed


def frame(mac: str, kind: int, payload: bytes, *, to: bytes = EVERYBODY) -> bytes:
    return to + bytes.fromhex(mac.replace(":", "")) + struct.pack("!H", kind) + payload


def discovery(mac: str, source: str, kind: int, target: str, mark: bytes, *, hop_by_hop: bool = False) -> bytes:
    """A message of neighbour discovery to all nodes. Its checksum is wrong: no rule of ours looks at it."""
    message = struct.pack("!BBHI", kind, 0, 0, 0x2000_0000) + address(target) + mark
    first, before = (0, bytes([58, 0, 1, 4, 0, 0, 0, 0])) if hop_by_hop else (58, b"")
    header = struct.pack("!IHBB", 6 << 28, len(before + message), first, 255) + address(source) + address("ff02::1")
    return frame(mac, IPV6, header + before + message, to=ALL_NODES)


def arp_answer(mac: str, ip: str, mark: bytes) -> bytes:
    own = bytes.fromhex(mac.replace(":", ""))
    return frame(mac, ARP, struct.pack("!HHBBH", 1, 0x0800, 6, 4, 2) + own + address(ip) + own + address(ip) + mark)


def datagram(source: str, mark: bytes) -> bytes:
    """UDP to everybody. A bridge that shows its packets to iptables drops those with a wrong checksum."""
    header = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(mark), 0, 0, 64, 17, 0) + address(source) + EVERYBODY[:4]
    total = sum(struct.unpack("!10H", header))
    checksum = 0xFFFF ^ ((total & 0xFFFF) + (total >> 16))
    return header[:10] + struct.pack("!H", checksum) + header[12:] + struct.pack("!HHHH", 7, 7, 8 + len(mark), 0) + mark


def packets(interface: str) -> Callable[[], socket.socket]:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # every protocol
        made.bind((interface, 0))
        made.settimeout(10)
        return made

    return make


async def seen_by(other: Guest, sender: Guest, frames: list[bytes]) -> bytes:
    """All that arrives at `other` until the last frame does, which is an honest one."""
    with await other.socket(packets("eth0")) as ears, await sender.socket(packets("eth0")) as mouth:
        for each in frames:
            mouth.send(each)
        heard = b""
        while LAST not in heard:
            heard += ears.recv(2048)
    return heard


def lies(own: Attachment, victim: Attachment) -> dict[bytes, bytes]:
    mac, local = own.mac, wire.link_local(own.mac)
    mine4, mine6 = own.addresses
    its4, its6 = victim.addresses
    its_local = wire.link_local(victim.mac)
    return {
        b"<arp>": arp_answer(mac, its4, b"<arp>"),
        b"<arp gateway>": arp_answer(mac, "10.77.0.1", b"<arp gateway>"),
        b"<source>": frame(mac, IPV4, datagram(its4, b"<source>")),
        b"<mac>": frame(victim.mac, IPV4, datagram(mine4, b"<mac>")),
        b"<vlan>": frame(mac, VLAN, struct.pack("!HH", 5, IPV4) + datagram(mine4, b"<vlan>")),
        b"<other protocol>": frame(mac, 0x88CC, b"<other protocol>" + bytes(60)),
        b"<advert>": discovery(mac, mine6, ADVERTISEMENT, its6, b"<advert>"),
        b"<advert local>": discovery(mac, local, ADVERTISEMENT, its_local, b"<advert local>"),
        b"<advert gateway>": discovery(mac, local, ADVERTISEMENT, "fd77::1", b"<advert gateway>"),
        b"<advert behind>": discovery(mac, mine6, ADVERTISEMENT, its6, b"<advert behind>", hop_by_hop=True),
        b"<advert source>": discovery(mac, its_local, ADVERTISEMENT, mine6, b"<advert source>"),
        b"<dad>": discovery(mac, "::", SOLICITATION, its6, b"<dad>"),
        b"<router>": discovery(mac, local, ROUTER, "::", b"<router>"),
    }


def truths(own: Attachment) -> dict[bytes, bytes]:
    mac, local = own.mac, wire.link_local(own.mac)
    mine4, mine6 = own.addresses
    return {
        b"<own arp>": arp_answer(mac, mine4, b"<own arp>"),
        b"<own advert>": discovery(mac, local, ADVERTISEMENT, mine6, b"<own advert>"),
        b"<own dad>": discovery(mac, "::", SOLICITATION, mine6, b"<own dad>"),
        b"<question>": discovery(mac, mine6, SOLICITATION, "fd77::77", b"<question>"),
        LAST: frame(mac, IPV4, datagram(mine4, LAST)),
    }


async def test_a_guest_speaks_for_its_own_addresses_only(host: HostNet, tmp_path: Path) -> None:
    network = host.network(subnet_v6="fd77::/64")
    a = await network.attach("pod-a", namespace="default", name="a")
    b = await network.attach("pod-b", namespace="default", name="b")
    wrong, right = lies(a, b), truths(a)
    async with AsyncExitStack() as guests:
        sender, other = [await guests.enter_async_context(guest_of(each, tmp_path)) for each in (a, b)]
        heard = await seen_by(other, sender, [*wrong.values(), *right.values()])
    assert [mark for mark in right if mark not in heard] == []
    assert [mark for mark in wrong if mark in heard] == []

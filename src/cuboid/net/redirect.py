"""Published ports of the built-in network: elements of nftables maps that rules for all pods look packets up in.

Publishing a port is one netlink message, whatever number of ports there is. The rules do what the CNI plugin portmap
does: from outside, from the host itself also by loopback, and from pods to published ports, their own included.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cuboid.lib.errors import UnavailableError
from cuboid.net import conntrack, netlink
from cuboid.net.base import PortMapping
from cuboid.net.ports import is_wildcard

_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}
# linux/netfilter/nf_tables.h
_SUBSYSTEM, _INET = 10, 1
_NEW, _GET, _DELETE = (_SUBSYSTEM << 8 | message for message in (12, 13, 14))
_TABLE, _SET, _ELEMENTS = 1, 2, 3
_ELEMENT, _KEY, _DATA, _NOTES, _VALUE = 1, 1, 2, 6, 1
_COMMENT = 0  # the kind of note that `nft` shows


def table_name(bridge: str) -> str:
    return f"cuboid-{bridge}-ports"


def ruleset(bridge: str, subnets: Sequence[str]) -> str:
    """The table's rules; what its maps hold stays. `bridge` and `subnets` are checked by `net.guard`."""
    name = table_name(bridge)
    hairpin = "\n    ".join(map(_hairpin_rule, subnets))
    return f"""table inet {name} {{
  map any4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  map any6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
  map one4 {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  map one6 {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
  chain prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}
  chain output {{ type nat hook output priority -100; policy accept; }}
  chain postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
  chain published {{ }}
}}
flush table inet {name}
table inet {name} {{
  chain prerouting {{
    fib daddr type local meta l4proto {{ tcp, udp, sctp }} goto published
  }}
  chain output {{
    fib daddr type local meta l4proto {{ tcp, udp, sctp }} goto published
  }}
  chain published {{
    meta l4proto {{ tcp, udp, sctp }} dnat ip to ip daddr . meta l4proto . th dport map @one4
    meta l4proto {{ tcp, udp, sctp }} dnat ip to meta l4proto . th dport map @any4
    meta l4proto {{ tcp, udp, sctp }} dnat ip6 to ip6 daddr . meta l4proto . th dport map @one6
    meta l4proto {{ tcp, udp, sctp }} dnat ip6 to meta l4proto . th dport map @any6
  }}
  chain postrouting {{
    oifname "{bridge}" ct status dnat ip saddr 127.0.0.0/8 masquerade
    {hairpin}
  }}
}}
"""


def _hairpin_rule(subnet: str) -> str:
    """A pod answers a pod directly, so the one that asked the host for a port must see the host answer."""
    word = "ip" if ipaddress.ip_network(subnet).version == 4 else "ip6"
    return f"{word} saddr {subnet} {word} daddr {subnet} ct status dnat masquerade"


@dataclass(frozen=True)
class Element:
    map: str
    key: bytes
    data: bytes

    def named(self, bridge: str) -> bytes:
        """The message that asks for it."""
        return self._message(bridge, netlink.nested(_KEY, netlink.attribute(_VALUE, self.key)))

    def whole(self, bridge: str, pod_uid: str) -> bytes:
        """The message that makes it."""
        key, data = (netlink.attribute(_VALUE, value) for value in (self.key, self.data))
        comment = pod_uid.encode() + b"\0"
        notes = netlink.attribute(_NOTES, bytes([_COMMENT, len(comment)]) + comment)
        return self._message(bridge, netlink.nested(_KEY, key) + netlink.nested(_DATA, data) + notes)

    def _message(self, bridge: str, element: bytes) -> bytes:
        return (
            netlink.filter_header(_INET)
            + netlink.text(_TABLE, table_name(bridge))
            + netlink.text(_SET, self.map)
            + netlink.nested(_ELEMENTS, netlink.nested(_ELEMENT, element))
        )


def elements(ports: Sequence[PortMapping], addresses: Sequence[str]) -> Iterator[Element]:
    """What publishes these ports of a pod with these addresses (CIDR). Each part of a key fills 4 bytes."""
    for port in ports:
        key = struct.pack("!B3xH2x", _PROTOCOLS[port.protocol], port.host_port)
        for pod in (ipaddress.ip_interface(address).ip for address in addresses):
            data = pod.packed + struct.pack("!H2x", port.container_port)
            if is_wildcard(port.host_ip):
                yield Element(f"any{pod.version}", key, data)
            elif (host := ipaddress.ip_address(port.host_ip)).version == pod.version:
                yield Element(f"one{pod.version}", host.packed + key, data)


def open_loopback(bridge: str) -> None:
    """Let connections be redirected to and from 127.0.0.1; `net.guard` keeps pods from asking for it themselves."""
    Path("/proc/sys/net/ipv4/conf", bridge, "route_localnet").write_text("1")


def publish(bridge: str, pod_uid: str, ports: Sequence[PortMapping], addresses: Sequence[str]) -> None:
    """In the host's namespace. The caller has claimed the ports, so what the maps still say of them is void.

    The elements name the pod in a comment, for whoever looks at the rules.
    """
    open_loopback(bridge)
    for element in elements(ports, addresses):
        body = element.whole(bridge, pod_uid)
        try:
            netlink.transact(_SUBSYSTEM, _NEW, body, netlink.CREATE)
        except FileExistsError:
            netlink.transact(_SUBSYSTEM, _DELETE, element.named(bridge))
            netlink.transact(_SUBSYSTEM, _NEW, body, netlink.CREATE)
    _forget(ports)


def withdraw(bridge: str, ports: Sequence[PortMapping], addresses: Sequence[str]) -> None:
    """The inverse, of what leads to these addresses and not of a port that another pod has. Idempotent."""
    _forget([port for port in ports if _withdrawn(bridge, port, addresses)])


def _withdrawn(bridge: str, port: PortMapping, addresses: Sequence[str]) -> bool:
    """Whether the port leads nowhere now; False if it leads to another pod."""
    free = True
    for element in elements((port,), addresses):
        held = _held(bridge, element)
        if held == element.data:
            with suppress(FileNotFoundError):
                netlink.transact(_SUBSYSTEM, _DELETE, element.named(bridge))
        elif held is not None:
            free = False
    return free


def require(bridge: str, ports: Sequence[PortMapping], addresses: Sequence[str]) -> None:
    """UnavailableError if one of the ports does not lead to the pod."""
    for port in ports:
        if not all(_held(bridge, element) == element.data for element in elements((port,), addresses)):
            raise UnavailableError(f"the rule that publishes port {port.host_port}/{port.protocol} is gone")


def _forget(ports: Sequence[PortMapping]) -> None:
    conntrack.forget_udp({port.host_port for port in ports if port.protocol == "udp"})


def _held(bridge: str, element: Element) -> bytes | None:
    """The data that the map has for the element's key; None without any."""
    try:
        answer = netlink.ask(netlink.NETFILTER, _GET, element.named(bridge))
    except FileNotFoundError:
        return None
    value = answer[4:]
    for kind in (_ELEMENTS, _ELEMENT, _DATA, _VALUE):
        value = netlink.attributes(value).get(kind, b"")
    return value

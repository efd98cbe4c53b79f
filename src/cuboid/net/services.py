"""Addresses of services: connections to them are led to one of their targets, by nftables of the host.

One table for all. A map leads from address, protocol and port to a chain per service port, which picks a target: at
random, or always the same for a client. A change rewrites the chains of the services that changed, in one transaction,
and touches no connection that exists. What goes to the range of service addresses and finds no target is rejected, so
that who asks knows at once.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cuboid.lib import proc
from cuboid.lib.errors import InvalidError
from cuboid.lib.linux import netns
from cuboid.net import conntrack, guard
from cuboid.net.cni.config import configured
from cuboid.net.settings import NetSettings

_DEADLINE = 10.0  # s, one transaction
_PROTOCOLS = ("tcp", "udp", "sctp")
Target = tuple[str, int]
"""IPv4 address and port."""


@dataclass(frozen=True, order=True)
class Front:
    """Where connections go to. `address` "" is every address of the host: a node port."""

    address: str
    protocol: str
    port: int


@dataclass(frozen=True)
class Forward:
    """`sticky` leads a client to the same target for as long as the targets stay the same."""

    front: Front
    targets: tuple[Target, ...]
    sticky: bool = False


def table_name(bridge: str) -> str:
    return f"cuboid-{bridge}-services"


def checked(forward: Forward) -> Forward:
    """InvalidError for what can not be a rule: what comes from the API is not trusted to be one."""
    front = forward.front
    try:
        for address, port in ((front.address or "0.0.0.0", front.port), *forward.targets):
            ipaddress.IPv4Address(address)
            if not 0 < port < 65536:
                raise ValueError(f"{port} is no port")
        if front.protocol not in _PROTOCOLS:
            raise ValueError(f"{front.protocol!r} is no protocol of a service")
    except ValueError as error:
        raise InvalidError(f"a service can not be reached: {error}") from error
    return forward


def base(bridge: str, subnets: Sequence[str], service_subnet: str, *, builtin: bool) -> str:
    """The table without a service. On the built-in network only its own pods are led: others' may have their own rules
    for the same addresses. Where pods of another network come in is not known."""
    pods = f'iifname "{bridge}" ' if builtin else ""
    name = table_name(bridge)
    hairpin = "\n    ".join(
        f"ip saddr {net} ip daddr {net} ct status dnat masquerade" for net in subnets if ":" not in net
    )
    return f"""table inet {name}
delete table inet {name}
table inet {name} {{
  map addresses {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
  map node_ports {{ type inet_proto . inet_service : verdict; }}
  chain here {{
    fib daddr type local meta l4proto . th dport vmap @node_ports
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat - 5; policy accept;
    {pods}meta l4proto {{ tcp, udp, sctp }} ip daddr . meta l4proto . th dport vmap @addresses
    meta l4proto {{ tcp, udp, sctp }} jump here
  }}
  chain output {{
    type nat hook output priority -105; policy accept;
    meta l4proto {{ tcp, udp, sctp }} ip daddr . meta l4proto . th dport vmap @addresses
    meta l4proto {{ tcp, udp, sctp }} jump here
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat - 5; policy accept;
    {hairpin}
    oifname "{bridge}" ct status dnat ip saddr 127.0.0.0/8 masquerade
  }}
  chain nobody {{
    ip daddr {service_subnet} meta l4proto tcp reject with tcp reset
    ip daddr {service_subnet} reject with icmp type port-unreachable
  }}
  chain forward {{
    type filter hook forward priority filter - 20; policy accept;
    ct state new goto nobody
  }}
  chain from_host {{
    type filter hook output priority filter - 20; policy accept;
    ct state new goto nobody
  }}
}}
"""


def chain_of(front: Front) -> str:
    text = f"{front.address}/{front.protocol}/{front.port}"
    return f"to-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def _key(front: Front) -> tuple[str, str]:
    """Map and key."""
    if front.address:
        return "addresses", f"{front.address} . {front.protocol} . {front.port}"
    return "node_ports", f"{front.protocol} . {front.port}"


def _rule(forward: Forward) -> str:
    protocol = forward.front.protocol
    if len(forward.targets) == 1:
        address, port = forward.targets[0]
        return f"meta l4proto {protocol} dnat ip to {address}:{port}"
    pick = "jhash ip saddr" if forward.sticky else "numgen random"
    choices = ", ".join(f"{number} : {address} . {port}" for number, (address, port) in enumerate(forward.targets))
    return f"meta l4proto {protocol} dnat ip to {pick} mod {len(forward.targets)} map {{ {choices} }}"


def changes(bridge: str, old: Mapping[Front, Forward], new: Mapping[Front, Forward]) -> str:
    """The transaction that leads from one state to the other, "" for none. Forwards without targets are left out."""
    table = f"inet {table_name(bridge)}"
    lines: list[str] = []
    for front in sorted(old.keys() - new.keys()):
        name, key = _key(front)
        lines.append(f"delete element {table} {name} {{ {key} }}")
        lines.append(f"flush chain {table} {chain_of(front)}")
        lines.append(f"delete chain {table} {chain_of(front)}")
    for front in sorted(new):
        forward = new[front]
        if old.get(front) == forward:
            continue
        name, key = _key(front)
        chain = chain_of(front)
        lines.append(f"add chain {table} {chain}")
        lines.append(f"flush chain {table} {chain}")
        lines.append(f"add rule {table} {chain} {_rule(forward)}")
        if front not in old:
            lines.append(f"add element {table} {name} {{ {key} : goto {chain} }}")
    return "".join(f"{line}\n" for line in lines)


class ServiceRules:
    """The table on this host (`host_netns` for tests). One caller at a time."""

    def __init__(self, settings: NetSettings, host_netns: Path | None = None) -> None:
        self._settings = settings
        self._host = host_netns
        self._known: dict[Front, Forward] | None = None
        self._routed = False

    async def apply(self, forwards: Iterable[Forward]) -> None:
        """Make the host's rules these. What failed, or what somebody removed, the next call makes anew."""
        wanted = {item.front: checked(item) for item in forwards if item.targets}
        known = self._known if await self._present() else None
        bridge = self._settings.bridge
        script = changes(bridge, known or {}, wanted)
        if known is None:
            builtin = configured(self._settings) is None
            subnets = guard.subnets(self._settings)
            script = base(bridge, subnets, self._settings.service_subnet, builtin=builtin) + script
        if script:
            self._known = None
            await self._run(script)
            await self._forget_udp(known or {}, wanted)
        self._known = wanted
        if not self._routed:
            self._routed = await self._route()

    async def _present(self) -> bool:
        if self._known is None:
            return False
        name = table_name(self._settings.bridge)
        return await netns.run_in(self._host, lambda: guard.has_table(name))

    async def _forget_udp(self, old: Mapping[Front, Forward], new: Mapping[Front, Forward]) -> None:
        """The kernel would go on sending to where a flow went before."""
        ports = {front.port for front in {*old, *new} if front.protocol == "udp" and old.get(front) != new.get(front)}
        if ports:
            await netns.run_in(self._host, lambda: conntrack.forget_udp(ports))

    async def _route(self) -> bool:
        """Without a way to everywhere, a host makes no packet to a service that could be led to a pod: so the range is
        routed to the bridge, once the first pod's attachment has made that."""
        arguments = ["route", "replace", self._settings.service_subnet, "dev", self._settings.bridge]
        command = [*self._prefix(), proc.find("ip", package="iproute2"), *arguments]
        return (await proc.run(command, timeout=_DEADLINE, check=False)).returncode == 0

    def _prefix(self) -> list[str]:
        return ["nsenter", f"--net={self._host}", "--"] if self._host else []

    async def remove(self) -> None:
        """Idempotent."""
        name = table_name(self._settings.bridge)
        await self._run(f"table inet {name}\ndelete table inet {name}\n")
        self._known = None

    async def _run(self, script: str) -> None:
        command = [*self._prefix(), proc.find("nft", package="nftables"), "-f", "-"]
        await proc.run(command, timeout=_DEADLINE, stdin=script.encode())

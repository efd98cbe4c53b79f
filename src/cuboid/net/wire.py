"""The pod's own namespace: a tap joined to the CNI interface, frame by frame, with the guest held to its addresses.

Both directions are one nftables `netdev` table whose policy is to drop. What `fwd` sends on never reaches the IP stack
of the host's kernel in that namespace, so it neither answers ARP for the pod nor routes what a guest made up. See
docs/design/0005-network.md for why not `tc`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cuboid.lib import proc
from cuboid.lib.errors import UnavailableError
from cuboid.lib.linux import netns, tap
from cuboid.net import shaping
from cuboid.net.bandwidth import bucket
from cuboid.net.base import Bandwidth

TAP = "tap0"
INTERFACE = "eth0"
TABLE = "cuboid"
_QUIET = {"conf/all/arp_ignore": "8", "ip_forward": "0"}
_DEADLINE = 5.0  # s, one nft call


@dataclass(frozen=True)
class Link:
    """What the guest takes over from the CNI interface."""

    mac: str
    mtu: int


async def join(path: Path, addresses: Sequence[str], *, owner: int, quiet: bool) -> Link:
    """Make the tap in the namespace at `path`, for the uid `owner`, and join it to the CNI interface. Idempotent.

    `quiet`: the host's kernel neither answers for the pod's address there nor routes. The rules see to that already;
    a network of third-party plugins chooses its own.
    """

    def make() -> Link:
        for name, value in _QUIET.items() if quiet else ():
            Path("/proc/sys/net/ipv4", name).write_text(value)
        link = Link(tap.mac_of(INTERFACE), tap.mtu_of(INTERFACE))
        tap.create_tap(TAP, owner=owner, mtu=link.mtu)
        return link

    try:
        link = await netns.run_in(path, make)
    except OSError as error:
        raise UnavailableError(
            f"cannot make a tap in {path}: {error.strerror}", hint="is /dev/net/tun there?"
        ) from error
    await _nft(path, ruleset(link.mac, addresses))
    return link


async def require_joined(path: Path) -> None:
    """UnavailableError if the namespace, the tap or the rules are gone."""
    if not await has_tap(path):
        raise UnavailableError(f"the tap of {path} is gone")
    await _nft(path, f"list table netdev {TABLE}\n")


async def has_tap(path: Path) -> bool:
    """Whether the namespace and the tap are there: the part of `require_joined` that starts no process."""
    try:
        return netns.exists(path) and await netns.run_in(path, lambda: tap.present(TAP))
    except OSError:
        return False


async def limit(path: Path, limits: Bandwidth) -> None:
    """Hold a pod to its bandwidth, or set it free: to the guest it leaves by the tap, from it by the CNI interface."""

    def shape() -> None:
        for interface, bits in ((TAP, limits.ingress), (INTERFACE, limits.egress)):
            if bits:
                shaping.limit(interface, bucket(bits))
            else:
                shaping.unlimit(interface)

    await netns.run_in(path, shape)


async def _nft(path: Path, script: str) -> None:
    command = ["nsenter", f"--net={path}", "--", proc.find("nft", package="nftables"), "-f", "-"]
    await proc.run(command, timeout=_DEADLINE, stdin=script.encode())


def ruleset(mac: str, addresses: Sequence[str]) -> str:
    """The table as one transaction. A guest sends with its own MAC and addresses only, IPv6 as far as it has any.

    A frame with a VLAN tag is dropped first: the kernel has taken the tag off when the other rules look at it.
    """
    ips = [ipaddress.ip_interface(address).ip for address in addresses]
    v4 = [str(ip) for ip in ips if ip.version == 4]
    v6 = [str(ip) for ip in ips if ip.version == 6]
    rules = ["ether type { 8021q, 8021ad } drop", f"ether saddr != {mac} drop"]
    if v4:
        own = ", ".join(v4)
        rules += [
            f'ip saddr {{ {own} }} fwd to "{INTERFACE}"',
            f'arp saddr ether {mac} arp saddr ip {{ {own} }} fwd to "{INTERFACE}"',
        ]
    if v6:
        rules += _v6_rules([*v6, link_local(mac)])
    body = "\n    ".join(rules)
    return f"""table netdev {TABLE}
delete table netdev {TABLE}
table netdev {TABLE} {{
  chain from_guest {{
    type filter hook ingress device "{TAP}" priority 0; policy drop;
    {body}
  }}
  chain to_guest {{
    type filter hook ingress device "{INTERFACE}" priority 0; policy drop;
    fwd to "{TAP}"
  }}
}}
"""


def _v6_rules(own: Sequence[str]) -> list[str]:
    """Neighbour discovery is IPv6's ARP: a pod speaks of its own addresses, and is nobody's router.

    The target of a question or an answer is bytes 8 to 23 of the message (RFC 4861, 4.3 and 4.4); nft has no word for
    it before 1.0.9. A solicitation from `::` is duplicate address detection: for another's address, it takes it away.
    """
    listed = ", ".join(own)
    targets = ", ".join(f"{int(ipaddress.IPv6Address(address)):#x}" for address in own)
    return [
        "icmpv6 type { nd-router-advert, nd-redirect } drop",
        f"icmpv6 type nd-neighbor-advert @th,64,128 != {{ {targets} }} drop",
        f'ip6 saddr {{ {listed} }} fwd to "{INTERFACE}"',
        f'ip6 saddr :: icmpv6 type nd-neighbor-solicit @th,64,128 {{ {targets} }} fwd to "{INTERFACE}"',
    ]


def link_local(mac: str) -> str:
    """The link-local address that a kernel makes of a MAC (RFC 4291, appendix A), the only one a guest may use."""
    parts = bytes.fromhex(mac.replace(":", ""))
    middle = bytes([parts[0] ^ 2, *parts[1:3], 0xFF, 0xFE, *parts[3:]])
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + middle))

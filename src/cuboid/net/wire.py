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

TAP = "tap0"
INTERFACE = "eth0"
TABLE = "cuboid"
_DEADLINE = 5.0  # s, one nft call


@dataclass(frozen=True)
class Link:
    """What the guest takes over from the CNI interface."""

    mac: str
    mtu: int


async def join(path: Path, addresses: Sequence[str], *, owner: int) -> Link:
    """Make the tap in the namespace at `path`, for the uid `owner`, and join it to the CNI interface. Idempotent."""

    def make() -> Link:
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
    if not netns.exists(path) or not await netns.run_in(path, lambda: tap.present(TAP)):
        raise UnavailableError(f"the tap of {path} is gone")
    await _nft(path, f"list table netdev {TABLE}\n")


async def _nft(path: Path, script: str) -> None:
    command = ["nsenter", f"--net={path}", "--", proc.find("nft", package="nftables"), "-f", "-"]
    await proc.run(command, timeout=_DEADLINE, stdin=script.encode())


def ruleset(mac: str, addresses: Sequence[str]) -> str:
    """The table as one transaction. A guest sends with its own MAC and addresses only, IPv6 as far as it has any."""
    ips = [ipaddress.ip_interface(address).ip for address in addresses]
    v4 = [str(ip) for ip in ips if ip.version == 4]
    v6 = [str(ip) for ip in ips if ip.version == 6]
    rules = [f"ether saddr != {mac} drop"]
    if v4:
        own = ", ".join(v4)
        rules += [
            f'ip saddr {{ {own} }} fwd to "{INTERFACE}"',
            f'arp saddr ether {mac} arp saddr ip {{ {own} }} fwd to "{INTERFACE}"',
        ]
    if v6:
        own = ", ".join([*v6, "fe80::/10"])
        rules += [
            "icmpv6 type { nd-router-advert, nd-redirect } drop",  # a pod is nobody's router
            f'ip6 saddr {{ {own} }} fwd to "{INTERFACE}"',
            f'ip6 saddr :: icmpv6 type nd-neighbor-solicit fwd to "{INTERFACE}"',  # duplicate address detection
        ]
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

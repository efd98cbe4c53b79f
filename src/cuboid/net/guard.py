"""What pods of the built-in network may reach of the host itself. One nftables table of our own; no rule of another's
and no policy of the host's is changed: what the host drops stays dropped, what this drops is dropped as well."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from cuboid.lib import proc
from cuboid.lib.errors import InvalidError
from cuboid.net.settings import NetSettings

_DEADLINE = 5.0  # s, one nft call
_PORT = re.compile(r"(tcp|udp)/(\d{1,5})")


def table_name(bridge: str) -> str:
    return f"cuboid-{bridge}"


def ruleset(settings: NetSettings, nameservers: Sequence[str]) -> str:
    """The table as one transaction. InvalidError for a setting that makes no sense."""
    bridge = settings.bridge
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,15}", bridge):
        raise InvalidError(f"[net] bridge: {bridge!r} is not an interface name")
    allowed = [*map(_port_rule, settings.host_ports), *_dns_rules(nameservers)]
    inbound = "\n    ".join(allowed)
    blocked = "\n    ".join(_blocked_rule(bridge, network) for network in settings.blocked)
    name = table_name(bridge)
    return f"""table inet {name}
delete table inet {name}
table inet {name} {{
  chain prerouting {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
  }}
  chain input {{
    type filter hook input priority filter - 10; policy accept;
    iifname "{bridge}" goto from_pods
  }}
  chain from_pods {{
    ct state established,related accept
    icmp type echo-request accept
    icmpv6 type {{ echo-request, nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit }} accept
    {inbound}
    reject with icmpx type admin-prohibited
  }}
  chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    {blocked}
  }}
}}
"""


def _port_rule(text: str) -> str:
    match = _PORT.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise InvalidError(f"[net] host_ports: {text!r} is not of the form tcp/6443")
    return f"{match[1]} dport {match[2]} accept"


def _dns_rules(nameservers: Sequence[str]) -> list[str]:
    """The pods' resolver may be the host itself, on an address that is not loopback."""
    words = [(("ip6" if ":" in address else "ip"), address) for address in nameservers]
    return [f"{word} daddr {ip} {kind} dport 53 accept" for word, ip in words for kind in ("udp", "tcp")]


def _blocked_rule(bridge: str, network: str) -> str:
    try:
        parsed = ipaddress.ip_network(network)
    except ValueError as error:
        raise InvalidError(f"[net] blocked: {error}") from error
    word = "ip" if parsed.version == 4 else "ip6"
    return f'iifname "{bridge}" {word} daddr {parsed} ct state new reject with icmpx type admin-prohibited'


async def install(settings: NetSettings, nameservers: Sequence[str], host_netns: Path | None) -> None:
    """Put the table in place, whole, in one transaction. Idempotent."""
    await _nft(ruleset(settings, nameservers), host_netns)


async def remove(settings: NetSettings, host_netns: Path | None) -> None:
    """Idempotent."""
    name = table_name(settings.bridge)
    await _nft(f"table inet {name}\ndelete table inet {name}\n", host_netns)


async def _nft(script: str, host_netns: Path | None) -> None:
    prefix = ["nsenter", f"--net={host_netns}", "--"] if host_netns else []
    command = [*prefix, proc.find("nft", package="nftables"), "-f", "-"]
    await proc.run(command, timeout=_DEADLINE, stdin=script.encode())

"""What pods of the built-in network may reach of the host, and the rules by which all of them reach the outside.

One nftables table and one iptables chain of our own, for the bridge and its subnets and not for single pods: a pod's
start and end touch no rule. No rule of another's and no policy of the host's is changed. The chain is needed where
FORWARD drops by default (Docker leaves it so): an nftables table cannot accept what iptables drops.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from cuboid.lib import proc
from cuboid.lib.errors import InvalidError
from cuboid.lib.linux import netns
from cuboid.net import netlink, redirect
from cuboid.net.settings import NetSettings

_PACKAGES = {"nft": "nftables", "ip": "iproute2"}
_DEADLINE = 5.0  # s, one call of nft or iptables
_GET_TABLE, _TABLE_NAME, _INET = 10 << 8 | 1, 1, 1
_PORT = re.compile(r"(tcp|udp)/(\d{1,5})")


def table_name(bridge: str) -> str:
    return f"cuboid-{bridge}"


def ruleset(settings: NetSettings, nameservers: Sequence[str], *, outward: bool) -> str:
    """The table as one transaction; `outward`: pods are masqueraded. InvalidError for a setting that makes no sense."""
    bridge = settings.bridge
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,15}", bridge):
        raise InvalidError(f"[net] bridge: {bridge!r} is not an interface name")
    allowed = [*map(_port_rule, settings.host_ports), *_dns_rules(nameservers)]
    inbound = "\n    ".join(allowed)
    blocked = "\n    ".join(_blocked_rule(bridge, network) for network in settings.blocked)
    masked = "\n    ".join(_masquerade_rules(settings)) if outward else ""
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
    ip daddr 127.0.0.0/8 ct status dnat accept comment "a service of the host, see net.services"
    {inbound}
    reject with icmpx type admin-prohibited
  }}
  chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    {blocked}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {masked}
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


def subnets(settings: NetSettings) -> list[str]:
    return [str(ipaddress.ip_network(subnet)) for subnet in (settings.subnet, settings.subnet_v6) if subnet]


def _masquerade_rules(settings: NetSettings) -> list[str]:
    """To each other and to groups pods speak in their own name, to everybody else in the host's."""
    rules = []
    for subnet in subnets(settings):
        own = ipaddress.ip_network(subnet)
        word, groups = ("ip", "224.0.0.0/4") if own.version == 4 else ("ip6", "ff00::/8")
        rules.append(f"{word} saddr {own} {word} daddr != {{ {own}, {groups} }} masquerade")
    return rules


async def install(settings: NetSettings, nameservers: Sequence[str], host_netns: Path | None, *, outward: bool) -> None:
    """Put the table and the chain in place, each whole in one transaction. Idempotent.

    `outward`: pods are masqueraded, what they send is forwarded and their ports are published, which plugins of a
    configured network do by pod.
    """
    script = ruleset(settings, nameservers, outward=outward)
    if outward:
        script += redirect.ruleset(settings.bridge, subnets(settings))
    await _run("nft -f -", host_netns, stdin=script)
    chain = chain_name(settings.bridge)
    for program in iptables(settings):
        await _run(
            f"{program}-restore --wait --noflush", host_netns, stdin=forward_rules(settings.bridge, outward=outward)
        )
        if not await _run(f"{program} --wait -C FORWARD -j {chain}", host_netns, check=False):
            await _run(f"{program} --wait -I FORWARD -j {chain}", host_netns)


async def present(bridge: str, host_netns: Path | None, *, outward: bool) -> bool:
    """Whether the tables are still there: somebody may have flushed all rules. Starts no process."""
    names = [table_name(bridge), *([redirect.table_name(bridge)] if outward else [])]
    return await netns.run_in(host_netns, lambda: all(map(has_table, names)))


def has_table(name: str) -> bool:
    """In this thread's namespace, by nfnetlink (linux/netfilter/nf_tables.h)."""
    try:
        netlink.ask(netlink.NETFILTER, _GET_TABLE, netlink.filter_header(_INET) + netlink.text(_TABLE_NAME, name))
    except FileNotFoundError:
        return False
    return True


def chain_name(bridge: str) -> str:
    return f"CUBOID-{bridge}"  # at most 22 of the 28 characters that a chain's name may have


def forward_rules(bridge: str, *, outward: bool) -> str:
    """Connections that a published port redirects to a pod, and with `outward` what pods begin and its answers.

    Declaring the chain empties it first.
    """
    chain = chain_name(bridge)
    states = "RELATED,ESTABLISHED,DNAT" if outward else "DNAT"
    rules = [f"-A {chain} -o {bridge} -m conntrack --ctstate {states} -j ACCEPT"]
    if outward:
        rules.append(f"-A {chain} -i {bridge} -j ACCEPT")
    return "\n".join(["*filter", f":{chain} - [0:0]", *rules, "COMMIT", ""])


def iptables(settings: NetSettings) -> tuple[str, ...]:
    """The programs for the families that pods have."""
    return ("iptables", "ip6tables") if settings.subnet_v6 else ("iptables",)


async def remove(settings: NetSettings, host_netns: Path | None) -> None:
    """The rules and the bridge, which the next attach makes again; not while another platform's pods are on it."""
    if await _in_use(settings.bridge, host_netns):
        return
    chain = chain_name(settings.bridge)
    for name in (table_name(settings.bridge), redirect.table_name(settings.bridge)):
        await _run("nft -f -", host_netns, stdin=f"table inet {name}\ndelete table inet {name}\n")
    for program in iptables(settings):
        for action in (f"-D FORWARD -j {chain}", f"-F {chain}", f"-X {chain}"):
            await _run(f"{program} --wait {action}", host_netns, check=False)
    await _run(f"ip link delete {settings.bridge}", host_netns, check=False)


async def _in_use(bridge: str, host_netns: Path | None) -> bool:
    prefix = ["nsenter", f"--net={host_netns}", "--"] if host_netns else []
    command = [*prefix, proc.find("ip", package="iproute2"), "-o", "link", "show", "master", bridge]
    return bool((await proc.run(command, timeout=_DEADLINE, check=False)).stdout.strip())


async def _run(command: str, host_netns: Path | None, *, stdin: str = "", check: bool = True) -> bool:
    """Whether it ended with 0."""
    program, *arguments = command.split()
    prefix = ["nsenter", f"--net={host_netns}", "--"] if host_netns else []
    found = proc.find(program, package=_PACKAGES.get(program, "iptables"))
    result = await proc.run([*prefix, found, *arguments], timeout=_DEADLINE, stdin=stdin.encode() or None, check=check)
    return result.returncode == 0

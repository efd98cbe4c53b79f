"""Which resolvers a pod uses: the CNI result's, else the settings', else the host's without its loopback ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from cuboid.lib.errors import InvalidError
from cuboid.net.cni.result import Dns

MAX_NAMESERVERS = 3  # resolv.conf(5), MAXNS
MAX_SEARCH = 32  # Kubernetes' limit
RESOLV_CONF = Path("/etc/resolv.conf")
RESOLVED_CONF = Path("/run/systemd/resolve/resolv.conf")  # the upstreams behind systemd-resolved's 127.0.0.53


def parse_resolv_conf(text: str) -> Dns:
    """resolv.conf(5): unknown words and unusable addresses are skipped; the last `search` or `domain` counts."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        word, *values = line.split("#")[0].split(";")[0].split() or [""]
        if word == "nameserver" and values and _address(values[0]):
            nameservers.append(values[0])
        elif word in ("search", "domain"):
            search = tuple(values)
        elif word == "options":
            options = tuple(values)
    return Dns(tuple(nameservers), search[:MAX_SEARCH], options)


def _address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def _reachable(nameservers: Iterable[str]) -> tuple[str, ...]:
    """Without those on loopback or with a zone: in a guest they are something else."""
    addresses = ((text, _address(text)) for text in nameservers)
    return tuple(text for text, ip in addresses if ip and not ip.is_loopback and "%" not in text)


def host_dns(explicit: tuple[str, ...], *, main: Path = RESOLV_CONF, resolved: Path = RESOLVED_CONF) -> Dns:
    """What the host's pods use by default. InvalidError for an explicit nameserver that is not an address."""
    for nameserver in explicit:
        if _address(nameserver) is None:
            raise InvalidError(f"[net] nameservers: {nameserver!r} is not an IP address")
    host = _read(main)
    usable = explicit or _reachable(host.nameservers)
    if not usable and host.nameservers:
        usable = _reachable(_read(resolved).nameservers)
    options = tuple(option for option in host.options if option != "trust-ad")  # only true of a local resolver
    return Dns(usable[:MAX_NAMESERVERS], host.search, options)


def _read(path: Path) -> Dns:
    try:
        return parse_resolv_conf(path.read_text(errors="replace"))
    except OSError:
        return Dns()


def merged(result: Dns, host: Dns) -> Dns:
    """The network's own answer wins as a whole, as the CNI specification has it; what it leaves open is the host's."""
    if result.nameservers:
        return replace(result, nameservers=result.nameservers[:MAX_NAMESERVERS])
    return replace(host, search=result.search or host.search, options=result.options or host.options)

"""Published ports: who has which. Claims are files in a folder of the network namespace, so that two platforms on one
host see each other.

A port published by DNAT is bound by no process, so a bind test alone does not find it; a port bound by a process of the
host is in no claim. Both are looked at.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import json
import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cuboid.lib.errors import ConflictError, InvalidError
from cuboid.lib.paths import write_atomic
from cuboid.net.base import PortMapping

CLAIMS = Path("/run/cuboid-ports")  # empty after a reboot, like the rules; not /run/lock: anybody writes there
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_FILE = re.compile(r"(tcp|udp|sctp)-(\d{1,5})-([0-9a-f.:]+|any)")
_WILDCARDS = ("", "0.0.0.0", "::")


def claims_folder(host_netns: Path | None) -> Path:
    """Ports belong to a network namespace: that of the host, or ours."""
    return CLAIMS / str((host_netns or Path("/proc/self/ns/net")).stat().st_ino)


def validated(ports: Sequence[PortMapping]) -> tuple[PortMapping, ...]:
    """The ports with each address in its one spelling, "" for all: that is what the rest of the network compares, names
    claims by and writes on record. InvalidError for a port that cannot be published, or is asked for twice."""
    checked = tuple(map(_validated, ports))
    for index, port in enumerate(checked):
        if any(overlap(port, other) for other in checked[:index]):
            raise InvalidError(f"port {port.host_port}/{port.protocol} is published twice")
    return checked


def _validated(port: PortMapping) -> PortMapping:
    if not (0 < port.host_port < 65536 and 0 < port.container_port < 65536):
        raise InvalidError(f"port {port.host_port}:{port.container_port} is not within 1 to 65535")
    if port.protocol not in ("tcp", "udp", "sctp"):
        raise InvalidError(f"protocol {port.protocol!r} of port {port.host_port} is not tcp, udp or sctp")
    return replace(port, host_ip=_canonical(port.host_ip))


def _canonical(host_ip: str) -> str:
    """An IPv4 address within IPv6 is that IPv4 address, as CNI's plugins and the kernel's sockets take it."""
    if not host_ip:
        return ""
    try:
        address = ipaddress.ip_address(host_ip)
    except ValueError as error:
        raise InvalidError(f"{host_ip!r} is not an address to publish a port on") from error
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise InvalidError(f"{host_ip!r} names an interface: publish the port on an address without one")
        address = address.ipv4_mapped or address
    return "" if address.is_unspecified else str(address)


def is_wildcard(host_ip: str) -> bool:
    """Whether a port is published on every address of the host; of one that is `validated`, or on an older record."""
    return host_ip in _WILDCARDS


def overlap(one: PortMapping, other: PortMapping) -> bool:
    """Whether both, which are `validated`, want the same packets."""
    if (one.protocol, one.host_port) != (other.protocol, other.host_port):
        return False
    return one.host_ip in _WILDCARDS or other.host_ip in _WILDCARDS or one.host_ip == other.host_ip


def mappings(ports: Sequence[PortMapping]) -> list[dict[str, object]]:
    """The value of CNI's capability `portMappings`."""
    return [
        {
            "hostPort": port.host_port,
            "containerPort": port.container_port,
            "protocol": port.protocol,
            **({} if port.host_ip in _WILDCARDS else {"hostIP": port.host_ip}),
        }
        for port in ports
    ]


@dataclass(frozen=True)
class Claim:
    port: PortMapping
    pod_uid: str
    pod: str  # namespace/name, for people
    record: str  # path of the pod's record: the claim is void when that is gone


class PortClaims:
    """A folder of claims on ports that are `validated`. Every method is short and safe among processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def claim(self, ports: Sequence[PortMapping], *, pod_uid: str, pod: str, record: Path) -> None:
        """All or none. ConflictError naming the pod that has one of them. Idempotent per pod."""
        if not ports:
            return
        with self._locked():
            taken = [claim for claim in self._claims(ports) if claim.pod_uid != pod_uid]
            for port in ports:
                for claim in taken:
                    if overlap(port, claim.port):
                        raise ConflictError(
                            f"port {port.host_port}/{port.protocol} is taken by the pod {claim.pod}",
                            hint="publish another port, or remove that pod",
                            reason="PortTaken",
                        )
            for port in ports:
                content = {"uid": pod_uid, "pod": pod, "record": str(record)}
                write_atomic(self._path(port), json.dumps(content).encode(), mode=0o644, durable=False)

    def release(self, pod_uid: str, ports: Sequence[PortMapping] | None = None) -> None:
        """Those of `ports`, None: all that the pod has, which takes a look at every claim. Idempotent."""
        if (ports is not None and not ports) or not self._folder.is_dir():
            return
        with self._locked():
            for claim in self._claims(ports):
                if claim.pod_uid == pod_uid:
                    self._path(claim.port).unlink(missing_ok=True)

    def claims(self) -> list[Claim]:
        if not self._folder.is_dir():
            return []
        with self._locked():
            return self._claims()

    def _path(self, port: PortMapping) -> Path:
        address = "any" if port.host_ip in _WILDCARDS else port.host_ip
        return self._folder / f"{port.protocol}-{port.host_port}-{address}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _claims(self, ports: Sequence[PortMapping] | None = None) -> list[Claim]:
        """The valid claims, on these port numbers if any are named; void ones are removed on the way."""
        found = []
        wanted = None if ports is None else {(port.protocol, str(port.host_port)) for port in ports}
        for path in self._folder.iterdir():
            if wanted is not None and tuple(path.name.split("-")[:2]) not in wanted:
                continue
            claim = _read_claim(path)
            if claim is not None and claim.record and Path(claim.record).exists():
                found.append(claim)
            elif claim is not None:
                path.unlink(missing_ok=True)
        return found


def _read_claim(path: Path) -> Claim | None:
    match = _FILE.fullmatch(path.name)
    if match is None:
        return None
    port = PortMapping(int(match[2]), 0, match[1], "" if match[3] == "any" else match[3])
    try:
        content = json.loads(path.read_bytes())
        return Claim(port, str(content["uid"]), str(content["pod"]), str(content["record"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Claim(port, "", "?", "")


def require_free(ports: Sequence[PortMapping]) -> None:
    """ConflictError naming the process of the host that listens on one of the ports. In the host's namespace."""
    for port in ports:
        for family, address in _places(port):
            if not _bindable(port, family, address):
                raise ConflictError(
                    f"port {port.host_port}/{port.protocol} is taken by {_listener(port)}",
                    hint="stop it, or publish another port",
                    reason="PortTaken",
                )


def _places(port: PortMapping) -> list[tuple[socket.AddressFamily, str]]:
    if port.host_ip in _WILDCARDS:
        return [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]
    return [(socket.AF_INET6 if ":" in port.host_ip else socket.AF_INET, port.host_ip)]


def _bindable(port: PortMapping, family: socket.AddressFamily, address: str) -> bool:
    kind = _KINDS.get(port.protocol)
    if kind is None:
        return True  # sctp: nothing of the host's listens by it where its module is not loaded
    try:
        with socket.socket(family, kind | socket.SOCK_CLOEXEC) as test:
            if kind == socket.SOCK_STREAM:
                test.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
            if family == socket.AF_INET6:
                test.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            test.bind((address, port.host_port))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL and family == socket.AF_INET and port.host_ip not in _WILDCARDS:
            raise InvalidError(f"this host has no address {address} to publish port {port.host_port} on") from error
        return error.errno != errno.EADDRINUSE  # a host without IPv6 has nobody listening there
    return True


def _listener(port: PortMapping) -> str:
    """`nginx (pid 12)`, or a vaguer word: what /proc tells."""
    inodes = set(_socket_inodes(port))
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and inodes & set(_held_inodes(folder / "fd")):
            with suppress(OSError):
                return f"{(folder / 'comm').read_text().strip()} (pid {folder.name})"
    return "a process of this host"


def _socket_inodes(port: PortMapping) -> Iterator[str]:
    for name in (port.protocol, f"{port.protocol}6"):
        try:
            lines = Path(f"/proc/thread-self/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, lines):
            listens = port.protocol != "tcp" or columns[3] == "0A"
            if listens and int(columns[1].rpartition(":")[2], 16) == port.host_port:
                yield columns[9]


def _held_inodes(folder: Path) -> Iterator[str]:
    with suppress(OSError):
        for link in folder.iterdir():
            with suppress(OSError):
                target = str(link.readlink())
                if target.startswith("socket:["):
                    yield target[8:-1]

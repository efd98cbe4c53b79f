"""NFS volumes: a pod's volume source becomes one mount that the guest's kernel makes itself by mount(2).

The kernel takes an address and its own option words, not a host name and mount.nfs' words, so the name is resolved on
the host (`resolve`, the only I/O here) and everything is checked against a list before it goes to the guest.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.lib.errors import DeadlineError, InvalidError, UnavailableError

VERSIONS = ("3", "4.0", "4.1", "4.2")
_DEFAULT_VERSION = "4.2"
_HOST = re.compile(
    r"(?=.{1,253}$)[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*\.?"
)
_RESOLVE_DEADLINE = 5.0  # s


@dataclass(frozen=True)
class NfsSource:
    """A checked volume source. `options` are kernel option words, without version and addresses."""

    server: str
    path: str
    read_only: bool
    version: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class GuestMount:
    """What the guest needs for mount(2): the fields of `NfsVolume` in proto/agent.proto."""

    server: str  # "192.0.2.7" or "[2001:db8::7]"
    path: str
    kind: str  # "nfs" or "nfs4"
    read_only: bool
    options: str  # comma separated, all for the file system itself

    @property
    def source(self) -> str:
        return f"{self.server}:{self.path}"


def _between(low: int, high: int) -> Callable[[str], bool]:
    return lambda value: value.isascii() and value.isdigit() and len(value) < 10 and low <= int(value) <= high


def _one_of(*words: str) -> Callable[[str], bool]:
    return lambda value: value in words


# What a tenant may ask for, nfs(5). Not listed: what names paths, users or keys of the host, or other address families.
_WORDS = frozenset(
    "hard soft softerr ac noac cto nocto sharecache nosharecache resvport noresvport "
    "acl noacl lock nolock rdirplus nordirplus sync".split()
)
_DEFAULTS = ("ro", "rw", "async", "relatime", "noatime", "nodiratime")  # the first is a field; NFS keeps no local atime
_VALUES: Mapping[str, Callable[[str], bool]] = {
    "timeo": _between(1, 6000),  # tenths of a second
    "retrans": _between(1, 30),
    "rsize": _between(1024, 1 << 20),
    "wsize": _between(1024, 1 << 20),
    "acregmin": _between(0, 3600),
    "acregmax": _between(0, 3600),
    "acdirmin": _between(0, 3600),
    "acdirmax": _between(0, 3600),
    "actimeo": _between(0, 3600),
    "nconnect": _between(1, 16),
    "max_connect": _between(1, 16),
    "port": _between(1, 65535),
    "mountport": _between(1, 65535),
    "proto": _one_of("tcp", "tcp6"),
    "sec": _one_of("sys", "none"),
    "lookupcache": _one_of("all", "none", "pos", "positive"),
    "local_lock": _one_of("all", "flock", "posix", "none"),
}


def parse_source(source: Mapping[str, Any], mount_options: Iterable[str] = ()) -> NfsSource:
    """Kubernetes' `NFSVolumeSource` (server, path, readOnly) and a volume's `mountOptions`. InvalidError."""
    unknown = sorted(set(source) - {"server", "path", "readOnly"})
    if unknown:
        raise InvalidError(f"unknown field {unknown[0]!r} in an NFS volume", hint="server, path and readOnly are known")
    read_only = source.get("readOnly") or False
    if not isinstance(read_only, bool):
        raise InvalidError("readOnly of an NFS volume is neither true nor false")
    words = [word.strip() for option in mount_options for word in str(option).split(",") if word.strip()]
    if len(words) > 64:
        raise InvalidError("an NFS volume has more than 64 mount options")
    version, rest = _version(words)
    kept = tuple(_checked(word) for word in rest if word not in _DEFAULTS)
    return NfsSource(_server(source.get("server")), _path(source.get("path")), read_only or "ro" in rest, version, kept)


def _server(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidError("an NFS volume needs a server")
    bare = value.removeprefix("[").removesuffix("]")
    if _address(bare) is None and not _HOST.fullmatch(value):
        raise InvalidError(f"{value[:260]!r} is not the name or address of an NFS server")
    return bare


def _address(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(value) if "%" not in value else None
    except ValueError:
        return None


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/") or len(value.encode(errors="replace")) > 1024:
        raise InvalidError("the path of an NFS volume must begin with / and have at most 1024 bytes")
    if not value.isprintable() or ".." in value.split("/"):
        raise InvalidError("the path of an NFS volume holds .. or a control character")
    return value


def _version(words: list[str]) -> tuple[str, list[str]]:
    """The protocol's version out of vers=, nfsvers= and minorversion=, and the other words."""
    version, minor, rest = "", "", []
    for word in words:
        key, _, value = word.partition("=")
        if key in ("vers", "nfsvers"):
            version = value
        elif key == "minorversion":
            minor = value
        else:
            rest.append(word)
    if minor and version.partition(".")[0] in ("", "4"):
        version = f"4.{minor}"
    version = {"": _DEFAULT_VERSION, "4": _DEFAULT_VERSION}.get(version, version)
    if version not in VERSIONS:
        raise InvalidError(f"NFS version {version[:20]!r} is not one of {', '.join(VERSIONS)}")
    return version, rest


def _checked(word: str) -> str:
    key, equals, value = word.partition("=")
    fits = value != "" and key in _VALUES and _VALUES[key](value) if equals else word in _WORDS
    if not fits:
        raise InvalidError(
            f"the mount option {word[:80]!r} is not allowed for an NFS volume",
            hint=f"allowed: {', '.join(sorted(_WORDS | {f'{name}=' for name in _VALUES} | {'vers='}))}",
        )
    return word


def guest_mount(source: NfsSource, server: str, client: str) -> GuestMount:
    """The mount for a server's address and, for 4.x callbacks, the pod's own address. Pure."""
    host = f"[{server}]" if ":" in server else server
    family = "tcp6" if ":" in server else "tcp"
    options = [*source.options, f"vers={source.version}", f"addr={server}"]
    if not any(word.startswith("proto=") for word in source.options):
        options.append(f"proto={family}")
    if source.version == "3":
        options += [f"mountaddr={server}", f"mountproto={family}"]
        if not {"lock", "nolock"} & set(source.options):
            options.append("nolock")  # version 3 locks need rpc.statd, which a guest has not; 4.x has locks of its own
    else:
        options.append(f"clientaddr={client}")
    kind = "nfs" if source.version == "3" else "nfs4"
    return GuestMount(host, source.path, kind, source.read_only, ",".join(options))


async def resolve(server: str, *, deadline: float = _RESOLVE_DEADLINE) -> str:
    """An address of the server, IPv4 preferred, as the host knows it. UnavailableError or DeadlineError."""
    if _address(server) is not None:
        return server
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(deadline):
            found = await loop.getaddrinfo(server, 2049, type=socket.SOCK_STREAM)
    except TimeoutError as error:
        raise DeadlineError(f"resolving the NFS server {server} took longer than {deadline:g} s") from error
    except OSError as error:
        raise UnavailableError(f"the NFS server {server} cannot be resolved: {error.strerror}") from error
    ordered = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)
    return str(ordered[0][4][0])

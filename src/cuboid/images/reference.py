"""Image references by the grammar of the distribution project, with Docker Hub's defaults.

`nginx` is `docker.io/library/nginx:latest`; a first component with a dot, a colon, or `localhost` is a registry.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from cuboid.lib.errors import InvalidError

DOCKER_HUB = "docker.io"
HUB_ENDPOINT = "registry-1.docker.io"
NAME_MAX = 255  # bytes of registry and repository together
TEXT_MAX = 1024

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", re.ASCII)


@dataclass(frozen=True)
class Reference:
    """A normalised reference. With a digest the tag is only decoration."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        return f"{self.name}{':' + self.tag if self.tag else ''}{'@' + self.digest if self.digest else ''}"

    @property
    def name(self) -> str:
        return f"{self.registry}/{self.repository}"

    @property
    def key(self) -> str:
        """What identifies the content: `name@digest` where there is a digest, `name:tag` otherwise."""
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"

    @property
    def endpoint(self) -> str:
        """HOST[:PORT] that serves the registry's API."""
        return HUB_ENDPOINT if self.registry == DOCKER_HUB else self.registry

    @property
    def familiar(self) -> str:
        """As people write it: without `docker.io/library/`."""
        return str(self).removeprefix(f"{DOCKER_HUB}/library/").removeprefix(f"{DOCKER_HUB}/")


def parse(text: str) -> Reference:
    """Parse and normalise; InvalidError says which part is wrong."""
    if not text or len(text) > TEXT_MAX or not text.isprintable():
        raise _invalid(text, "it is empty, too long or not printable")
    rest, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, "the digest must be sha256: and 64 hexadecimal digits")
    registry, path = _split_registry(rest)
    repository, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text, "its tag has other than letters, digits, and . _ - (at most 128)")
    _check_name(text, registry, repository)
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return Reference(registry, repository, tag or ("" if digest else "latest"), digest)


def _split_registry(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return DOCKER_HUB, text
    return (DOCKER_HUB if first in ("index.docker.io", HUB_ENDPOINT) else first), rest


def _check_name(text: str, registry: str, repository: str) -> None:
    if not _REGISTRY.fullmatch(registry) or int(port(registry) or 1) not in range(1, 65536):
        raise _invalid(text, "it does not begin with a registry's host name")
    if not _REPOSITORY.fullmatch(repository):
        why = "a name is in lower case" if repository != repository.lower() else "its name is malformed"
        raise _invalid(text, why)
    if len(registry) + len(repository) + 1 > NAME_MAX:
        raise _invalid(text, f"the name is longer than {NAME_MAX} characters")


def _invalid(text: str, why: str) -> InvalidError:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return InvalidError(
        f"{shown!r} is not an image reference: {why}", hint="like nginx:1.27 or registry.example/team/app@sha256:…",
        reason="InvalidImageName",
    )  # fmt: skip


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def host(registry: str) -> str:
    """The host of HOST[:PORT], an IPv6 address without its brackets."""
    if registry.startswith("["):
        return registry[1:].partition("]")[0]
    return registry.partition(":")[0]


def port(registry: str) -> str:
    return registry.rpartition("]")[2].partition(":")[2]


def is_loopback(name: str) -> bool:
    """Whether a host name or address is this machine for certain: `localhost`, 127.0.0.0/8, ::1."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

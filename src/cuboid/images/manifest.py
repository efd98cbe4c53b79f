"""Index, manifest and configuration of OCI and Docker (schema 2): bytes from outside to checked values. Pure.

Source: the OCI image specification 1.1 and Docker's "Image Manifest Version 2, Schema 2".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import msgspec

from cuboid.images.base import ImageConfig
from cuboid.images.reference import is_digest
from cuboid.lib.errors import HostileError, UnsupportedError

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1"
INDEXES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
ACCEPT = ", ".join((*INDEXES, *MANIFESTS))
OS, ARCHITECTURE = "linux", "amd64"

_MAX_DESCRIPTORS = 1024
_MAX_STRINGS = 4096
_MAX_SIZE = 1 << 50


class Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """What names a blob: its digest and size in bytes."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class _Index(msgspec.Struct, rename="camel"):
    manifests: list[Descriptor]
    media_type: str = ""


class _Manifest(msgspec.Struct, rename="camel"):
    config: Descriptor
    layers: list[Descriptor]
    media_type: str = ""


class _Peek(msgspec.Struct, rename="camel"):
    media_type: str = ""
    schema_version: int = 2
    manifests: msgspec.Raw = msgspec.Raw(b"")


class _Execution(msgspec.Struct, rename="pascal"):
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None
    working_dir: str | None = None
    user: str | None = None
    stop_signal: str | None = None
    exposed_ports: dict[str, msgspec.Raw] | None = None
    volumes: dict[str, msgspec.Raw] | None = None
    labels: dict[str, str] | None = None


class _RootFs(msgspec.Struct):
    diff_ids: list[str] = []


class _Config(msgspec.Struct):
    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str | None = None
    config: _Execution | None = None
    rootfs: _RootFs | None = None


@dataclass(frozen=True)
class Manifest:
    config: Descriptor
    layers: tuple[Descriptor, ...]


@dataclass(frozen=True)
class Index:
    manifests: tuple[Descriptor, ...]


@dataclass(frozen=True)
class Configuration:
    """An image configuration: how to run it, and the digests of its unpacked layers from the lowest up."""

    run: ImageConfig
    platform: Platform
    created: str
    diff_ids: tuple[str, ...]


S = TypeVar("S", bound=msgspec.Struct)


def _decode(raw: bytes, kind: type[S], what: str) -> S:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise HostileError(f"{what} is malformed: {error}") from error


def parse_manifest(raw: bytes, media_type: str = "", *, what: str = "the manifest") -> Manifest | Index:
    """HostileError if malformed, UnsupportedError for schema 1 and for what is no image."""
    peek = _decode(raw, _Peek, what)
    kind = peek.media_type or media_type.partition(";")[0].strip()
    if peek.schema_version == 1 or kind.startswith(DOCKER_SCHEMA1):
        raise UnsupportedError(
            f"{what} has Docker's schema 1, which registries gave up in 2019", hint="push the image again"
        )
    if kind in INDEXES or (kind not in MANIFESTS and bytes(peek.manifests) not in (b"", b"null")):
        index = _decode(raw, _Index, what)
        return Index(_checked(index.manifests, what))
    manifest = _decode(raw, _Manifest, what)
    _check_is_image(manifest, what)
    return Manifest(_checked([manifest.config], what)[0], _checked(manifest.layers, what))


def _check_is_image(manifest: _Manifest, what: str) -> None:
    kind = manifest.config.media_type
    if kind and kind not in CONFIGS:
        raise UnsupportedError(f"{what} is not a container image: its configuration is {kind[:100]!r}")
    if any("encrypted" in layer.media_type for layer in manifest.layers):
        raise UnsupportedError(f"{what} has encrypted layers")


def _checked(descriptors: list[Descriptor], what: str) -> tuple[Descriptor, ...]:
    if len(descriptors) > _MAX_DESCRIPTORS:
        raise HostileError(f"{what} lists {len(descriptors)} parts, more than {_MAX_DESCRIPTORS}")
    for descriptor in descriptors:
        if not is_digest(descriptor.digest):
            raise HostileError(f"{what} holds {descriptor.digest[:80]!r} where a digest belongs")
        if not 0 <= descriptor.size <= _MAX_SIZE:
            raise HostileError(f"{what} gives a part the size {descriptor.size}")
    return tuple(descriptors)


def choose(index: Index, what: str) -> Descriptor:
    """The entry for linux/amd64; UnsupportedError names what there is otherwise."""
    named = [entry for entry in index.manifests if entry.platform is None or entry.platform.os != "unknown"]
    wanted = (OS, ARCHITECTURE)
    fits = [entry for entry in named if entry.platform and (entry.platform.os, entry.platform.architecture) == wanted]
    if fits:
        return min(fits, key=lambda entry: entry.platform.variant if entry.platform else "")
    if len(named) == 1 and named[0].platform is None:
        return named[0]
    offered = ", ".join(sorted({str(entry.platform) for entry in named if entry.platform})[:16]) or "nothing"
    raise wrong_platform(what, offered)


def wrong_platform(what: str, offered: str) -> UnsupportedError:
    return UnsupportedError(
        f"{what} has no variant for {OS}/{ARCHITECTURE}: it offers {offered}",
        hint=f"build or choose one for {OS}/{ARCHITECTURE}",
        reason="ErrImagePull",
    )


def parse_config(raw: bytes, *, what: str = "the image configuration") -> Configuration:
    """HostileError if malformed."""
    parsed = _decode(raw, _Config, what)
    diff_ids = tuple(parsed.rootfs.diff_ids) if parsed.rootfs else ()
    for diff_id in diff_ids:
        if not is_digest(diff_id):
            raise HostileError(f"{what} holds {diff_id[:80]!r} where the digest of a layer belongs")
    return Configuration(
        _execution(parsed.config or _Execution(), what),
        Platform(parsed.architecture, parsed.os, parsed.variant),
        (parsed.created or "")[:64],
        diff_ids,
    )


def _execution(given: _Execution, what: str) -> ImageConfig:
    parts = (given.entrypoint, given.cmd, given.env, given.exposed_ports, given.volumes, given.labels)
    if any(len(part or ()) > _MAX_STRINGS for part in parts):
        raise HostileError(f"{what} has a list with more than {_MAX_STRINGS} elements")
    strings = [
        *(given.entrypoint or ()),
        *(given.cmd or ()),
        *(given.env or ()),
        given.working_dir or "",
        given.user or "",
    ]
    if any("\0" in string for string in strings):
        raise HostileError(f"{what} has a NUL byte in a string that a process would get")
    return ImageConfig(
        entrypoint=tuple(given.entrypoint or ()),
        cmd=tuple(given.cmd or ()),
        env=tuple(given.env or ()),
        working_dir=given.working_dir or "",
        user=given.user or "",
        stop_signal=given.stop_signal or "",
        exposed_ports=tuple(sorted(given.exposed_ports or ())),
        volumes=tuple(sorted(given.volumes or ())),
        labels=dict(given.labels or {}),
    )

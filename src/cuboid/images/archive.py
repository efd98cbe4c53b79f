"""Images from files: `docker save` archives (old and new), and OCI layouts as a folder or in a tar, packed or not.

An archive is only taken apart into files with names of our own; what is in it is proved by digests.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from cuboid.images import bundle
from cuboid.images.bundle import Bundle
from cuboid.images.flatten import show, split
from cuboid.images.layers import Budget, open_layer
from cuboid.images.manifest import (
    ARCHITECTURE,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    OS,
    Descriptor,
    Index,
    Manifest,
    choose,
    parse_config,
    parse_manifest,
)
from cuboid.images.reference import parse
from cuboid.images.registry import digest_of
from cuboid.images.settings import ImageSettings, Limits
from cuboid.images.tar import Kind, TarReader
from cuboid.lib.errors import HostileError, InvalidError, NotFoundError

_MAX_MEMBERS = 20_000
_NAMES = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True)
class ArchivedImage:
    """An image in an archive; `files` are its layers, lowest first."""

    bundle: Bundle
    files: tuple[Path, ...]


class _Saved(msgspec.Struct, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class Files(Protocol):
    def find(self, name: str) -> Path | None:
        """The regular file that the archive calls `name`."""
        ...


class FolderFiles:
    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, name: str) -> Path | None:
        parts = [part.decode() for part in split(name.encode())]
        path = self._root
        for part in parts:
            path = path / part
            if path.is_symlink():
                raise HostileError(f"the layout has a symbolic link at {show(name.encode())}")
        return path if path.is_file() else None


class TarFiles:
    """The members of a tar, unpacked into numbered files in `folder`."""

    def __init__(self, path: Path, folder: Path, limits: Limits) -> None:
        self._files: dict[bytes, Path] = {}
        self._links: dict[bytes, bytes] = {}
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._unpack(TarReader(open_layer(fd, Budget(limits)), limits), folder)
        finally:
            os.close(fd)

    def _unpack(self, reader: TarReader, folder: Path) -> None:
        for number, entry in enumerate(reader):
            if number >= _MAX_MEMBERS:
                raise HostileError(f"the archive has more than {_MAX_MEMBERS} members")
            parts = split(entry.name)
            name = b"/".join(parts)
            if entry.kind in (Kind.SYMLINK, Kind.HARDLINK):
                base = parts[:-1] if entry.kind is Kind.SYMLINK else []
                self._links[name] = b"/".join(split(b"/".join([*base, entry.target])))
            elif entry.kind is Kind.FILE:
                target = folder / str(number)
                with target.open("xb") as file:
                    for piece in reader.data():
                        file.write(piece)
                self._files[name] = target

    def find(self, name: str) -> Path | None:
        key = b"/".join(split(name.encode()))
        for _ in range(8):
            if key not in self._links:
                break
            key = self._links[key]
        return self._files.get(key)


def open_archive(path: Path, folder: Path, settings: ImageSettings) -> list[ArchivedImage]:
    """All images of the archive that fit this platform. Blocks: run it in a thread. `folder` is for its files.

    NotFoundError, InvalidError (no image archive), HostileError, UnsupportedError (platform).
    """
    files = _files(path, folder, settings)
    if files.find("index.json"):
        return _layout(files, settings, path)
    if files.find("manifest.json"):
        return _docker_save(files, settings, path)
    raise InvalidError(
        f"{path} is neither a docker-save archive nor an OCI layout", hint="it has no manifest.json and no index.json"
    )


def _files(path: Path, folder: Path, settings: ImageSettings) -> Files:
    try:
        return FolderFiles(path) if path.is_dir() else TarFiles(path, folder, settings.limits())
    except FileNotFoundError as error:
        raise NotFoundError(f"{path} does not exist") from error
    except PermissionError as error:
        raise InvalidError(f"cannot read {path}: {error.strerror}") from error


def _read(files: Files, name: str, most: int) -> bytes:
    path = files.find(name)
    if path is None:
        raise HostileError(f"the archive lacks {show(name.encode())}")
    with path.open("rb") as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise HostileError(f"{show(name.encode())} in the archive has more than {most} bytes")
    return raw


def _layout(files: Files, settings: ImageSettings, path: Path) -> list[ArchivedImage]:
    what = f"the index of {path}"
    index = parse_manifest(_read(files, "index.json", settings.max_manifest_bytes), what=what)
    if not isinstance(index, Index):
        raise HostileError(f"{what} is a manifest")
    return [_layout_image(files, entry, settings, what) for entry in _own_platform(index, what)]


def _own_platform(index: Index, what: str) -> list[Descriptor]:
    """Every image that is not of another platform; if there are none, say what there is."""
    wanted = (OS, ARCHITECTURE)
    fits = [e for e in index.manifests if e.platform is None or (e.platform.os, e.platform.architecture) == wanted]
    return fits or [choose(index, what)]


def _layout_image(files: Files, entry: Descriptor, settings: ImageSettings, what: str) -> ArchivedImage:
    annotations = entry.annotations or {}
    pins = [entry.digest]
    manifest = parse_manifest(_blob(files, entry, settings), entry.media_type, what=f"a manifest in {what}")
    if isinstance(manifest, Index):
        entry = choose(manifest, what)
        pins.append(entry.digest)
        manifest = parse_manifest(_blob(files, entry, settings), entry.media_type, what=f"a manifest in {what}")
    if not isinstance(manifest, Manifest):
        raise HostileError(f"{what} nests indexes more than once")
    configuration = parse_config(_blob(files, manifest.config, settings))
    bundle.check(configuration, manifest.layers, settings, f"an image in {what}")
    name = next((annotations[key] for key in _NAMES if key in annotations), "")
    reference = parse(name) if "/" in name or ":" in name else None
    return ArchivedImage(
        Bundle(
            manifest.config.digest, entry.digest, (reference.key,) if reference else (),
            tuple(f"{reference.name}@{pin}" for pin in pins) if reference else (), configuration, manifest.layers,
        ),
        tuple(_layer(files, _blob_name(layer.digest)) for layer in manifest.layers),
    )  # fmt: skip


def _blob_name(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def _blob(files: Files, descriptor: Descriptor, settings: ImageSettings) -> bytes:
    raw = _read(files, _blob_name(descriptor.digest), settings.max_manifest_bytes)
    if digest_of(raw, descriptor.digest.partition(":")[0]) != descriptor.digest:
        raise HostileError(f"the archive's blob {descriptor.digest} has another digest")
    return raw


def _layer(files: Files, name: str) -> Path:
    path = files.find(name)
    if path is None:
        raise HostileError(f"the archive lacks the layer {show(name.encode())}")
    return path


def _docker_save(files: Files, settings: ImageSettings, path: Path) -> list[ArchivedImage]:
    raw = _read(files, "manifest.json", settings.max_manifest_bytes)
    try:
        saved = msgspec.json.decode(raw, type=list[_Saved])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise HostileError(f"manifest.json of {path} is malformed: {error}") from error
    return [_saved_image(files, image, settings, path) for image in saved]


def _saved_image(files: Files, saved: _Saved, settings: ImageSettings, path: Path) -> ArchivedImage:
    raw = _read(files, saved.config, settings.max_manifest_bytes)
    configuration = parse_config(raw, what=f"the configuration in {path}")
    found = tuple(_layer(files, name) for name in saved.layers)
    names = tuple(parse(tag).key for tag in saved.repo_tags or ())
    layers = tuple(
        Descriptor(diff_id, layer.stat().st_size, OCI_LAYER)
        for diff_id, layer in zip(configuration.diff_ids, found, strict=False)
    )
    if len(layers) < len(found):
        raise HostileError(f"an image in {path} has {len(found)} layers, but its configuration names {len(layers)}")
    bundle.check(configuration, layers, settings, f"an image in {path}")
    image_id = digest_of(raw)
    digest = digest_of(write_manifest(Descriptor(image_id, len(raw), OCI_CONFIG), layers))
    return ArchivedImage(Bundle(image_id, digest, names, (), configuration, layers), found)


def write_manifest(config: Descriptor, layers: tuple[Descriptor, ...]) -> bytes:
    """The OCI manifest of an image, always the same bytes for the same parts."""
    return msgspec.json.encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": plain(config),
            "layers": [plain(layer) for layer in layers],
        }
    )


def plain(descriptor: Descriptor) -> dict[str, object]:
    return {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}

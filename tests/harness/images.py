"""Tiny layers and images for tests."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from cuboid.images.base import ImageConfig
from cuboid.images.build import build_layout
from cuboid.images.settings import ImageSettings

MIB = 1 << 20


def member(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    """A tar member; `fields` are attributes of TarInfo."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def folder(name: str, **fields: object) -> tarfile.TarInfo:
    return member(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tarfile.TarInfo:
    return member(name, tarfile.LNKTYPE, linkname=target)


def make_tar(
    members: Iterable[tarfile.TarInfo | tuple[str, bytes] | tuple[tarfile.TarInfo, bytes]],
    tar_format: int = tarfile.PAX_FORMAT,
) -> bytes:
    """A tar of members: a TarInfo, or (name or TarInfo, content)."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tar_format) as archive:
        for item in members:
            info, content = item if isinstance(item, tuple) else (item, b"")
            info = member(info) if isinstance(info, str) else info
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return output.getvalue()


def small_settings(**changes: object) -> ImageSettings:
    """Limits and waits for tests: nothing on the disk is taken for full, nothing waits long."""
    defaults: dict[str, object] = {
        "min_free_bytes": MIB, "backoff": 0.01, "backoff_max": 0.05, "docker_config": "/nonexistent/config.json",
        "connect_timeout": 2.0, "read_timeout": 2.0, "request_deadline": 5.0,
    }  # fmt: skip
    return ImageSettings(**{**defaults, **changes})  # type: ignore[arg-type]


def make_layout(
    folder: Path, layers: Iterable[bytes], config: ImageConfig | None = None, compression: str = "gzip", name: str = ""
) -> Path:
    """An OCI layout of tars given as bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    tars = []
    for number, layer in enumerate(layers):
        tars.append(folder / f"{number}.tar")
        tars[-1].write_bytes(layer)
    build_layout(tars, config or ImageConfig(cmd=("/bin/sh",)), folder / "layout", compression=compression, name=name)
    return folder / "layout"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def resum(raw: bytearray) -> bytes:
    """The archive with the checksum of its first header made right again."""
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    return bytes(raw)


def gnu_sparse(realsize: int, segments: list[tuple[int, bytes]]) -> bytes:
    """An old GNU sparse member with at most four segments."""
    stored = b"".join(data for _, data in segments)
    raw = bytearray(make_tar([("sparse", stored)], tarfile.GNU_FORMAT))
    raw[156:157] = b"S"
    for number, (offset, data) in enumerate(segments):
        raw[386 + 24 * number : 410 + 24 * number] = b"%011o\0%011o\0" % (offset, len(data))
    raw[483:495] = b"%011o\0" % realsize
    return resum(raw)

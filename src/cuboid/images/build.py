"""Makes an OCI image layout of root file systems in tar form: how the demo and the tests get real images.

Deterministic: the same tars and configuration give the same digests. It builds no Dockerfile.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import zstandard

from cuboid.images.archive import plain, write_manifest
from cuboid.images.base import ImageConfig
from cuboid.images.manifest import ARCHITECTURE, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, OS, Descriptor
from cuboid.images.registry import digest_of
from cuboid.lib.errors import InvalidError

_PIECE = 1 << 20
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time
COMPRESSIONS = ("gzip", "zstd", "none")


def build_layout(
    layers: Sequence[Path],
    config: ImageConfig,
    out: Path,
    *,
    name: str = "",
    compression: str = "zstd",
    created: str = "1970-01-01T00:00:00Z",
    architecture: str = ARCHITECTURE,
) -> str:
    """Write the layout folder `out` (replaced if it exists) from plain tars, lowest first; the manifest's digest."""
    if compression not in COMPRESSIONS:
        raise InvalidError(f"unknown compression {compression!r}", hint=f"one of {', '.join(COMPRESSIONS)}")
    new = out.with_name(f"{out.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    blobs = new / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    packed = [_layer(tar, blobs, compression) for tar in layers]
    raw = image_config(config, [diff_id for _, diff_id in packed], created=created, architecture=architecture)
    manifest = write_manifest(_blob(blobs, raw, OCI_CONFIG), tuple(descriptor for descriptor, _ in packed))
    entry = plain(_blob(blobs, manifest, OCI_MANIFEST))
    entry |= {"platform": {"os": OS, "architecture": architecture}}
    entry |= {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    (new / "index.json").write_bytes(msgspec.json.encode(index))
    (new / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)
    return digest_of(manifest)


def image_config(
    config: ImageConfig, diff_ids: Sequence[str], *, created: str = "", architecture: str = ARCHITECTURE
) -> bytes:
    """The OCI configuration; fields that are empty are left out."""
    fields = {
        "Entrypoint": list(config.entrypoint), "Cmd": list(config.cmd), "Env": list(config.env),
        "WorkingDir": config.working_dir, "User": config.user, "StopSignal": config.stop_signal,
        "ExposedPorts": {port: {} for port in config.exposed_ports}, "Volumes": {path: {} for path in config.volumes},
        "Labels": dict(sorted(config.labels.items())),
    }  # fmt: skip
    return msgspec.json.encode({
        **({"created": created} if created else {}),
        "architecture": architecture,
        "os": OS,
        "config": {key: value for key, value in fields.items() if value},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    })  # fmt: skip


def _blob(blobs: Path, raw: bytes, media_type: str) -> Descriptor:
    digest = digest_of(raw)
    (blobs / digest.partition(":")[2]).write_bytes(raw)
    return Descriptor(digest, len(raw), media_type)


def _layer(tar: Path, blobs: Path, compression: str) -> tuple[Descriptor, str]:
    """Pack one tar into `blobs`; its descriptor and the digest of what it unpacks to."""
    plain_digest, packed_digest, size = hashlib.sha256(), hashlib.sha256(), 0
    temporary = blobs / "new"
    with tar.open("rb") as source, temporary.open("wb") as target:
        for piece in _PACKERS[compression](_pieces(source, plain_digest)):
            packed_digest.update(piece)
            size += target.write(piece)
    temporary.rename(blobs / packed_digest.hexdigest())
    suffix = "" if compression == "none" else f"+{compression}"
    return (
        Descriptor(f"sha256:{packed_digest.hexdigest()}", size, OCI_LAYER + suffix),
        f"sha256:{plain_digest.hexdigest()}",
    )


def _pieces(source: io.BufferedReader, digest: hashlib._Hash) -> Iterator[bytes]:
    while piece := source.read(_PIECE):
        digest.update(piece)
        yield piece


def _gzip(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer, checksum, size = zlib.compressobj(6, wbits=-15), 0, 0
    yield _GZIP_HEADER
    for piece in pieces:
        checksum, size = zlib.crc32(piece, checksum), size + len(piece)
        yield packer.compress(piece)
    yield packer.flush() + checksum.to_bytes(4, "little") + (size % (1 << 32)).to_bytes(4, "little")


def _zstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    packer = zstandard.ZstdCompressor(level=3).compressobj()
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


_PACKERS: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {"gzip": _gzip, "zstd": _zstd, "none": iter}


def tar_layout(layout: Path, out: Path) -> None:
    """The layout in one tar file, the same bytes for the same layout."""
    with tarfile.open(out, "w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(layout.rglob("*")):
            info = archive.gettarinfo(path, str(path.relative_to(layout)))
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            info.mode = 0o755 if path.is_dir() else 0o644
            if path.is_dir():
                archive.addfile(info)
                continue
            with path.open("rb") as content:
                archive.addfile(info, content)

"""Settings of the image layer: table `[images]`. Whatever bounds hostile input is a row here."""

from __future__ import annotations

from dataclasses import dataclass

from cuboid.lib.settings import setting

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Limits:
    """What one image may cost the converter; handed to the confined process."""

    unpacked_bytes: int = 64 * GIB
    device_bytes: int = 256 * GIB
    entries: int = 1_000_000
    devices: int = 4096
    ratio: int = 200
    ratio_free_bytes: int = 256 * MIB
    pax_bytes: int = 1 * MIB
    xattr_bytes: int = 64 * KIB


@dataclass(frozen=True)
class ImageSettings:
    insecure_registries: tuple[str, ...] = setting(
        (), why="HOST[:PORT] of registries reached by plain http; loopback needs no entry"
    )
    docker_config: str = setting("", why="Docker's config.json; empty: $DOCKER_CONFIG or ~/.docker")
    ca_file: str = setting("", why="PEM file of a private authority to trust beside the system's")

    connect_timeout: float = setting(10.0, unit="s", why="a registry that does not answer is down")
    read_timeout: float = setting(30.0, unit="s", why="longest silence inside an answer")
    request_deadline: float = setting(60.0, unit="s", why="a manifest or token takes no longer, however it trickles")
    min_rate: int = setting(64 * KIB, unit="B/s", why="a blob slower than this on average is given up (slow loris)")
    attempts: int = setting(5, why="tries of one request; a blob's count starts anew when bytes arrived")
    backoff: float = setting(0.25, unit="s", why="wait before the second try; doubles each time, with jitter")
    backoff_max: float = setting(10.0, unit="s", why="cap of the wait, and of a registry's Retry-After")
    parallel_layers: int = setting(3, why="downloads at once per image, as Docker does")
    parallel_conversions: int = setting(2, why="converters at once; each uses one core")

    max_manifest_bytes: int = setting(4 * MIB, unit="B", why="what registries accept as manifest or configuration")
    max_layers: int = setting(256, why="Docker's own limit is 127")
    max_layer_bytes: int = setting(64 * GIB, unit="B", why="one compressed layer")
    max_unpacked_bytes: int = setting(64 * GIB, unit="B", why="all unpacked layers of an image together")
    max_device_bytes: int = setting(256 * GIB, unit="B", why="apparent size of a device: sparse files count whole")
    max_entries: int = setting(1_000_000, why="tar entries and directories of an image; memory of the converter")
    max_device_nodes: int = setting(4096, why="no image needs more device nodes")
    max_ratio: int = setting(200, why="unpacked to packed; real layers reach 20, a bomb 1000")
    ratio_free_bytes: int = setting(256 * MIB, unit="B", why="below this a high ratio harms nobody")
    max_pax_bytes: int = setting(1 * MIB, unit="B", why="one extended header; it is held in memory")
    max_xattr_bytes: int = setting(
        64 * KIB, unit="B", why="extended attributes of one file; ext4 allows 64 KiB as well"
    )

    min_free_bytes: int = setting(512 * MIB, unit="B", why="left free on the disk by pulls, for records and pods")
    blob_cache_bytes: int = setting(
        0, unit="B", why="layers kept after conversion; 0: none, the device is all that running needs"
    )
    partial_seconds: float = setting(
        86400.0, unit="s", why="an interrupted download can be continued this long, then it is swept away"
    )
    convert_deadline: float = setting(1800.0, unit="s", why="a conversion that takes longer is ended")
    worker_memory_bytes: int = setting(3 * GIB, unit="B", why="address space of a converter (RLIMIT_AS)")
    worker_cpu_seconds: int = setting(1500, unit="s", why="processor time of a converter (RLIMIT_CPU)")
    worker_uid_base: int = setting(
        1_900_000_000, why="a converter runs as this uid plus its pid: alone, and no user's or container's range"
    )

    def limits(self) -> Limits:
        return Limits(
            unpacked_bytes=self.max_unpacked_bytes,
            device_bytes=self.max_device_bytes,
            entries=self.max_entries,
            devices=self.max_device_nodes,
            ratio=self.max_ratio,
            ratio_free_bytes=self.ratio_free_bytes,
            pax_bytes=self.max_pax_bytes,
            xattr_bytes=self.max_xattr_bytes,
        )

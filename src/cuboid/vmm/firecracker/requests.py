"""Every request that the driver makes of Firecracker's API, as data. Pure.

Written from Firecracker's API specification 1.17 (Swagger 2), against which a test validates each of them. All paths
are those that the jailed process sees; they are the same for every VM, so a snapshot finds its files in any jail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cuboid.vmm.base import Disk, Nic, VmSpec

API_SOCKET = "/run/api.sock"
CHANNEL_SOCKET = "/run/agent.sock"
LOG = "/run/log"
METRICS = "/run/metrics"
KERNEL = "/boot/kernel"
INITRAMFS = "/boot/initramfs"
DISKS = "/disks"
MEMORY = "/snapshot/memory"
STATE = "/snapshot/state"

GUEST_CID = 3  # the vsock of each VMM is its own, so all guests have the same address
BUCKET_MS = 1000  # time in which a token bucket fills: limits are per second
MAX_VCPUS = 32


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: dict[str, Any] | None = None


def drive_id(number: int) -> str:
    """Firecracker's own names of devices take letters, digits and underscores only, serials more than that."""
    return f"disk{number}"


def disk_path(serial: str) -> str:
    return f"{DISKS}/{serial}"


def configure(spec: VmSpec, boot_args: str, sockets: Sequence[str] = ()) -> list[Request]:
    """All that a fresh VMM needs before `start()`. Disks whose serial is in `sockets` are vhost-user devices."""
    machine = {
        "vcpu_count": spec.vcpus, "mem_size_mib": spec.memory_mib, "smt": False,
        "track_dirty_pages": False, "huge_pages": "None",
    }  # fmt: skip
    source = {"kernel_image_path": KERNEL, "initrd_path": INITRAMFS, "boot_args": boot_args}
    return [
        *observe(),
        Request("PUT", "/machine-config", machine),
        Request("PUT", "/boot-source", source),
        *(put_drive(number, disk, vhost_user=disk.serial in sockets) for number, disk in enumerate(spec.disks)),
        *(_interface(number, nic) for number, nic in enumerate(spec.nics)),
        Request("PUT", "/vsock", {"guest_cid": GUEST_CID, "uds_path": CHANNEL_SOCKET}),
        Request("PUT", "/balloon", _balloon()),
        Request("PUT", "/entropy", {}),
    ]


def observe() -> list[Request]:
    """Where the VMM's log and metrics go: the only requests that may precede the loading of a snapshot."""
    logger = {"log_path": LOG, "level": "Info", "show_level": True, "show_log_origin": False}
    return [Request("PUT", "/logger", logger), Request("PUT", "/metrics", {"metrics_path": METRICS})]


def put_drive(number: int, disk: Disk, *, vhost_user: bool = False) -> Request:
    """Make a drive, or make it anew; before the start only."""
    body: dict[str, Any] = {"drive_id": drive_id(number), "is_root_device": False}
    if vhost_user:
        body["socket"] = disk_path(disk.serial)
    else:
        body |= {
            "path_on_host": disk_path(disk.serial), "is_read_only": disk.read_only,
            "cache_type": "Unsafe" if disk.read_only else "Writeback", "io_engine": "Sync",
        }  # fmt: skip
        if limiter := _limiter(disk.iops, disk.bytes_per_second):
            body["rate_limiter"] = limiter
    return Request("PUT", f"/drives/{drive_id(number)}", body)


def _interface(number: int, nic: Nic) -> Request:
    name = f"eth{number}"
    body = {"iface_id": name, "host_dev_name": nic.tap, "guest_mac": nic.mac, "mtu": nic.mtu}
    return Request("PUT", f"/network-interfaces/{name}", body)


def _balloon() -> dict[str, Any]:
    """It never inflates; it is there to report free pages. Statistics would wake the VMM on a timer."""
    return {
        "amount_mib": 0, "deflate_on_oom": True, "stats_polling_interval_s": 0,
        "free_page_hinting": False, "free_page_reporting": True,
    }  # fmt: skip


def _bucket(per_second: int) -> dict[str, int]:
    """Zeros switch a bucket off."""
    return {"size": per_second, "refill_time": BUCKET_MS if per_second else 0}


def _limiter(iops: int, bytes_per_second: int) -> dict[str, Any]:
    limits = {"ops": iops, "bandwidth": bytes_per_second}
    return {name: _bucket(limit) for name, limit in limits.items() if limit}


def swap_medium(number: int, disk: Disk) -> Request:
    """Open the drive's path anew: another file is there now. Replaces both limits, also by none."""
    limiter = {"ops": _bucket(disk.iops), "bandwidth": _bucket(disk.bytes_per_second)}
    body = {"drive_id": drive_id(number), "path_on_host": disk_path(disk.serial), "rate_limiter": limiter}
    return Request("PATCH", f"/drives/{drive_id(number)}", body)


def start() -> Request:
    return Request("PUT", "/actions", {"action_type": "InstanceStart"})


def pause() -> Request:
    return Request("PATCH", "/vm", {"state": "Paused"})


def resume() -> Request:
    return Request("PATCH", "/vm", {"state": "Resumed"})


def describe() -> Request:
    return Request("GET", "/")


def save() -> Request:
    """A whole snapshot; dirty pages are not tracked, so there are no differential ones."""
    return Request(
        "PUT", "/snapshot/create", {"snapshot_path": STATE, "mem_file_path": MEMORY, "snapshot_type": "Full"}
    )


def load(nics: Sequence[Nic]) -> Request:
    """The VM is paused afterwards. Its memory is mapped privately from the file, page by page as the guest needs it."""
    body: dict[str, Any] = {
        "snapshot_path": STATE,
        "mem_backend": {"backend_type": "File", "backend_path": MEMORY},
        "track_dirty_pages": False,
        "resume_vm": False,
        "vsock_override": {"uds_path": CHANNEL_SOCKET},
    }
    if nics:
        body["network_overrides"] = [
            {"iface_id": f"eth{number}", "host_dev_name": nic.tap} for number, nic in enumerate(nics)
        ]
    return Request("PUT", "/snapshot/load", body)

"""The Node object of this machine. Pure, except for `host`, which reads what the machine is."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cuboid
from cuboid.images.base import Image
from cuboid.kube.quantity import format_bytes
from cuboid.lib.clock import rfc3339
from cuboid.node.settings import NodeSettings

Raw = dict[str, Any]
IMAGES_LIMIT = 50  # Kubernetes' own: the largest ones
MIB = 1 << 20
STOPPED = ("NodeAgentStopped", "the node agent has ended; pods run on")
LOW_DISK = 0.05  # of the file system: then the node says DiskPressure


@dataclass(frozen=True)
class Host:
    name: str
    address: str
    port: int
    cpus: int
    memory_bytes: int
    disk_bytes: int
    disk_free: int
    kernel: str
    system: str
    machine_id: str
    boot_id: str
    runtime: str  # "qemu/tcg"


def host(name: str, address: str, port: int, state: Path, *, runtime: str, boot_id: str) -> Host:
    disk = shutil.disk_usage(state)
    return Host(
        name=name, address=address, port=port, cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), disk_bytes=disk.total,
        disk_free=disk.free, kernel=platform.release(), system=_system(), machine_id=_text("/etc/machine-id"),
        boot_id=boot_id, runtime=runtime,
    )  # fmt: skip


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _system() -> str:
    lines = dict(line.split("=", 1) for line in _text("/etc/os-release").splitlines() if "=" in line)
    return lines.get("PRETTY_NAME", "Linux").strip('"')


def build(
    host: Host, settings: NodeSettings, images: list[Image],
    *, now: float, previous: Raw | None = None, ready: bool = True,
) -> Raw:  # fmt: skip
    """`previous`: the object last written, for the conditions' transition times."""
    labels = {
        "kubernetes.io/hostname": host.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": _architecture(),
        "cuboid.dev/driver": host.runtime.partition("/")[0],
    }  # fmt: skip
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": host.name, "labels": labels},
        "status": {
            "capacity": _amounts(host, settings, 0), "conditions": _conditions(host, now, previous, ready),
            "allocatable": _amounts(host, settings, settings.reserved_mib * MIB),
            "addresses": [
                {"type": "InternalIP", "address": host.address}, {"type": "Hostname", "address": host.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": host.port}},
            "nodeInfo": _info(host), "images": _images(images),
        },
    }  # fmt: skip


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def _amounts(host: Host, settings: NodeSettings, reserved: int) -> Raw:
    return {
        "cpu": str(host.cpus), "memory": format_bytes(max(host.memory_bytes - reserved, 0)),
        "ephemeral-storage": format_bytes(host.disk_bytes), "pods": str(settings.max_pods),
    }  # fmt: skip


def _conditions(host: Host, now: float, previous: Raw | None, ready: bool) -> list[Raw]:
    before = {c["type"]: c for c in (previous or {}).get("status", {}).get("conditions", [])}
    full = host.disk_free < host.disk_bytes * LOW_DISK
    rows = [
        ("MemoryPressure", False, "KubeletHasSufficientMemory", "the host has enough memory"),
        ("DiskPressure", full, "KubeletHasDiskPressure" if full else "KubeletHasNoDiskPressure",
         f"{format_bytes(host.disk_free // MIB * MIB)} free"),
        ("PIDPressure", False, "KubeletHasSufficientPID", "each pod has a process table of its own"),
        ("Ready", ready, *(("KubeletReady", f"{host.runtime} runs pods") if ready else STOPPED)),
    ]  # fmt: skip
    result = []
    for kind, good, reason, message in rows:
        status = "True" if good else "False"
        same = before.get(kind, {}).get("status") == status
        since = before[kind]["lastTransitionTime"] if same else rfc3339(now)
        result.append(
            {
                "type": kind, "status": status, "reason": reason, "message": message,
                "lastHeartbeatTime": rfc3339(now), "lastTransitionTime": since,
            }
        )  # fmt: skip
    return result


def _info(host: Host) -> Raw:
    return {
        "machineID": host.machine_id, "systemUUID": host.machine_id, "bootID": host.boot_id,
        "kernelVersion": host.kernel, "osImage": host.system, "operatingSystem": "linux",
        "architecture": _architecture(), "containerRuntimeVersion": f"cuboid://{cuboid.__version__}",
        "kubeletVersion": f"v{cuboid.__version__}+{host.runtime.replace('/', '.')}", "kubeProxyVersion": "",
    }  # fmt: skip


def _images(images: list[Image]) -> list[Raw]:
    largest = sorted(images, key=lambda image: -image.device_bytes)[:IMAGES_LIMIT]
    return [{"names": list(image.names) or [image.id], "sizeBytes": image.device_bytes} for image in largest]

"""The driver contract: what the layers above may ask of any VMM.

Every call has a deadline of its own and is safe to repeat. A driver says what it cannot do in `capabilities()`; the
layer above never asks which driver it has. One suite, `tests/contract/test_vmm_contract.py`, runs against every driver.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Disk:
    """A block device of the VM. `serial` (≤ 20 bytes) is how the guest finds it: /sys/block/*/serial."""

    serial: str
    path: Path
    read_only: bool
    iops: int = 0  # operations per second, 0: no limit
    bytes_per_second: int = 0  # 0: no limit


@dataclass(frozen=True)
class Nic:
    """A network device on a tap that exists in the network namespace `VmSpec.netns`."""

    tap: str
    mac: str
    mtu: int = 1500


@dataclass(frozen=True)
class Boot:
    """What is booted. `cmdline` is added to what the driver needs itself."""

    kernel: Path
    initramfs: Path
    cmdline: str = ""


@dataclass(frozen=True)
class HostLimits:
    """Limits of the VMM process on the host (cgroup). Zero means no limit."""

    cpu_millis: int = 0  # 1000 is one core
    cpu_weight: int = 100  # cgroup v2 scale, 1 to 10000
    memory_mib: int = 0  # of the VMM process: guest memory and what the VMM needs itself
    pids: int = 256


@dataclass(frozen=True)
class VmSpec:
    """A virtual machine. `id` is unique on the host and for ever: 1 to 40 of [a-z0-9-]."""

    id: str
    boot: Boot
    vcpus: int
    memory_mib: int
    disks: tuple[Disk, ...] = ()
    nics: tuple[Nic, ...] = ()
    netns: Path | None = None  # the VMM runs in this network namespace; None: in an empty one of its own
    limits: HostLimits = field(default_factory=HostLimits)
    shared_memory: bool = False  # for vhost-user disks


class State(enum.StrEnum):
    CREATED = "created"  # the VMM process runs, the guest does not yet
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


class EndCause(enum.StrEnum):
    """Why a VM ended."""

    POWEROFF = "poweroff"  # the guest turned itself off
    PANIC = "panic"  # the guest's kernel or agent gave up: `detail` has the console's last lines
    KILLED = "killed"  # kill() was called
    VMM_DIED = "vmm-died"  # the VMM process ended without being asked
    HOST_OOM = "host-oom"  # the host's kernel killed the VMM for memory


@dataclass(frozen=True)
class Ended:
    cause: EndCause
    detail: str = ""


@dataclass(frozen=True)
class Capabilities:
    accel: str  # "kvm" or "tcg" ("none" for the fake)
    channel: str  # "virtio-serial" or "vsock"
    pause: bool = True
    snapshot: bool = False
    hotplug_disk: bool = False
    max_disks: int = 16
    min_memory_mib: int = 64
    overhead_mib: int = 0  # host memory that the VMM needs beside the guest's, for HostLimits.memory_mib
    rate_limits: bool = True


@dataclass(frozen=True)
class Probe:
    """What the driver can do on this host, found by booting a real kernel."""

    usable: bool
    accel: str
    reason: str  # one sentence: why this accelerator, or why the driver is not usable
    boot_seconds: float = 0.0


@dataclass(frozen=True)
class VmStats:
    cpu_seconds: float  # host CPU time of the VMM, all threads
    memory_bytes: int  # resident on the host
    anonymous_bytes: int  # of these, private to this VM


EndedHook = Callable[[Ended], None]


class Vm(Protocol):
    """A virtual machine that exists. All state needed to find it again is in `handle()`."""

    @property
    def id(self) -> str: ...

    @property
    def state(self) -> State: ...

    def handle(self) -> dict[str, Any]:
        """JSON-able; `Driver.recover` takes it, also after a restart of this process."""
        ...

    @property
    def channel_path(self) -> Path:
        """The Unix socket on which the guest agent's byte stream is found. It can be connected to again and again."""
        ...

    async def start(self) -> None: ...

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def attach_disk(self, disk: Disk) -> None:
        """UnsupportedError unless `Capabilities.hotplug_disk`."""
        ...

    async def detach_disk(self, serial: str) -> None: ...

    async def snapshot(self, folder: Path) -> None:
        """Memory and device state of a paused VM. UnsupportedError unless `Capabilities.snapshot`."""
        ...

    async def stats(self) -> VmStats: ...

    async def kill(self) -> None:
        """End it at once and remove all that the driver made for it (process, jail, cgroup, sockets). Idempotent."""
        ...

    async def wait(self) -> Ended:
        """Return when the VM has ended, within 0.5 s of its end. Everything it had on the host is removed by then."""
        ...

    def console_tail(self, limit: int = 4096) -> str:
        """The last bytes of the guest's console. Untrusted text."""
        ...


class Driver(Protocol):
    name: str

    async def probe(self) -> Probe:
        """Boots a real kernel with a short deadline; the answer is cached by host, VMM and kernel."""
        ...

    def capabilities(self) -> Capabilities: ...

    async def create(self, spec: VmSpec) -> Vm:
        """Make the VM ready to start. On failure nothing is left."""
        ...

    async def restore(self, spec: VmSpec, folder: Path) -> Vm:
        """A new VM from a snapshot, paused. UnsupportedError unless `Capabilities.snapshot`."""
        ...

    async def recover(self, handle: dict[str, Any]) -> Vm | None:
        """Find a VM again after a restart of this process; None (and nothing left) if it is gone."""
        ...

    async def leftovers(self, known: set[str]) -> list[str]:
        """Ids of what this driver has on the host that is not in `known`."""
        ...

    async def clean(self, vm_id: str) -> None:
        """Remove everything that the driver may have on the host for this id. Idempotent."""
        ...

    async def close(self) -> None:
        """Let go of all VMs without ending them: this process stops and they run on."""
        ...


Factory = Callable[[], Awaitable[Driver]]

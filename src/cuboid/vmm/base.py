"""The driver contract: what the layers above may ask of any VMM.

Every call has a deadline of its own and is safe to repeat. A driver says what it cannot do in `capabilities()`; the
layer above never asks which driver it has. One suite, `tests/contract/test_vmm_contract.py`, runs against every driver.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Disk:
    """A block device of the VM. `serial` (≤ 20 bytes) is how the guest finds it: /sys/block/*/serial.

    Without a path it is an empty slot: zeros until `Vm.attach_disk` fills it (`Capabilities.late_disks`).
    """

    serial: str
    path: Path | None
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
    oom_score: int = 0  # oom_score_adj of the VMM, -1000 to 1000: who goes first when the host's memory runs out


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
    shared_memory: bool = False  # for vhost-user disks; such a VM takes no snapshot
    template: bool = False  # made to be snapshotted: its memory is a file that the snapshot keeps and clones share


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
    late_disks: bool = False  # empty slots can be filled
    hotplug_disk: bool = False  # devices can be added to a VM that runs
    free_page_reporting: bool = False  # memory that the guest frees goes back to the host
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
    guest_bytes: int = 0  # of the private ones: pages of the guest
    translation_bytes: int = 0  # of the private ones: translated code (software emulation)


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
        """The Unix socket of the guest agent's channel. What it takes to get to the agent's bytes differs between
        drivers: `open_channel` does it."""
        ...

    async def open_channel(self) -> socket.socket:
        """A new connection to the guest agent's byte stream, again and again; the caller closes it.

        UnavailableError while nothing answers, DeadlineError, HostileError. A channel on which the guest takes part in
        the opening (vsock) gives none while it is paused; one on which it does not (virtio-serial) does.
        """
        ...

    async def start(self) -> None: ...

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def attach_disk(self, disk: Disk) -> None:
        """Fill the empty slot of this serial (paused or running), or add a device where the driver can.

        ConflictError if the slot is taken or the guest could write to a slot made read-only, NotFoundError if there is
        neither slot nor hot-plug. Which capacity the guest sees is told by the driver.
        """
        ...

    async def detach_disk(self, serial: str) -> None:
        """Empty the slot (the guest must have let go of it), or remove the device. Idempotent."""
        ...

    async def set_limits(self, limits: HostLimits) -> None:
        """Change the limits of the VMM process on the host."""
        ...

    async def snapshot(self, folder: Path) -> None:
        """Memory, device state and writable disks of a paused VM into `folder`: complete, or not there at all.

        Writable disks are copied (sparse; only those attached); read-only ones are not: `restore` is given them again.
        `folder/snapshot.json` says what it was made of and the digest of each file. A VM made as a template hands its
        memory file over and can only be killed then. UnsupportedError unless `Capabilities.snapshot`, or with a reason
        for this VM (vhost-user disks); ConflictError if it is not paused.
        """
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

    def snapshot_facts(self) -> dict[str, str]:
        """What a snapshot of this driver depends on besides the VmSpec: VMM and its version, accelerator, CPU, clock.
        JSON-able, known after `probe()`. A snapshot made under other facts is refused."""
        ...

    async def restore(self, spec: VmSpec, folder: Path) -> Vm:
        """A new VM from a snapshot, PAUSED: `resume()` lets it go on. Any number may be restored from one folder, which
        must stay while they live. Taps, disks and limits are those of `spec`; vCPUs, memory and the number and serials
        of disks and network devices must be the snapshot's. A copied writable disk is the caller's to hand back in.

        ConflictError with reason SnapshotIncompatible (another VMM, CPU, accelerator or shape; the sentence says which)
        or SnapshotCorrupt; NotFoundError. Nothing is left then. UnsupportedError unless `Capabilities.snapshot`.
        """
        ...

    async def verify(self, folder: Path) -> None:
        """Read a snapshot whole and compare it with its digests and this host. The errors of `restore`."""
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

"""One pod's things at hand: open connections and found resources. Nothing here needs to survive a restart."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from cuboid.guest.base import Guest
from cuboid.images.base import Image
from cuboid.kube.types import Container, Pod
from cuboid.lib.aio import TaskSet
from cuboid.lib.errors import NotFoundError, UnavailableError
from cuboid.net.base import Attachment
from cuboid.node import spec
from cuboid.node.boots import cold_reason
from cuboid.node.logs import Limits, LogPump
from cuboid.node.objects import PodFacts
from cuboid.node.receipt import Timeline
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox.plan import Role
from cuboid.node.sandbox.state import Sandbox
from cuboid.node.sizing import Size, size_of
from cuboid.node.steps.gate import BootSlot
from cuboid.node.steps.tools import Tools
from cuboid.node.warm.machines import WarmMachine
from cuboid.node.warm.shape import SPARE, Shape, shape_of
from cuboid.vmm.base import Boot, Vm

Submit = Callable[[ev.Event], Awaitable[None]]


def vm_id(uid: str, attempt: int) -> str:
    """Unique for ever: 1 to 40 of [a-z0-9-], from the pod's uid and the VM's attempt."""
    clean = "".join(c for c in uid.lower() if c.isascii() and c.isalnum())[:32]
    return f"{clean}-{attempt}"


@dataclass
class PodWork:
    tools: Tools
    pod: Pod
    folder: Path  # of the pod's record and logs
    post: Callable[[ev.Event], None]  # hand an event to the pod's queue
    submit: Submit  # the same; returns when it is durable, UnavailableError if it will not be
    state: Callable[[], Sandbox]
    remember: Callable[[Vm, int, str], Awaitable[None]]  # make the VM's handle durable, its attempt and how it came up
    intend: Callable[[str], Awaitable[None]]  # put on record which prepared network is about to be the pod's
    handle: Callable[[], dict[str, Any]]  # of the VM on record, with `attempt` and `start`; empty: none
    last_status: Callable[[], Awaitable[None]]  # write the status and wait for it
    tasks: TaskSet
    timeline: Timeline
    vm: Vm | None = None
    warm: WarmMachine | None = None  # taken for this pod, its VM not yet watched and on record as the pod's
    fresh: int = -1  # attempt of a VM that nobody has spoken with yet
    guest: Guest | None = None
    attachment: Attachment | None = None
    images: dict[str, Image] = field(default_factory=dict)
    pumps: dict[str, LogPump] = field(default_factory=dict)
    pump_tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    boot_id: str = ""  # of the guest
    slot: BootSlot | None = None
    counted_start: int = -1  # attempt whose start is in the metrics
    image_lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid

    @property
    def network_id(self) -> str:
        """Under which the network knows the pod."""
        return self.state().network_id or self.uid

    @property
    def start(self) -> str:
        """How the pod's machine came up: cold, restored or warm."""
        return str(self.handle().get("start", "cold"))

    def vm_ids(self, attempt: int) -> set[str]:
        """All ids that the VM of this attempt may have on the host: its own, and that of a machine made ahead."""
        handle = self.handle()
        known = {str(handle["id"])} if handle.get("attempt") == attempt else set()
        return known | {vm_id(self.uid, attempt)}

    @property
    def boot(self) -> Boot:
        return self.tools.boots.of(self.pod)

    @property
    def shape(self) -> Shape | None:
        """What the pod's machine can be restored from; None if it has to boot. Errors as of `size` and `boot`."""
        if cold_reason(self.pod):
            return None
        size, containers = self.size, [*self.pod.spec.init_containers, *self.pod.spec.containers]
        return shape_of(
            self.boot, vcpus=size.vcpus, memory_mib=size.memory_mib,
            images=len({c.image for c in containers}) + SPARE,
            writable=1 + len(spec.named_volumes(self.pod)),
        )  # fmt: skip

    @property
    def now(self) -> float:
        return self.tools.clock.now()

    def container(self, name: str) -> Container:
        spec = self.given.spec
        found = [c for c in [*spec.init_containers, *spec.containers, *spec.ephemeral_containers] if c.name == name]
        if not found:
            raise NotFoundError(f"the pod has no container {name!r}")
        return found[0]

    @property
    def given(self) -> Pod:
        """The pod with the resources that it has been given: not those that its machine cannot give it now."""
        given = {c.name: c.resources for c in self.state().plan.containers}

        def as_given(container: Container) -> Container:
            return replace(container, resources=given.get(container.name) or container.resources)

        spec = self.pod.spec
        kinds = {kind: [as_given(c) for c in getattr(spec, kind)] for kind in ("init_containers", "containers")}
        return replace(self.pod, spec=replace(spec, **kinds))

    @property
    def size(self) -> Size:
        """Of the machine that the pod has, or will have when it has none."""
        size, handle = self.size_of(self.given), self.handle()
        if handle.get("attempt") == self.state().machine.attempt and "size" in handle:
            vcpus, memory = handle["size"]
            return dataclasses.replace(size, vcpus=int(vcpus), memory_mib=int(memory))
        return size

    def size_of(self, pod: Pod) -> Size:
        guest = self.tools.boots.guest(self.pod)
        least = max(self.tools.driver.capabilities().min_memory_mib, guest.min_memory_mib)
        return size_of(
            pod, self.tools.settings, host_cpus=self.tools.cpus, overhead_mib=guest.overhead_mib,
            min_memory_mib=least,
        )  # fmt: skip

    @property
    def facts(self) -> PodFacts:
        size, ips = self.size, self.state().ips
        return PodFacts(
            node_name=self.tools.node, host_ip=self.tools.host_ip, pod_ips=ips,
            hostname=spec.hostname(self.pod), cpu_millis=size.vcpus * 1000, memory_bytes=size.memory_bytes,
            ephemeral_bytes=size.disk_bytes,
        )  # fmt: skip

    def require_guest(self) -> Guest:
        if self.guest is None or not self.guest.connected:
            raise UnavailableError(f"the machine of pod {self.pod.metadata.name} is not up")
        return self.guest

    def require_attachment(self) -> Attachment:
        """The one of this run of the node agent, or the one on record."""
        if self.attachment is None:
            self.attachment = self.tools.network.attachment(self.network_id)
        if self.attachment is None:
            raise NotFoundError("the pod's network attachment is gone")
        return self.attachment

    async def require_images(self) -> dict[str, Image]:
        """Images by container, as far as they have been pulled; after a restart those that the state names."""
        runs = [run for run in self.state().runs if run.image_id or run.name in self.images]
        for run in runs:
            if run.name not in self.images:
                found = await self.tools.images.resolve(run.image_id)
                if found is None:
                    raise NotFoundError(f"the image of container {run.name} is no longer on this host")
                self.images[run.name] = found
        return {run.name: self.images[run.name] for run in runs}

    async def machine_images(self) -> dict[str, Image]:
        """Those that the pod's machine has from its start: not of ephemeral containers."""
        late = {c.name for c in self.state().plan.containers if c.role is Role.DEBUG}
        return {name: image for name, image in (await self.require_images()).items() if name not in late}

    def log_folder(self, container: str) -> Path:
        return self.folder / "logs" / container

    def pump(self, container: str) -> LogPump:
        """The container's log pump, made if there is none for this boot of the guest."""
        if container not in self.pumps:
            folder = self.log_folder(container)
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            settings = self.tools.settings
            limits = Limits(settings.log_mib << 20, settings.log_files)
            self.pumps[container] = LogPump(self._connected(), container, folder, limits, boot=self.boot_id)
        return self.pumps[container]

    def _connected(self) -> Guest:
        assert self.guest is not None, "logs are asked for before the guest is connected"
        return self.guest

    def start_pump(self, container: str) -> None:
        pump = self.pump(container)
        if container not in self.pump_tasks:
            self.pump_tasks[container] = self.tasks.start(pump.run(), name=f"logs/{self.uid}/{container}")

    async def close_pumps(self) -> None:
        for task in self.pump_tasks.values():
            task.cancel()
        if self.pump_tasks:
            await asyncio.wait(self.pump_tasks.values(), timeout=self.tools.settings.drain_seconds)
        for pump in self.pumps.values():
            await pump.close()
        self.pump_tasks.clear()
        self.pumps.clear()

    async def close_guest(self) -> None:
        self.tools.refresher.forget(self.uid)
        await self.close_pumps()
        guest, self.guest = self.guest, None
        if guest is not None:
            await guest.close()

    async def drop_warm(self) -> None:
        """End a machine that was taken and never used. Its network is the pod's by now."""
        if self.warm is not None:
            await self.tools.warm.discard(self.warm, keep_network=True)
            self.warm = None

    def leave_gate(self) -> None:
        slot, self.slot = self.slot, None
        if slot is not None:
            slot.leave()

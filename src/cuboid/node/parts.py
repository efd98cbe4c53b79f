"""The node agent's parts on this host, chosen and made: driver, network, disks, images; and how all of it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path

from cuboid.guest.assets import GENERAL, GuestAssets, guest_assets
from cuboid.guest.base import EventHook, Guest
from cuboid.guest.client import AgentClient
from cuboid.images.base import ImageStore
from cuboid.images.settings import ImageSettings
from cuboid.images.store import LocalImageStore
from cuboid.kube.names import dns_service_ip
from cuboid.kube.types import pod as parse_pod
from cuboid.lib.aio import TaskSet
from cuboid.lib.clock import Clock
from cuboid.lib.errors import CuboidError, InvalidError, UnsupportedError
from cuboid.lib.log import get_log
from cuboid.lib.paths import Paths
from cuboid.lib.settings import load
from cuboid.net.base import Network
from cuboid.net.network import CniNetwork
from cuboid.net.services import ServiceRules
from cuboid.net.settings import NetSettings
from cuboid.node.boots import Boots, GuestBoot
from cuboid.node.metrics import NodeMetrics
from cuboid.node.records import Records
from cuboid.node.recover import TAKEN_DOWN
from cuboid.node.settings import NodeSettings
from cuboid.node.sizing import size_of
from cuboid.node.spec import ClusterDns
from cuboid.node.steps.gate import BootGate
from cuboid.node.warm.machines import Bounds, WarmMachines
from cuboid.node.warm.shape import SPARE, Shape
from cuboid.node.warm.templates import Templates
from cuboid.storage.base import Disks
from cuboid.storage.disks import LocalDisks
from cuboid.storage.settings import StorageSettings
from cuboid.vmm.base import Boot, Driver, Vm
from cuboid.vmm.settings import VmmSettings

log = get_log(__name__)
DRIVERS = ("firecracker", "qemu")  # in the order in which `auto` tries them
WARM_MIB = 64  # host memory of a machine that waits, about (docs/design/0012)


def boots(settings: NodeSettings) -> Boots:
    """The kernels and initramfs that pods boot. UnsupportedError if they are not built."""
    try:
        general = _guest_boot(guest_assets(kind=GENERAL), settings)
    except UnsupportedError:
        general = None
    if settings.kernel and settings.initramfs:
        own = Boot(Path(settings.kernel), Path(settings.initramfs), settings.cmdline)
        needs = general or _guest_boot(guest_assets(), settings)
        return Boots(GuestBoot("own", own, own, needs.overhead_mib, needs.min_memory_mib), general)
    if settings.kernel or settings.initramfs:
        raise InvalidError("[node] kernel and initramfs go together", hint="set both of them, or none")
    return Boots(_guest_boot(guest_assets(kind=settings.guest), settings), general)


def _guest_boot(assets: GuestAssets, settings: NodeSettings) -> GuestBoot:
    whole, small = (Boot(assets.kernel, path, settings.cmdline) for path in (assets.initramfs, assets.small))
    return GuestBoot(assets.kind, whole, small, assets.overhead_mib, assets.min_memory_mib)


async def driver(paths: Paths, settings: NodeSettings) -> Driver:
    """The driver that this host can use, found by booting a kernel. UnsupportedError says why there is none."""
    reasons = []
    for made in drivers(paths, settings):
        answer = await made.probe()
        if answer.usable:
            log.info("driver chosen", driver=made.name, accel=answer.accel, reason=answer.reason)
            return made
        reasons.append(answer.reason)
    raise UnsupportedError(f"no VM can run on this host: {'; '.join(reasons)}", hint="cuboid doctor")


def drivers(paths: Paths, settings: NodeSettings) -> list[Driver]:
    """Those to try, the best first; none has been probed."""
    if settings.driver == "fake":
        return [fake_driver(paths)]
    names = DRIVERS if settings.driver == "auto" else (settings.driver,)
    if not set(names) <= set(DRIVERS):
        raise InvalidError(f"[node] driver is {settings.driver!r}", hint=f"one of auto, {', '.join(DRIVERS)}, fake")
    return [_real_driver(name, paths, settings) for name in names]


def _real_driver(name: str, paths: Paths, settings: NodeSettings) -> Driver:
    kernel, vmm = boots(settings).ordinary.whole.kernel, load(VmmSettings, "vmm")
    if name == "firecracker":
        from cuboid.vmm.firecracker.driver import FirecrackerDriver

        return FirecrackerDriver(paths.run, paths.state, vmm, kernel=kernel)
    from cuboid.vmm.qemu.driver import QemuDriver

    return QemuDriver(paths.run, paths.state, vmm, kernel=kernel)


def fake_driver(paths: Paths) -> Driver:
    """VMs without a VMM, scripted guests in them: for measuring the agent itself."""
    from cuboid.guest.fake import FakeAgent
    from cuboid.vmm.fake import FakeDriver

    tasks = TaskSet("fake-guests")

    async def boot_agent(path: Path) -> Callable[[], Awaitable[None]]:
        agent = FakeAgent(path)
        await agent.__aenter__()

        async def power_off() -> None:
            await agent.shut_down.wait()
            if path.stem in made.host.machines:
                await made.guest_power_off(path.stem)

        watching = tasks.start(power_off(), name=path.stem)

        async def stop() -> None:
            if watching is not asyncio.current_task():
                watching.cancel()
            await agent.__aexit__()

        return stop

    made = FakeDriver(paths.run / "vm", agent=boot_agent)
    return made


def network(paths: Paths) -> CniNetwork:
    return CniNetwork(paths.state, paths.run, load(NetSettings, "net"))


def cluster_dns(settings: NodeSettings) -> ClusterDns | None:
    """The resolver of pods that want the cluster's, None where there is none."""
    server = settings.cluster_dns
    if server == "auto":
        server = dns_service_ip(load(NetSettings, "net").service_subnet)
    return ClusterDns(server, settings.cluster_domain) if server else None


def disks(paths: Paths) -> Disks:
    return LocalDisks(paths.state, load(StorageSettings, "storage"))


def images(paths: Paths) -> ImageStore:
    return LocalImageStore(paths.state / "images", settings=load(ImageSettings, "images"))


def guest(vm: Vm, on_event: EventHook, *, on_final: Callable[[CuboidError], None]) -> Guest:
    return AgentClient(vm.open_channel, on_event, on_final=on_final, name=vm.id)


def templates(paths: Paths, settings: NodeSettings, driver: Driver, gate: BootGate, clock: Clock) -> Templates:
    return Templates(
        paths.state / "templates", driver, guest, gate, clock, boot_seconds=settings.boot_seconds,
        keep=settings.templates,
    )  # fmt: skip


def warm(
    paths: Paths, settings: NodeSettings, known: Templates, driver: Driver, pods: Network, volumes: Disks,
    gate: BootGate, metrics: NodeMetrics, clock: Clock,
) -> WarmMachines:  # fmt: skip
    bounds = Bounds(settings.warm_min, settings.warm_max, settings.warm_percent, machine_mib=WARM_MIB)
    return WarmMachines(
        known, driver, pods, volumes, guest, gate, clock, bounds=bounds, image=paths.state / "templates.image",
        boot_seconds=settings.boot_seconds, told=metrics.warm,
    )  # fmt: skip


def ordinary_shape(settings: NodeSettings, guest: GuestBoot, driver: Driver) -> Shape:
    """Of a pod with one container that asks for nothing."""
    plain = parse_pod({"metadata": {"name": "plain"}, "spec": {"containers": [{"name": "plain", "image": "plain"}]}})
    size = size_of(
        plain, settings, host_cpus=os.cpu_count() or 1, overhead_mib=guest.overhead_mib,
        min_memory_mib=max(driver.capabilities().min_memory_mib, guest.min_memory_mib),
    )  # fmt: skip
    return Shape(guest.small, size.vcpus, size.memory_mib, read_only=1 + SPARE)


async def clean_host(paths: Paths, settings: NodeSettings) -> None:
    """End every VM and network; records, disks and images stay, so that pods start again by their policy."""
    records = Records(paths.make().state)
    for uid, record in records.load().items():
        record.boot_id, record.handle = TAKEN_DOWN, None
        records.save(uid, record)
    for machines in drivers(paths, settings):
        for vm_id in await machines.leftovers(set()):
            await machines.clean(vm_id)
    pods = network(paths)
    await pods.clean(set())
    await pods.remove_host_rules()
    await ServiceRules(load(NetSettings, "net")).remove()


def raise_file_limit(wanted: int) -> None:
    """As far as the host lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if limit < wanted:
        log.info("open files are limited by the host", limit=limit)

"""The pod's VM: made, booted, set up, ended."""

from __future__ import annotations

import asyncio
import os

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import Guest
from cuboid.kube.types import nfs_volume
from cuboid.lib.aio import within
from cuboid.lib.errors import CuboidError, DeadlineError, InvalidError, NotFoundError, UnsupportedError
from cuboid.lib.log import get_log
from cuboid.node import spec
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.steps import guest_events
from cuboid.node.steps.host import acquire, text
from cuboid.node.steps.work import PodWork, vm_id
from cuboid.node.volumes import VolumeError, is_files_volume, volume_files
from cuboid.storage import nfs
from cuboid.vmm.base import EndCause, Ended, HostLimits, Nic, State, Vm, VmSpec

log = get_log(__name__)
ENTROPY = 32  # bytes
PIDS = 256
REASONS = {
    EndCause.POWEROFF: "GuestPoweredOff", EndCause.PANIC: "GuestPanic", EndCause.KILLED: "VMMDied",
    EndCause.VMM_DIED: "VMMDied", EndCause.HOST_OOM: "HostOutOfMemory",
}  # fmt: skip
DETAIL_LIMIT = 1024  # characters of a console's end in a status
SHUTDOWN_SECONDS = 15.0  # for a guest to write its disks; under emulation it is slow
HASTY_SECONDS = 1.0  # for the logs of a VM that is ended without grace


async def create_vm(work: PodWork, order: do.CreateVm) -> ev.Event:
    """Wait for a slot, make the VM, put its handle on record, start it."""
    work.slot = await work.tools.gate.enter()
    try:
        with work.timeline.phase("vmm"):
            vm = await work.tools.driver.create(await _spec(work, order.attempt))
            await work.remember(vm)
            watch(work, vm, order.attempt)
            await vm.start()
    except (CuboidError, OSError) as error:
        work.leave_gate()
        fatal = isinstance(error, InvalidError | UnsupportedError) and not isinstance(error, NotFoundError)
        reason = getattr(error, "reason", "VMFailed")
        return ev.VmFailed(at=work.now, attempt=order.attempt, reason=reason, message=text(error), fatal=fatal)
    return ev.VmCreated(at=work.now, attempt=order.attempt)


async def _spec(work: PodWork, attempt: int) -> VmSpec:
    tools, attachment, size = work.tools, work.require_attachment(), work.size
    images = await work.require_images()
    writable = await tools.disks.create_writable(work.uid, size.disk_bytes)
    volumes = {use.volume: await acquire(work, use) for use in spec.named_volumes(work.pod)}
    boot = tools.boot if spec.needs_all_modules(work.pod) else tools.small_boot
    return VmSpec(
        id=vm_id(work.uid, attempt), boot=boot, vcpus=size.vcpus, memory_mib=size.memory_mib,
        disks=spec.disks(spec.devices(work.pod, images), images, writable, volumes),
        nics=(Nic(attachment.tap, attachment.mac, attachment.mtu),), netns=attachment.netns,
        limits=HostLimits(
            cpu_millis=size.vcpus * 1000, pids=PIDS,
            memory_mib=size.memory_mib + tools.driver.capabilities().overhead_mib,
        ),
    )  # fmt: skip


def watch(work: PodWork, vm: Vm, attempt: int) -> None:
    """Tell the pod when its VM has ended."""
    work.vm = vm
    work.tasks.start(_watch(work, vm, attempt), name=f"vm/{vm.id}")


async def _watch(work: PodWork, vm: Vm, attempt: int) -> None:
    ended = await vm.wait()
    work.leave_gate()
    work.post(vm_ended(work, ended, attempt))


def vm_ended(work: PodWork, ended: Ended, attempt: int) -> ev.VmEnded:
    return ev.VmEnded(
        at=work.now, attempt=attempt, cause=REASONS[ended.cause], detail=ended.detail.strip()[-DETAIL_LIMIT:]
    )


# --- set-up ----------------------------------------------------------------------------------------------------------


async def set_up(work: PodWork, order: do.Setup) -> ev.Event:
    """Connect; set up unless that was done before a restart of ours; follow logs and volumes."""
    try:
        guest = await _connect(work, order.attempt)
        known = await guest.list()
        if not known.set_up:
            known = await _set_up(work, guest)
    except (CuboidError, OSError) as error:
        again = isinstance(error, VolumeError)
        fatal = isinstance(error, UnsupportedError)
        reason = "GuestNotReady" if isinstance(error, DeadlineError) else getattr(error, "reason", "SetupFailed")
        return ev.SetupFailed(
            at=work.now, attempt=order.attempt, reason=reason, message=_with_console(work, error), fatal=fatal,
            again=again,
        )  # fmt: skip
    finally:
        work.leave_gate()
    for container in known.containers:
        work.start_pump(container.name)
    return ev.SetupDone(
        at=work.now, attempt=order.attempt, found=tuple(guest_events.found(c, work.now) for c in known.containers)
    )


def _with_console(work: PodWork, error: BaseException) -> str:
    tail = work.vm.console_tail(DETAIL_LIMIT).strip() if work.vm else ""
    lines = [line for line in "".join(c if c.isprintable() else "\n" for c in tail).splitlines() if line.strip()]
    return f"{text(error)}; console: {lines[-1]}" if lines else text(error)


async def _connect(work: PodWork, attempt: int) -> Guest:
    if work.vm is None:
        raise NotFoundError("the pod's VM is gone")
    if work.guest is None:
        work.guest = work.tools.guest(
            work.vm.channel_path, guest_events.hook(work), on_final=lambda error: _cut_off(work, attempt, error)
        )
    with work.timeline.phase("kernel"):
        ack = await work.guest.connect(timeout=work.tools.settings.boot_seconds)
    if ack.boot_id != work.boot_id:
        await work.close_pumps()
        work.boot_id = ack.boot_id
    return work.guest


def _cut_off(work: PodWork, attempt: int, error: CuboidError) -> None:
    """A guest that broke the rules of its channel is not spoken with again: its VM ends."""
    event = ev.VmEnded(at=work.now, attempt=attempt, cause="HostileGuest", detail=text(error)[:DETAIL_LIMIT])
    work.post(event)


async def _set_up(work: PodWork, guest: Guest) -> pb.State:
    with work.timeline.phase("setup"):
        files = await read_files(work)
        attachment, images = work.require_attachment(), await work.require_images()
        call = spec.setup(
            work.pod, attachment, spec.devices(work.pod, images), files, now=work.now, entropy=os.urandom(ENTROPY),
            mounts=await _nfs_mounts(work, attachment.ip),
        )  # fmt: skip
        await guest.setup(call, timeout=work.tools.settings.call_seconds)
    work.tools.refresher.track(work.pod, guest, work.facts, files)
    return await guest.list()


async def read_files(work: PodWork) -> dict[str, list[pb.File]]:
    """The content of configMap-like volumes, by volume name."""
    return {
        volume.name: await volume_files(work.pod, volume, work.tools.objects, work.facts)
        for volume in work.pod.spec.volumes
        if is_files_volume(volume)
    }


async def _nfs_mounts(work: PodWork, ip: str) -> dict[str, pb.NfsVolume]:
    mounts = {}
    for volume in work.pod.spec.volumes:
        if (given := nfs_volume(volume)) is None:
            continue
        source = nfs.parse_source(*given)
        mount = nfs.guest_mount(source, await nfs.resolve(source.server), ip)
        mounts[volume.name] = pb.NfsVolume(
            server=mount.server, path=mount.path, read_only=mount.read_only, options=mount.options, fs_type=mount.kind
        )
    return mounts


# --- end -------------------------------------------------------------------------------------------------------------


async def kill_vm(work: PodWork, order: do.KillVm) -> ev.Event:
    """Logs to the host first, then the VM with all it has; also one of which only the id is known."""
    await _part(work, clean=order.clean)
    await work.close_guest()
    vm, work.vm = work.vm, None
    if vm is not None:
        await vm.kill()
    await work.tools.driver.clean(vm_id(work.uid, order.attempt))
    work.leave_gate()
    return ev.VmGone(at=work.now, attempt=order.attempt)


async def _part(work: PodWork, *, clean: bool) -> None:
    """What should be done before the end, as far as guest and time allow."""
    guest = work.guest
    if guest is None or not guest.connected or (work.vm is not None and work.vm.state is State.ENDED):
        return
    seconds = work.tools.settings.drain_seconds if clean else HASTY_SECONDS
    try:
        await within(seconds, drain(work, guest), "reading the last of the logs")
        if clean:
            await guest.shutdown()
            await within(SHUTDOWN_SECONDS, _ended(work), "powering off")
    except (CuboidError, OSError) as error:
        log.info("VM is ended without all of its goodbyes", pod=work.pod.metadata.name, error=text(error))


async def drain(work: PodWork, guest: Guest) -> None:
    """Wait until all that the guest has of logs is on the host."""
    known = await guest.list()
    waits = [
        work.pumps[c.name].wait_for(c.log_end_offset, timeout=work.tools.settings.drain_seconds)
        for c in known.containers
        if c.name in work.pump_tasks and not work.pump_tasks[c.name].done()
    ]
    await asyncio.gather(*waits)


async def _ended(work: PodWork) -> None:
    if work.vm is not None:
        await work.vm.wait()

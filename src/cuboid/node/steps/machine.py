"""The pod's VM: made, booted, set up, ended."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from dataclasses import replace

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import Guest
from cuboid.kube.types import nfs_volume
from cuboid.lib.aio import within
from cuboid.lib.errors import CuboidError, DeadlineError, InvalidError, NotFoundError, UnsupportedError
from cuboid.lib.log import get_log
from cuboid.node import spec
from cuboid.node.boots import cold_reason
from cuboid.node.limits import disk_limits
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.steps import guest_events
from cuboid.node.steps.confine import start_limits
from cuboid.node.steps.gate import Start
from cuboid.node.steps.host import acquire, text
from cuboid.node.steps.work import PodWork, vm_id
from cuboid.node.volumes import VolumeError, is_files_volume, volume_files
from cuboid.node.warm.machines import WarmMachine
from cuboid.node.warm.shape import MTU
from cuboid.storage import nfs
from cuboid.vmm.base import Disk, EndCause, Ended, Nic, State, Vm, VmSpec

log = get_log(__name__)
ENTROPY = 32  # bytes
REASONS = {
    EndCause.POWEROFF: "GuestPoweredOff", EndCause.PANIC: "GuestPanic", EndCause.KILLED: "VMMDied",
    EndCause.VMM_DIED: "VMMDied", EndCause.HOST_OOM: "HostOutOfMemory",
}  # fmt: skip
DETAIL_LIMIT = 1024  # characters of a console's end in a status
SHUTDOWN_SECONDS = 15.0  # for a guest to write its disks; under emulation it is slow
HASTY_SECONDS = 1.0  # for the logs of a VM that is ended without grace


async def create_vm(work: PodWork, order: do.CreateVm) -> ev.Event:
    """Wait for a slot, get a VM, put its handle on record, let it run."""
    work.slot = await work.tools.gate.enter(_kind(work))
    try:
        with work.timeline.phase("vmm"):
            vm, start = await _machine(work, order.attempt)
            await work.remember(vm, order.attempt, start)
            work.fresh = order.attempt
            watch(work, vm, order.attempt)
            work.warm = None
            await (vm.start() if vm.state is State.CREATED else vm.resume())
            if start == "warm" and work.guest is not None:
                work.guest.hold(False)
            if work.guest is not None:
                work.guest.hold(False)
    except (CuboidError, OSError) as error:
        work.leave_gate()
        fatal = isinstance(error, InvalidError | UnsupportedError) and not isinstance(error, NotFoundError)
        reason = getattr(error, "reason", "VMFailed")
        return ev.VmFailed(at=work.now, attempt=order.attempt, reason=reason, message=text(error), fatal=fatal)
    return ev.VmCreated(at=work.now, attempt=order.attempt)


def _kind(work: PodWork) -> Start:
    if work.warm is not None:
        return Start.QUICK
    return Start.OWN if cold_reason(work.pod) else Start.BOOT


async def _machine(work: PodWork, attempt: int) -> tuple[Vm, str]:
    """The quickest that can be had, not running yet, and how it came up: warm, restored or cold."""
    if work.warm is not None:
        try:
            await _adopt(work, work.warm)
        except (CuboidError, OSError) as error:
            work.timeline.note(f"the waiting machine could not be used: {text(error)}")
            await work.drop_warm()
        else:
            return work.warm.vm, "warm"
    wanted, shape = await _spec(work, attempt), work.shape
    folder = work.tools.templates.find(shape) if shape is not None and wanted.nics[0].mtu <= MTU else None
    if shape is not None and folder is not None:
        try:
            return await work.tools.driver.restore(
                replace(wanted, disks=shape.filled(wanted.disks)), folder
            ), "restored"
        except (CuboidError, OSError) as error:
            work.timeline.note(f"the template could not be restored: {text(error)}")
            work.tools.templates.restore_failed(shape, error)
    if reason := cold_reason(work.pod):
        work.timeline.note(reason)
    return await work.tools.driver.create(wanted), "cold"


async def _adopt(work: PodWork, machine: WarmMachine) -> None:
    """The pod's disks and limits for a machine that waits, and the pod's ear for its guest."""
    work.timeline.note("the machine was made ahead")
    for disk in [disk for disk in await _disks(work) if disk.path is not None]:
        await machine.vm.attach_disk(disk)
    await machine.vm.set_limits(start_limits(work))
    attempt = work.state().machine.attempt
    machine.relay.connect(guest_events.hook(work), lambda error: _cut_off(work, attempt, error))
    work.guest = machine.guest


async def _spec(work: PodWork, attempt: int) -> VmSpec:
    attachment, size = work.require_attachment(), work.size
    return VmSpec(
        id=vm_id(work.uid, attempt), boot=work.boot, vcpus=size.vcpus, memory_mib=size.memory_mib,
        disks=await _disks(work), nics=(Nic(attachment.tap, attachment.mac, attachment.mtu),),
        netns=attachment.netns, limits=start_limits(work),
    )  # fmt: skip


async def _disks(work: PodWork) -> tuple[Disk, ...]:
    images = await work.machine_images()
    writable = await work.tools.disks.create_writable(work.uid, work.size.disk_bytes)
    volumes = {use.volume: await acquire(work, use) for use in spec.named_volumes(work.pod)}
    limits = disk_limits(work.pod)
    found = spec.devices(work.pod, images)
    own = tuple(limits.on(disk) for disk in spec.disks(found, images, writable, volumes))
    can = work.tools.driver.capabilities()
    if can.late_disks and len(own) < can.max_disks:  # the slot for the image of an ephemeral container
        return (*own, Disk(found.spare, None, read_only=True))
    return own


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
        fresh, work.fresh = work.fresh == order.attempt, -1
        known = pb.State() if fresh else await guest.list()
        if known.set_up:  # volumes may have changed while nobody pushed them: after a restart of ours, or a pause
            work.tools.refresher.track(work.pod, guest, work.facts)
        else:
            await _set_up(work, guest)
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
            work.vm, guest_events.hook(work), on_final=lambda error: _cut_off(work, attempt, error)
        )
    with work.timeline.phase("kernel" if work.start == "cold" else "agent"):
        ack = await work.guest.connect(timeout=work.tools.settings.boot_seconds)
    if ack.boot_id:  # none on a connection that is older than the guest's Setup, as it is after a pause
        await _is_boot(work, ack.boot_id)
    return work.guest


async def _is_boot(work: PodWork, boot_id: str) -> None:
    """Logs of an earlier boot of the pod's machine are not gone on with."""
    if boot_id != work.boot_id:
        await work.close_pumps()
        work.boot_id = boot_id


def _cut_off(work: PodWork, attempt: int, error: CuboidError) -> None:
    """A guest that broke the rules of its channel is not spoken with again: its VM ends."""
    event = ev.VmEnded(at=work.now, attempt=attempt, cause="HostileGuest", detail=text(error)[:DETAIL_LIMIT])
    work.post(event)


async def _set_up(work: PodWork, guest: Guest) -> None:
    with work.timeline.phase("setup"):
        files = await read_files(work)
        attachment, images = work.require_attachment(), await work.machine_images()
        call = spec.setup(
            work.pod, attachment, spec.devices(work.pod, images), files, now=work.now, entropy=os.urandom(ENTROPY),
            mounts=await _nfs_mounts(work, attachment.ip), restored=work.start != "cold",
            machine_id=machine_id(work.uid), boot_id=str(uuid.uuid4()), dns=work.tools.dns,
        )  # fmt: skip
        done = await guest.setup(call, timeout=work.tools.settings.call_seconds)
        work.timeline.inside("setup", done.phases_ns)
        await _is_boot(work, done.boot_id)
    work.tools.refresher.track(work.pod, guest, work.facts, files)


def machine_id(uid: str) -> str:
    """The same in every machine of the pod, and in no other: 32 hexadecimal digits (machine-id(5))."""
    return hashlib.sha256(f"cuboid machine-id {uid}".encode()).hexdigest()[:32]


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
    await work.drop_warm()
    for known in sorted(work.vm_ids(order.attempt)):
        await work.tools.driver.clean(known)
    work.leave_gate()
    return ev.VmGone(at=work.now, attempt=order.attempt)


async def _part(work: PodWork, *, clean: bool) -> None:
    """What should be done before the end, as far as guest and time allow."""
    guest = work.guest
    if guest is None or not guest.connected or (work.vm is not None and work.vm.state is not State.RUNNING):
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

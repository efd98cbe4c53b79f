"""After a start of the node agent: every pod on record is found again, everything that belongs to none is removed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Set
from pathlib import Path

from cuboid.lib.aio import gather_all, within
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log
from cuboid.node.records import Record
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox.state import VmStage
from cuboid.node.steps import machine
from cuboid.node.steps.tools import Tools
from cuboid.node.worker import PodWorker
from cuboid.vmm.base import State, Vm

log = get_log(__name__)
RECOVER_SECONDS = 10.0
CLEAN_SECONDS = 120.0
TAKEN_DOWN = "down"
"""In a record's place of the host's boot id: its VM was ended on purpose, with the whole platform."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def host_boot_id() -> str:
    return BOOT_ID.read_text().strip()


async def recover(tools: Tools, worker: PodWorker, record: Record, *, boot_id: str, networks: Set[str]) -> None:
    """Find what the pod has on the host and tell it. `networks`: ids of those that pods on record have."""
    rebooted, down = record.boot_id != boot_id, record.boot_id == TAKEN_DOWN
    record.boot_id = boot_id
    vm = None if rebooted else await _vm(tools, record)
    if record.slot not in networks:
        await _let_go(tools, record.slot)
    network = await _network(tools, worker, rebooted)
    if vm is not None and record.sandbox.machine.stage in (VmStage.CREATING, VmStage.SETTING_UP, VmStage.UP):
        machine.watch(worker.work, vm, record.sandbox.machine.attempt)
    worker.work.vm = vm
    worker.work.timeline.note("the node agent was started again during this start")
    worker.post(
        ev.Recovered(
            at=tools.clock.now(),
            network=network,
            disk=worker.uid in tools.disks.writable_pods(),
            vm=vm is not None,
            vm_frozen=vm is not None and vm.state in (State.CREATED, State.PAUSED),
            rebooted=rebooted,
            taken_down=down,
        )
    )


async def _vm(tools: Tools, record: Record) -> Vm | None:
    """The VM of the present attempt, if it still is there."""
    sandbox, handle = record.sandbox, record.handle
    if handle is None or sandbox.machine.stage is VmStage.ABSENT:
        return None
    try:
        vm = await within(RECOVER_SECONDS, tools.driver.recover(handle), "finding a VM again")
    except (CuboidError, OSError) as error:
        log.warning("VM not found again", pod=sandbox.plan.name, error=str(error))
        return None
    if vm is not None and handle.get("attempt") != sandbox.machine.attempt:
        await vm.kill()  # of an attempt before: its successor had been begun
        return None
    return vm


async def _let_go(tools: Tools, slot: str) -> None:
    """A prepared network that the pod was about to get may have its ports already, and is nobody's: it goes first."""
    if slot and tools.network.attachment(slot) is not None:
        try:
            await within(CLEAN_SECONDS, tools.network.detach(slot), "detaching a prepared network")
        except (CuboidError, OSError) as error:
            log.warning("a prepared network is left to the sweep", slot=slot, error=str(error))


async def _network(tools: Tools, worker: PodWorker, rebooted: bool) -> bool:
    if tools.network.attachment(worker.work.network_id) is None:
        return False
    if not rebooted:
        return True
    try:  # namespaces do not survive a reboot, the records of addresses do
        await within(CLEAN_SECONDS, tools.network.detach(worker.work.network_id), "detaching the network")
    except (CuboidError, OSError) as error:
        log.warning("network of before the reboot not released", pod=worker.uid, error=str(error))
    return False


async def clean(tools: Tools, workers: Iterable[PodWorker]) -> None:
    """Remove what no pod on record owns. What fails is logged and left to the next start."""
    workers = list(workers)
    known = {worker.uid for worker in workers}
    networks = {worker.work.network_id for worker in workers}
    steps: dict[str, Callable[[], Awaitable[list[str]]]] = {
        "VMs": lambda: _clean_vms(tools, workers),
        "network": lambda: _clean_network(tools, networks),
        "disks": lambda: _clean_disks(tools, known),
        "images": lambda: _clean_images(tools, known),
    }
    await gather_all(*(_logged(what, step) for what, step in steps.items()))


async def _logged(what: str, step: Callable[[], Awaitable[list[str]]]) -> None:
    """The step begins here and not at the caller's: one that is cancelled before it has begun leaves no coroutine."""
    try:
        removed = await within(CLEAN_SECONDS, step(), f"removing leftovers of {what}")
        if removed:
            log.info("leftovers removed", what=what, which=", ".join(removed))
    except (CuboidError, OSError) as error:
        log.warning("leftovers not removed", what=what, error=str(error))


async def _clean_vms(tools: Tools, workers: list[PodWorker]) -> list[str]:
    removed = []
    for found in await tools.driver.leftovers(_present_vms(workers)):
        if found not in _present_vms(workers):  # pods found again may have begun a new VM meanwhile
            await tools.driver.clean(found)
            removed.append(found)
    return removed


def _present_vms(workers: list[PodWorker]) -> set[str]:
    return {known for worker in workers for known in worker.work.vm_ids(worker.state.machine.attempt)}


async def _clean_network(tools: Tools, known: set[str]) -> list[str]:
    return await tools.network.clean(known)


async def _clean_disks(tools: Tools, known: set[str]) -> list[str]:
    holders = {volume.holder for volume in tools.disks.volumes() if volume.holder}
    left = sorted((tools.disks.writable_pods() | holders) - known)
    for uid in left:
        await tools.disks.remove_writable(uid)
        await tools.disks.release_volumes(uid)
    return left


async def _clean_images(tools: Tools, known: set[str]) -> list[str]:
    left = sorted(tools.images.holders() - known)
    for uid in left:
        tools.images.release(uid)
    await tools.images.sweep()
    return left

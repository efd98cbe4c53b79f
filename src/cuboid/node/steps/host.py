"""Network, disks and images of a pod on the host."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from cuboid.images.base import Image
from cuboid.lib.aio import gather_all, within
from cuboid.lib.errors import ConflictError, CuboidError, InvalidError, NotFoundError, UnsupportedError
from cuboid.lib.log import get_log
from cuboid.net import bandwidth
from cuboid.net.base import Attachment
from cuboid.node import spec
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.steps.credentials import credentials_for
from cuboid.node.steps.work import PodWork
from cuboid.node.volumes import VolumeError, is_files_volume, volume_files
from cuboid.node.warm.machines import WarmMachine

log = get_log(__name__)
NEVER_TRY_AGAIN = (InvalidError, UnsupportedError)
RELEASE_SECONDS = 60.0
LET_GO_SECONDS = 5.0  # for a pod that ends to let go of its volumes and ports
T = TypeVar("T")


def text(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def attach_network(work: PodWork, _: do.AttachNetwork) -> ev.Event:
    try:
        with work.timeline.phase("network"):
            work.attachment = await within(work.tools.settings.network_seconds, _attach(work), "attaching the network")
    except (CuboidError, OSError) as error:
        reason = getattr(error, "reason", "NetworkFailed")
        fatal = isinstance(error, NEVER_TRY_AGAIN) or reason == "PortTaken"
        return ev.NetworkFailed(at=work.now, reason=reason, message=text(error), fatal=fatal)
    return ev.NetworkAttached(
        at=work.now, ips=tuple(a.partition("/")[0] for a in work.attachment.addresses), id=work.attachment.pod_uid
    )


async def _attach(work: PodWork) -> Attachment:
    """The network of a machine that waits for such a pod, or one of its own."""
    meta, ports, network = work.pod.metadata, spec.port_mappings(work.pod), work.tools.network
    limits = bandwidth.of_annotations(meta.annotations)
    while (machine := _waiting(work)) is not None:
        adopting = partial(
            network.adopt, machine.slot, namespace=meta.namespace, name=meta.name, ports=ports, limits=limits
        )
        try:
            await work.intend(machine.slot)
            found = await when_let_go(adopting)
        except NotFoundError as error:
            log.warning("a waiting machine has lost its network", vm=machine.vm.id, error=text(error))
            await work.tools.warm.discard(machine)
        except BaseException:
            work.tools.warm.give_back(machine)
            raise
        else:
            work.warm = machine
            return found
    return await when_let_go(
        lambda: network.attach(meta.uid, namespace=meta.namespace, name=meta.name, ports=ports, limits=limits)
    )


def _waiting(work: PodWork) -> WarmMachine | None:
    try:
        shape = work.shape
    except (InvalidError, UnsupportedError):  # the disk's step says so
        return None
    return work.tools.warm.take(shape) if shape is not None else None


async def detach_network(work: PodWork, _: do.DetachNetwork) -> ev.Event:
    await work.drop_warm()
    await within(RELEASE_SECONDS, work.tools.network.detach(work.network_id), "detaching the network")
    work.attachment = None
    return ev.NetworkDetached(at=work.now)


async def create_disk(work: PodWork, _: do.CreateDisk) -> ev.Event:
    """Also finds out, before any VM is made, whether the volumes can be had and the memory is enough."""
    try:
        with work.timeline.phase("disk"):
            spec.check_volumes(work.pod)
            work.tools.boots.of(work.pod)
            await within(work.tools.settings.disk_seconds, _make_disks(work), "making the pod's disks")
    except (CuboidError, OSError) as error:
        fatal = isinstance(error, NEVER_TRY_AGAIN) and not isinstance(error, VolumeError)
        reason = getattr(error, "reason", "DiskFailed")
        return ev.DiskFailed(at=work.now, reason=reason, message=text(error), fatal=fatal)
    return ev.DiskReady(at=work.now)


async def _make_disks(work: PodWork) -> None:
    writable = work.tools.disks.create_writable(work.uid, work.size.disk_bytes)
    await gather_all(_check_files(work), writable)  # the files are asked of the API: it answers meanwhile
    for use in spec.named_volumes(work.pod):
        await acquire(work, use)


async def acquire(work: PodWork, use: spec.NamedVolumeUse) -> Path:
    """Hold a named volume."""
    meta, disks = work.pod.metadata, work.tools.disks
    return await when_let_go(
        lambda: disks.acquire_volume(meta.namespace, use.name, work.uid, use.size_bytes, pod=meta.name)
    )


async def when_let_go(take: Callable[[], Awaitable[T]]) -> T:
    """Take what one pod at a time can have. In use, it is waited for a little: its pod may end just now."""
    loop = asyncio.get_running_loop()
    until = loop.time() + LET_GO_SECONDS
    while True:
        try:
            return await take()
        except ConflictError:
            if loop.time() >= until:
                raise
        await asyncio.sleep(0.1)


async def _check_files(work: PodWork) -> None:
    files = [volume for volume in work.pod.spec.volumes if is_files_volume(volume)]
    await gather_all(*(volume_files(work.pod, volume, work.tools.objects, work.facts) for volume in files))


async def remove_disk(work: PodWork, _: do.RemoveDisk) -> ev.Event:
    disks = work.tools.disks
    await within(RELEASE_SECONDS, disks.remove_writable(work.uid), "removing the pod's disk")
    await within(RELEASE_SECONDS, disks.release_volumes(work.uid), "releasing the pod's volumes")
    return ev.DiskRemoved(at=work.now)


# --- images ----------------------------------------------------------------------------------------------------------


async def pull_image(work: PodWork, order: do.PullImage) -> ev.Event:
    plan = work.state().container(order.name)
    try:
        with work.timeline.phase("image"):
            image = await within(
                work.tools.settings.pull_seconds, _image(work, plan.image, plan.pull_policy), f"pulling {plan.image}"
            )
    except (CuboidError, OSError) as error:
        return ev.ImageFailed(at=work.now, name=order.name, reason=pull_reason(error), message=text(error))
    work.tools.images.hold(image, work.uid)
    work.images[order.name] = image
    return ev.ImagePulled(at=work.now, name=order.name, image_id=image.id, digest=image.digest)


class ImageNeverPullError(CuboidError):
    reason = "ErrImageNeverPull"


def pull_reason(error: BaseException) -> str:
    if isinstance(error, ImageNeverPullError):
        return error.reason
    return "InvalidImageName" if isinstance(error, InvalidError) else "ErrImagePull"


async def _image(work: PodWork, reference: str, policy: str) -> Image:
    store = work.tools.images
    if policy != "Always" and (found := await store.resolve(reference)):
        return found
    if policy == "Never":
        raise ImageNeverPullError(f'Container image "{reference}" is not present with pull policy of Never')
    work.tools.recorder.normal(work.pod, "Pulling", f'Pulling image "{reference}"')
    credentials = await credentials_for(work.pod, reference, work.tools.objects)
    begun = work.tools.clock.monotonic()
    image = await store.pull(reference, credentials=credentials)
    took = work.tools.clock.monotonic() - begun
    work.tools.recorder.normal(work.pod, "Pulled", f'Successfully pulled image "{reference}" in {took:.3f}s')
    return image


async def release_images(work: PodWork, _: do.ReleaseImages) -> ev.Event:
    work.tools.images.release(work.uid)
    return ev.ImagesReleased(at=work.now)

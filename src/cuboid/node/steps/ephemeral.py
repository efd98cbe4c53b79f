"""An ephemeral container: its image is put into the machine that runs, its processes are those of its target."""

from __future__ import annotations

from cuboid.guest import agent_pb2 as pb
from cuboid.images.base import Image
from cuboid.kube.types import Container
from cuboid.lib.errors import ConflictError, NotFoundError, UnsupportedError
from cuboid.lib.log import get_log
from cuboid.node import spec
from cuboid.node.sandbox.plan import Role
from cuboid.node.spec_container import CreateContainerError
from cuboid.node.steps.work import PodWork
from cuboid.vmm.base import Disk

log = get_log(__name__)


class NoRoomForImageError(CreateContainerError):
    reason = "NoRoomForImage"


async def prepare(work: PodWork, container: Container, image: Image, call: pb.StartContainer) -> None:
    """Complete the call. NoRoomForImageError if the machine can take no other image; what the driver says else."""
    call.process_target = container.target_container_name
    own = await work.machine_images()
    if image.id in {known.id for known in own.values()}:
        return
    serial = spec.devices(work.pod, own).spare
    late = await _late(work, own)
    if late is not None and late.id != image.id:
        raise NoRoomForImageError(
            f"the pod's machine has room for one image more, and {_name(late)} has taken it",
            hint=f"use that image, or one that the pod has: {', '.join(sorted(set(map(_name, own.values()))))}",
        )
    await _attach(work, serial, image)
    call.image_device.CopyFrom(pb.Device(name=image.id, serial=serial))


def _name(image: Image) -> str:
    return image.names[0] if image.names else image.id


async def _late(work: PodWork, own: dict[str, Image]) -> Image | None:
    """The image in the spare slot: of the first ephemeral container that has begun with another than the pod's own."""
    images, ids, since = await work.require_images(), {image.id for image in own.values()}, work.state().machine.up_at
    for container, run in work.state().pairs:
        here = run.alive or (run.attempt >= 0 and run.started_at >= since)  # not in a machine before this one
        if container.role is Role.DEBUG and here and run.name in images and images[run.name].id not in ids:
            return images[run.name]
    return None


async def _attach(work: PodWork, serial: str, image: Image) -> None:
    """Idempotent: a slot that has a disk has this one."""
    if work.vm is None:
        raise CreateContainerError("the pod's machine is gone")
    try:
        await work.vm.attach_disk(Disk(serial, image.device, read_only=True))
    except ConflictError as error:
        log.debug("the image is there, or the machine has ended", pod=work.pod.metadata.name, error=str(error))
    except (UnsupportedError, NotFoundError) as error:
        raise NoRoomForImageError(f"the pod's machine takes no other image while it runs: {error}") from error

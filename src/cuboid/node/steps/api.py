"""What a pod's object in the API is told."""

from __future__ import annotations

from cuboid.kube import names
from cuboid.lib.aio import within
from cuboid.lib.errors import ConflictError, CuboidError, NotFoundError
from cuboid.lib.log import get_log
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import instructions as do
from cuboid.node.steps.work import PodWork

log = get_log(__name__)
CALL_SECONDS = 10.0


async def write_receipt(work: PodWork, order: do.WriteReceipt) -> None:
    if order.ready:
        work.timeline.since("ready", "container")
    accel = work.tools.driver.capabilities().accel
    driver = work.tools.driver.name
    receipt = work.timeline.receipt(driver, accel, start=work.start)
    if order.attempt != work.counted_start:
        work.counted_start = order.attempt
        work.tools.metrics.started(driver, work.start, work.timeline.total)
    meta = work.pod.metadata
    await work.last_status()  # that it is ready is what people wait for
    try:
        call = work.tools.api.annotate_pod(meta.namespace, meta.name, meta.uid, {names.RECEIPT: receipt})
        await within(CALL_SECONDS, call, "writing the receipt")
    except (CuboidError, OSError) as error:
        log.info("receipt not written", pod=meta.name, error=str(error))


async def delete_pod(work: PodWork, _: do.DeletePod) -> ev.Event:
    """The last status has been written by then; the object may be gone already, or be another pod's by now."""
    meta = work.pod.metadata
    await work.last_status()
    try:
        await within(CALL_SECONDS, work.tools.api.delete_pod(meta.namespace, meta.name, meta.uid), "deleting the pod")
    except (NotFoundError, ConflictError):
        log.debug("pod was gone already", pod=meta.name)
    return ev.PodDeleted(at=work.now)

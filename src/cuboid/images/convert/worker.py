"""The converter: `python -m cuboid.images.convert.worker JOB`. Layers by descriptor in, a device by descriptor out.

It confines itself first (confine.py). Stdout gets one JSON object a line: progress, then a result or an error.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys

import msgspec

from cuboid.images.convert.confine import Confinement, confine
from cuboid.images.convert.erofs import ErofsWriter
from cuboid.images.flatten import Tree
from cuboid.images.layers import Budget, open_layer
from cuboid.images.settings import Limits
from cuboid.images.tar import TarReader
from cuboid.lib.errors import CuboidError, HostileError

PROGRESS_STEP = 16 << 20  # packed bytes between two progress lines


class LayerJob(msgspec.Struct):
    fd: int
    diff_id: str  # digest that the unpacked layer must have


class Job(msgspec.Struct):
    """What the converter is told, as JSON in its argument."""

    layers: list[LayerJob]  # lowest first
    device: int
    uuid: str
    limits: Limits
    confinement: Confinement


class Report(msgspec.Struct, omit_defaults=True):
    """One line of the converter's output."""

    done: int = 0  # packed bytes read
    device_bytes: int = 0  # in the last line of a success
    error: str = ""  # "hostile", "exhausted" or "internal", in the last line of a failure
    message: str = ""
    hint: str = ""


def convert(job: Job) -> int:
    """Layers to device; its size in bytes."""
    budget, tree = Budget(job.limits), Tree(job.limits)
    writer = ErofsWriter(job.device, job.limits)
    for layer in job.layers:
        tree.next_layer()
        _merge(layer, tree, writer, budget, job.limits)
        _say(Report(done=budget.packed))
    size = writer.finish(tree.root, bytes.fromhex(job.uuid))
    os.fsync(job.device)
    return size


def _merge(layer: LayerJob, tree: Tree, writer: ErofsWriter, budget: Budget, limits: Limits) -> None:
    algorithm, _, expected = layer.diff_id.partition(":")
    digest = hashlib.new(algorithm)
    stream = open_layer(layer.fd, budget, hasher=digest.update)
    reader = TarReader(stream, limits)
    said = budget.packed
    for entry in reader:
        node = tree.add(entry)
        if node is not None:
            writer.store(node, reader.data(), entry.segments)
        if budget.packed - said > PROGRESS_STEP:
            said = budget.packed
            _say(Report(done=said))
    stream.drain()
    if digest.hexdigest() != expected:
        raise HostileError(f"a layer unpacks to other bytes than the image says: its digest is not {layer.diff_id}")


def _say(report: Report) -> None:
    line = msgspec.json.encode(report) + b"\n"
    while line:
        line = line[os.write(1, line) :]


def _explain(error: BaseException) -> Report:
    if isinstance(error, HostileError):
        return Report(error="hostile", message=error.message, hint=error.hint)
    if isinstance(error, CuboidError):
        return Report(error="internal", message=error.message, hint=error.hint)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Report(error="exhausted", message="the disk is full")
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return Report(error="hostile", message="the image needs a bigger device than is allowed")
    if isinstance(error, MemoryError):
        return Report(error="hostile", message="the image needs more memory to convert than is allowed")
    return Report(error="internal", message=f"{type(error).__name__}: {error}"[:400])


def main() -> int:
    """The exit status. Everything that the work needs is loaded before `confine` takes the files away."""
    try:
        job = msgspec.json.decode(sys.argv[1].encode(), type=Job)
        for algorithm in ("sha256", "sha512"):
            hashlib.new(algorithm)
        confine(job.confinement)
        _say(Report(device_bytes=convert(job)))
    except BaseException as error:  # the outermost edge: whatever it was, one line says it
        _say(_explain(error))
        return 1
    return 0


if __name__ == "__main__":
    os._exit(main())  # no clean-up code: it would want files

"""The trusted side of a conversion: starts the confined converter, believes nothing of its output but its format."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cuboid.images.convert.confine import Confinement
from cuboid.images.convert.worker import Job, LayerJob, Report
from cuboid.images.settings import ImageSettings
from cuboid.lib import aio, proc
from cuboid.lib.errors import CuboidError, ExhaustedError, HostileError, ProcessError

_LINE_MAX = 8192
_STDERR_MAX = 16384


@dataclass(frozen=True)
class Layer:
    """A layer blob on disk and the digest of what it unpacks to."""

    path: Path
    diff_id: str


async def convert(
    layers: Sequence[Layer],
    device: Path,
    uuid: bytes,
    settings: ImageSettings,
    *,
    empty_root: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Write the layers (lowest first) to the new file `device`; returns its size in bytes.

    `empty_root` is an empty folder; `progress` gets packed bytes done. HostileError, ExhaustedError (disk),
    DeadlineError, ProcessError. A failure leaves no device.
    """
    with ExitStack() as stack:
        fds = [_open(stack, layer.path, os.O_RDONLY) for layer in layers]
        out = _open(stack, device, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        job = Job(
            layers=[LayerJob(fd, layer.diff_id) for fd, layer in zip(fds, layers, strict=True)], device=out,
            uuid=uuid.hex(), limits=settings.limits(), confinement=_confinement(settings, empty_root, fds),
        )  # fmt: skip
        try:
            async with aio.deadline(settings.convert_deadline, "converting the image"):
                return await _run(job, [*fds, out], progress)
        except BaseException:
            device.unlink(missing_ok=True)
            raise


def _open(stack: ExitStack, path: Path, flags: int) -> int:
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    stack.callback(os.close, fd)
    return fd


def _confinement(settings: ImageSettings, empty_root: Path, fds: Sequence[int]) -> Confinement:
    return Confinement(
        root=str(empty_root), uid_base=settings.worker_uid_base, memory_bytes=settings.worker_memory_bytes,
        cpu_seconds=settings.worker_cpu_seconds, file_bytes=settings.max_device_bytes, files=max([*fds, 64]) + 16,
    )  # fmt: skip


async def _run(job: Job, fds: Sequence[int], progress: Callable[[int], None]) -> int:
    command = [sys.executable, "-I", "-m", "cuboid.images.convert.worker", msgspec.json.encode(job).decode()]
    pipe = proc.PIPE
    async with proc.spawn(command, stdout=pipe, stderr=pipe, pass_fds=fds) as process:
        last, stderr = await asyncio.gather(_listen(process, progress), _tail(process))
        returncode = await process.wait()
    if returncode == 0 and last.device_bytes > 0 and not last.error:
        return last.device_bytes
    raise _failure(last, returncode, stderr)


async def _listen(process: proc.Process, progress: Callable[[int], None]) -> Report:
    """Pass progress on; the last report."""
    assert process.stdout is not None
    last = Report()
    try:
        while line := await process.stdout.readline():
            if len(line) > _LINE_MAX:
                raise ValueError("line too long")
            last = msgspec.json.decode(line, type=Report)
            if last.done:
                progress(last.done)
    except (ValueError, msgspec.DecodeError) as error:
        raise HostileError("the converter sent garbage: an image may have taken it over") from error
    return last


async def _tail(process: proc.Process) -> bytes:
    assert process.stderr is not None
    kept = b""
    while piece := await process.stderr.read(4096):
        kept = (kept + piece)[-_STDERR_MAX:]
    return kept


def _failure(last: Report, returncode: int, stderr: bytes) -> CuboidError:
    message = last.message if last.message.isprintable() else repr(last.message)
    if last.error == "hostile":
        return HostileError(message, hint=last.hint, reason="ErrImagePull")
    if last.error == "exhausted":
        return ExhaustedError(
            "no space is left on the disk for the image's device", hint="cuboid image rm what is unused"
        )
    if last.error:
        return ProcessError(
            f"the image converter failed: {message}", command="cuboid.images.convert.worker", returncode=returncode
        )
    if returncode == -signal.SIGXCPU:
        return HostileError(
            "the image needs more processor time to convert than is allowed",
            hint="[images] worker_cpu_seconds", reason="ErrImagePull",
        )  # fmt: skip
    return proc.failure(["cuboid.images.convert.worker"], returncode, stderr)

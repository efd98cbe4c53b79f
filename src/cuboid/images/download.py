"""A blob from a registry to a file: verified while it streams, continued where an earlier try or process stopped."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import httpx

from cuboid.images.manifest import Descriptor
from cuboid.images.registry import RegistryClient, lying
from cuboid.images.transport import Again
from cuboid.lib import aio
from cuboid.lib.errors import ExhaustedError, HostileError, UnavailableError
from cuboid.lib.threads import in_thread

_PIECE = 1 << 20
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)
_SLACK = 30.0  # seconds a blob may take beside its bytes


class _Part:
    """A partial blob on disk, with the running digest of what is there."""

    def __init__(self, path: Path, descriptor: Descriptor) -> None:
        self.path = path
        self.descriptor = descriptor
        self.size = 0
        self.resumed = False
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._state = hashlib.new(descriptor.digest.partition(":")[0])

    def load(self) -> None:
        """Digest what an earlier process left."""
        while self.size < self.descriptor.size and (piece := os.pread(self._fd, _PIECE, self.size)):
            self._state.update(piece)
            self.size += len(piece)
        self.resumed = self.size > 0
        os.ftruncate(self._fd, self.size)

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        self._state.update(view)
        while view:
            written = os.pwrite(self._fd, view, self.size)
            view = view[written:]
            self.size += written

    def clear(self) -> None:
        os.ftruncate(self._fd, 0)
        self.size, self.resumed = 0, False
        self._state = hashlib.new(self.descriptor.digest.partition(":")[0])

    def right(self) -> bool:
        return self._state.hexdigest() == self.descriptor.digest.partition(":")[2]

    def keep(self, target: Path) -> None:
        os.fsync(self._fd)
        self.path.replace(target)

    def close(self) -> None:
        os.close(self._fd)


async def download(
    client: RegistryClient, descriptor: Descriptor, partial: Path, target: Path, progress: Callable[[int], None]
) -> None:
    """Bring the blob to `target`; `partial` holds it on the way and stays for the next try when this one fails.

    `progress` gets the bytes there are so far. HostileError for wrong bytes (then `partial` is gone),
    ExhaustedError for a full disk, and what a request raises.
    """
    part = _Part(partial, descriptor)
    seconds = _SLACK + descriptor.size / client.settings.min_rate
    try:
        async with aio.deadline(seconds, f"downloading {descriptor.digest[:19]} from {client.transport.endpoint}"):
            await in_thread(part.load)
            await _fill(client, part, progress)
            if not part.right() and part.resumed:  # an old partial file may be damaged: once more, from the start
                part.clear()
                await _fill(client, part, progress)
        if not part.right():
            partial.unlink(missing_ok=True)
            raise lying(client.transport.endpoint, descriptor.digest)
        await in_thread(part.keep, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExhaustedError(
                "no space is left on the disk for the image's layers", hint="cuboid image rm what is unused"
            ) from error
        raise
    finally:
        part.close()


async def _fill(client: RegistryClient, part: _Part, progress: Callable[[int], None]) -> None:
    failures = 0
    while part.size < part.descriptor.size:
        before = part.size
        try:
            await _continue(client, part, progress)
            continue
        except Again as again:
            failures = 1 if part.size > before else failures + 1
            if failures >= client.settings.attempts:
                raise again.error from again
            await client.transport.pause(failures, again.after)


async def _continue(client: RegistryClient, part: _Part, progress: Callable[[int], None]) -> None:
    """One request for what is missing."""
    headers = {"Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-{part.descriptor.size - 1}"
    async with client.request("GET", f"blobs/{part.descriptor.digest}", headers=headers) as response:
        if response.status_code == 416:
            part.clear()
            raise Again(UnavailableError(f"the registry {client.transport.endpoint} cannot continue a download"))
        if response.status_code == 206 and part.size:
            _check_range(response, part)
        else:
            client.expect(response, 200, f"a layer ({part.descriptor.digest})")
            if part.size:
                part.clear()
        _check_length(response, part)
        await _take(response, part, progress)
    if part.size < part.descriptor.size:
        raise Again(
            UnavailableError(
                f"the registry {client.transport.endpoint} ends a layer too early", hint="try again later",
                reason="ErrImagePull",
            )
        )  # fmt: skip


def _check_range(response: httpx.Response, part: _Part) -> None:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if match is None or int(match[1]) != part.size:
        raise HostileError(f"the registry answers another range than was asked for: {part.descriptor.digest}")


def _check_length(response: httpx.Response, part: _Part) -> None:
    stated = response.headers.get("content-length", "")
    if stated and (not stated.isdigit() or len(stated) > 19 or int(stated) > part.descriptor.size - part.size):
        raise HostileError(
            f"the registry offers {stated[:20]} bytes for a layer that has {part.descriptor.size - part.size} to go",
            reason="ErrImagePull",
        )


async def _take(response: httpx.Response, part: _Part, progress: Callable[[int], None]) -> None:
    buffer = bytearray()
    try:
        async for piece in response.aiter_raw():
            buffer += piece
            if part.size + len(buffer) > part.descriptor.size:
                raise HostileError(
                    "the registry sends more bytes for a layer than its manifest says", reason="ErrImagePull"
                )
            if len(buffer) >= _PIECE:
                data = bytes(buffer)
                buffer.clear()
                await in_thread(part.append, data)
                progress(part.size)
    finally:
        if buffer and part.size + len(buffer) <= part.descriptor.size:
            part.append(bytes(buffer))
            progress(part.size)

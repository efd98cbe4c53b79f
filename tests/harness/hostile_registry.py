"""A process that serves images which no honest registry would: `python -m tests.harness.hostile_registry PORT`."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import sys
import tarfile
from collections.abc import Callable

from tests.harness.fake_registry import FakeRegistry
from tests.harness.images import gzipped, make_tar, member, symlink

GOOD = make_tar([("bin/file", b"content")])
ZEROS = 1 << 20  # bytes written at a time
BOMB_BYTES = 300 << 20  # above what may have any ratio


def compression_bomb() -> bytes:
    """A file of zeros, packed a thousandfold."""
    output = io.BytesIO()
    with gzip.GzipFile(fileobj=output, mode="wb", compresslevel=9, mtime=0) as packed:
        info = member("zeros")
        info.size = BOMB_BYTES
        packed.write(info.tobuf(tarfile.PAX_FORMAT))
        for _ in range(BOMB_BYTES // ZEROS):
            packed.write(bytes(ZEROS))
        packed.write(bytes(1024))
    return output.getvalue()


LAYERS: dict[str, Callable[[], bytes]] = {
    "traversal": lambda: make_tar([("../../../etc/cron.d/evil", b"* * * * * root true\n")]),
    "devices": lambda: make_tar([member(f"dev/n{n}", tarfile.CHRTYPE, devmajor=1) for n in range(5000)]),
    "bomb": compression_bomb,
    "truncated": lambda: gzipped(make_tar([("file", os.urandom(9000))]))[:-400],
    "escape": lambda: make_tar([symlink("out", "/etc"), ("out/evil", b"through a link"), ("bin/file", b"content")]),
}


def fill(registry: FakeRegistry) -> None:
    for name, layer in LAYERS.items():
        registry.add_image(name, "1", layer())
    registry.add_image("arm", "1", GOOD, architecture="arm64")
    [digest] = registry.add_image("liar", "1", GOOD)
    registry.objects[f"liar/blobs/{digest}"] = GOOD[:-1] + b"!"


async def serve(port: int) -> None:
    registry = FakeRegistry()
    fill(registry)
    server = await asyncio.start_server(registry.accept, "127.0.0.1", port)
    print("serving", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))

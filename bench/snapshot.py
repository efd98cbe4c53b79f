"""A pod of 256 MiB that runs, with its writable disk: how long its snapshot takes, and until a restore of it answers.

Through the driver, with the real agent, a container that has written memory and disk, and an interface of its own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path

from bench.common import Result, summary, verdict
from cuboid.guest import agent_pb2 as pb
from cuboid.vmm.base import Disk
from tests.harness.clones import Clone, Clones, start
from tests.harness.guest_rig import image

RUNS = int(os.environ.get("BENCH_RUNS", "20"))
MEMORY_MIB = 256
DIRTY_MIB = 48  # of memory that the container has written
DISK_MIB = 16  # of its writable disk
WORK_SECONDS = 120.0
WRITABLE = "rw0"
SNAPSHOT_BAR, RESTORE_BAR = 1.0, 0.3  # s; a snapshot has the time to write its bytes besides
WORK = f"head -c {DIRTY_MIB}m /dev/urandom >/tmp/memory; head -c {DISK_MIB}m /dev/urandom >/disk; echo done; sleep 9999"


def measure() -> Result:
    with tempfile.TemporaryDirectory(prefix="cuboid-bench-") as folder:
        snapshots, restores, written = asyncio.run(_measure(Path(folder)))
        rate = disk_speed(Path(folder), written)
    bar = SNAPSHOT_BAR + written / rate
    found = {"snapshot": summary(snapshots), "restored and answering": summary(restores)}
    met = found["snapshot"]["median"] <= bar and found["restored and answering"]["median"] <= RESTORE_BAR
    return {
        "what": f"a running pod of {MEMORY_MIB} MiB, {DIRTY_MIB} MiB of memory and {DISK_MIB} MiB of disk written",
        "unit": "s", **found, "MB in a snapshot": round(written / 1e6, 1), "MB/s of the disk": round(rate / 1e6),
        "bar": f"snapshot <= {SNAPSHOT_BAR:g} s + its bytes / disk speed = {bar:.2f} s; answering <= {RESTORE_BAR} s",
        "verdict": verdict(met),
    }  # fmt: skip


async def _measure(folder: Path) -> tuple[list[float], list[float], int]:
    """(seconds of snapshots, seconds until restores answered, bytes of a snapshot on disk)."""
    snapshots: list[float] = []
    restores: list[float] = []
    written = 0
    async with Clones("bench", image(folder), memory_mib=MEMORY_MIB) as clones:
        pod = await clones.clone()
        await pod.client.setup(pod.setup())
        await pod.client.start_container(start("app", "sh", "-c", WORK))
        await _until_worked(pod)
        for run in range(RUNS):
            target = folder / f"snapshot-{run}"
            await pod.vm.pause()
            begun = time.monotonic()
            await pod.vm.snapshot(target)
            snapshots.append(time.monotonic() - begun)
            await pod.vm.resume()
            written = _allocated(target)
            if run:
                shutil.rmtree(target)
        for run in range(RUNS):
            restores.append(await _restored(clones, folder / "snapshot-0", folder / f"disk-{run}"))
    return snapshots, restores, written


async def _until_worked(pod: Clone) -> None:
    async with await pod.client.attach(pb.Attach(container="app", stdout=True, history=True)) as stream:
        async with asyncio.timeout(WORK_SECONDS):
            async for _, data in stream.received():
                if b"done" in data:
                    return


async def _restored(clones: Clones, snapshot: Path, disk: Path) -> float:
    """Seconds from the call to the driver until the agent has an identity of its own and answers."""
    shutil.copy(snapshot / f"disk-{WRITABLE}", disk)
    spec = await clones.prepared((clones.image, Disk(WRITABLE, disk, read_only=False)))
    begun = time.monotonic()
    pod = await clones.restored(spec, snapshot)
    await pod.client.renew(pb.Renew(now_unix_ns=time.time_ns(), entropy=os.urandom(32), boot_id=str(uuid.uuid4())))
    seconds = time.monotonic() - begun
    await pod.client.close()
    await pod.vm.kill()
    disk.unlink()
    return seconds


def disk_speed(folder: Path, size: int) -> float:
    """Bytes per second of writing so much and having it on disk."""
    data = os.urandom(1 << 20)
    begun = time.monotonic()
    with (folder / "speed").open("wb") as file:
        for _ in range(max(1, size >> 20)):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return size / (time.monotonic() - begun)


def _allocated(folder: Path) -> int:
    """Bytes on disk: files are sparse."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())

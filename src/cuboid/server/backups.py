"""Where the server's store is, and its backups while it serves."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from cuboid.kube import backup
from cuboid.kube.store_file import DamagedError
from cuboid.lib.aio import in_thread
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log
from cuboid.lib.paths import Paths

log = get_log(__name__)

DATA = "data"
"""In the server's folder, owned by the user id that serves. Keys and tokens stay beside it, with root."""
STORE_FILE = f"{DATA}/store.db"
LOOK_SECONDS = 60.0
"""Between two looks whether a backup is due; the first comes so long after the start."""


def folder_of(paths: Paths) -> Path:
    """Where the server keeps keys, tokens and store."""
    return paths.state / "server"


def store_of(paths: Paths) -> Path:
    return folder_of(paths) / STORE_FILE


async def keep(store: Path, hours: float) -> None:
    """Runs for as long as the server does; `hours` between two backups."""
    while hours > 0:
        await asyncio.sleep(min(LOOK_SECONDS, hours * 3600))
        now = datetime.now(UTC)
        if not backup.due(backup.found(backup.folder_of(store)), now, hours):
            continue
        try:
            made = await in_thread(lambda: backup.take(store, now))  # noqa: B023 - awaited here
        except DamagedError as error:
            log.error("THE STORE IS DAMAGED", what=error.what, store=store, fix=backup.advice(store))
        except CuboidError as error:
            log.warning("no backup was made", error=str(error))
        else:
            log.info("backed up", file=made.path, bytes=made.size, revision=made.revision)

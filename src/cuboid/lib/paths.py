"""Where things are on a host. One root each for what survives a reboot and for what does not; both can be moved."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Paths(NamedTuple):
    """`state` survives a reboot (images, disks, pod records, the store); `run` does not (sockets, jails, pids)."""

    state: Path
    run: Path

    @classmethod
    def default(cls) -> Paths:
        """`/var/lib/cuboid` and `/run/cuboid`, or CUBOID_STATE_DIR and CUBOID_RUN_DIR."""
        return cls(
            Path(os.environ.get("CUBOID_STATE_DIR", "/var/lib/cuboid")),
            Path(os.environ.get("CUBOID_RUN_DIR", "/run/cuboid")),
        )

    @property
    def api_socket(self) -> Path:
        """Of the API server, for processes of this machine that root or the server's own user runs."""
        return self.run / "api.sock"

    def node_socket(self, port: int) -> Path:
        """Of the node agent whose HTTPS API has this port, for the API server on the same machine."""
        return self.run / f"node-{port}.sock"

    def make(self) -> Paths:
        for path in (self.state, self.run):
            path.mkdir(mode=0o711, parents=True, exist_ok=True)
        return self


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Replace `path` whole or not at all; with `durable`, on disk (file and folder) when this returns."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make creations, renames and removals in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

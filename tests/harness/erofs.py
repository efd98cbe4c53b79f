"""Looking into an EROFS image with the kernel: mounted read only in a private mount namespace, described, gone."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from cuboid.lib import proc

# Runs in a mount namespace of its own: the mount (and its loop device) ends with this process.
_DESCRIBE = """
import hashlib, json, os, stat, sys
root = os.fsencode(sys.argv[1])
found = {}
def describe(path):
    s = os.lstat(path)
    row = {"mode": s.st_mode, "uid": s.st_uid, "gid": s.st_gid, "size": s.st_size, "links": s.st_nlink,
           "mtime": s.st_mtime_ns, "rdev": s.st_rdev, "ino": s.st_ino,
           "xattrs": {n: os.getxattr(path, n, follow_symlinks=False).hex()
                      for n in os.listxattr(path, follow_symlinks=False)}}
    if stat.S_ISREG(s.st_mode):
        with open(path, "rb") as f: row["sha256"] = hashlib.file_digest(f, "sha256").hexdigest()
    if stat.S_ISLNK(s.st_mode):
        row["target"] = os.fsdecode(os.readlink(path))
    found[os.fsdecode(path[len(root):]) or "/"] = row
describe(root)
for folder, folders, files in os.walk(root):
    for name in folders + files:
        describe(os.path.join(folder, name))
json.dump(found, sys.stdout)
"""


@dataclass(frozen=True)
class Found:
    """One path of a mounted image. `mtime` in ns."""

    mode: int
    uid: int
    gid: int
    size: int
    links: int
    mtime: int
    rdev: int
    ino: int
    xattrs: dict[str, str]
    sha256: str = ""
    target: str = ""

    @property
    def permissions(self) -> int:
        return self.mode & 0o7777


async def look(device: Path, folder: Path) -> dict[str, Found]:
    """Every path of the image, "/" among them, as the kernel shows it."""
    point = folder / f"look-{hashlib.sha256(str(device).encode()).hexdigest()[:8]}"
    point.mkdir(exist_ok=True)
    script = f'mount -t erofs -o loop,ro "{device}" "{point}" && exec "{sys.executable}" -I -c "$0" "{point}"'
    result = await proc.run(["unshare", "--mount", "sh", "-c", script, _DESCRIBE], timeout=50)
    point.rmdir()
    return {path: Found(**row) for path, row in json.loads(result.stdout).items()}


async def fsck(device: Path) -> None:
    """erofs-utils' own check; ProcessError if the image is not sound."""
    await proc.run(["fsck.erofs", device], timeout=50)

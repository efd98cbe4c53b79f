"""Real images from Debian's packages: nginx for the demo; busybox and a set of servers for tests and benchmarks.

Each is an OCI layout below `build/images/`, made once per recipe. No registry outside this machine is asked for any.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cuboid.images.base import ImageConfig
from cuboid.images.build import build_layout
from cuboid.lib.clock import rfc3339

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build/images"
UNNEEDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/var/cache/apt/*")
PAGE = "<!doctype html><title>Cuboid</title><h1>Hello from a virtual machine of its own</h1>\n"


@dataclass(frozen=True)
class Recipe:
    """`packages` on top of Debian's essential ones; `hooks` are mmdebstrap's customize hooks ("$1" is the root)."""

    name: str
    packages: tuple[str, ...]
    config: ImageConfig
    hooks: tuple[str, ...] = ()
    busybox: bool = False
    version: int = 1
    notes: dict[str, str] = field(default_factory=dict)

    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps([asdict(self), codename()], sort_keys=True, default=str).encode()).hexdigest()[
            :12
        ]


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "nginx",
            ("nginx-light",),
            ImageConfig(
                cmd=("nginx", "-g", "daemon off;"), env=("PATH=/usr/sbin:/usr/bin:/sbin:/bin",),
                exposed_ports=("80/tcp",), stop_signal="SIGQUIT",
            ),
            hooks=(
                'ln -sf /dev/stdout "$1/var/log/nginx/access.log"',
                'ln -sf /dev/stderr "$1/var/log/nginx/error.log"',
                f"printf '%s' '{PAGE}' > \"$1/var/www/html/index.html\"",
            ),
        ),
        Recipe(
            "services",
            ("redis-server", "postgresql", "python3", "procps", "curl", "netcat-openbsd", "iproute2"),
            ImageConfig(cmd=("bash",), env=("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)),
            hooks=('rm -rf "$1"/var/lib/postgresql/*/main',),
        ),
        Recipe("busybox", (), ImageConfig(cmd=("sh",), env=("PATH=/bin",)), busybox=True),
    )
}  # fmt: skip


def codename() -> str:
    rows = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return rows.get("VERSION_CODENAME", "bookworm").strip('"')


def _target(name: str) -> Path:
    return FOLDER / f"{name}-{RECIPES[name].fingerprint()}"


def present(name: str) -> bool:
    return (_target(name) / "index.json").exists()


def layout(name: str) -> Path:
    """The OCI layout of a recipe, built if it is not there. Who asks while another builds it waits."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not present(name):
            _build(RECIPES[name], _target(name))
    return _target(name)


def _build(recipe: Recipe, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix=f".{recipe.name}-") as scratch:
        rootfs = Path(scratch, "rootfs.tar")
        if recipe.busybox:
            _busybox(rootfs, Path(scratch))
        else:
            _debootstrap(recipe, rootfs)
        built = Path(scratch, "layout")
        build_layout([rootfs], recipe.config, built, name=f"{recipe.name}:1", created=rfc3339(time.time()))
        shutil.rmtree(target, ignore_errors=True)
        built.rename(target)


def _debootstrap(recipe: Recipe, rootfs: Path) -> None:
    command = ["mmdebstrap", "--mode=root", "--variant=essential", f"--include={','.join(recipe.packages)}"]
    command += ["--quiet", '--aptopt=APT::Install-Recommends "false"']
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in UNNEEDED]
    command += [f"--customize-hook={hook}" for hook in recipe.hooks]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    done = subprocess.run(
        [*command, codename(), str(rootfs)], check=False, env=environment, capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        raise SystemExit(f"mmdebstrap for {recipe.name} failed:\n{done.stderr[-2000:]}")


def _busybox(rootfs: Path, scratch: Path) -> None:
    """A root of one static binary and its names: small enough for hundreds of tests."""
    subprocess.run(
        ["apt-get", "-q", "download", "busybox-static"], cwd=scratch, check=True, capture_output=True, timeout=300
    )
    package = next(scratch.glob("busybox-static_*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, scratch / "root"], check=True, timeout=60)
    binary = next(path for path in (scratch / "root").rglob("busybox") if path.is_file() and path.parent.name == "bin")
    applets = subprocess.run([binary, "--list"], check=True, capture_output=True, text=True, timeout=20).stdout.split()
    with tarfile.open(rootfs, "w", format=tarfile.PAX_FORMAT) as tar:
        for folder, mode in (
            ("bin", 0o755),
            ("etc", 0o755),
            ("tmp", 0o1777),
            ("root", 0o700),
            ("home", 0o755),
            ("var", 0o755),
        ):
            _add(tar, folder, tarfile.DIRTYPE, mode)
        _add(tar, "bin/busybox", tarfile.REGTYPE, 0o755, binary.read_bytes())
        for applet in sorted(set(applets) - {"busybox"}):
            _add(tar, f"bin/{applet}", tarfile.SYMTYPE, 0o777, link="busybox")
        _add(
            tar,
            "etc/passwd",
            tarfile.REGTYPE,
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home:/bin/sh\n",
        )
        _add(tar, "etc/group", tarfile.REGTYPE, 0o644, b"root:x:0:\napp:x:1000:\nextra:x:2000:app\n")


def _add(tar: tarfile.TarFile, name: str, kind: bytes, mode: int, data: bytes = b"", link: str = "") -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.size, entry.linkname, entry.mtime = kind, mode, len(data), link, 1_700_000_000
    tar.addfile(entry, io.BytesIO(data))


if __name__ == "__main__":
    for wanted in sys.argv[1:] or RECIPES:
        print(layout(wanted))

"""What a host needs, checked one by one. Each finding says in one sentence what is, and how to mend it."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cuboid.cli import config
from cuboid.cli.api import Api
from cuboid.lib.errors import CuboidError
from cuboid.lib.paths import Paths

OK, WARN, FAIL = "ok", "warn", "fail"
PLUGIN_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
PLUGINS = ("bridge", "host-local", "portmap", "firewall", "tuning", "loopback")
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86 (on Debian 12 from bookworm-backports)",
    "mkfs.ext4": "e2fsprogs",
    "ip": "iproute2",
    "iptables": "iptables",
    "nft": "nftables",
}
LEAST_FREE = 2 << 30  # bytes on the state folder's file system below which images will soon not fit
LEAST_FILES = 4096  # open files that the node agent should be allowed


@dataclass(frozen=True)
class Finding:
    name: str
    level: str
    text: str
    fix: str = ""


def examine(paths: Paths) -> list[Finding]:
    """Every check, in the order in which one would mend what they find."""
    checks: tuple[Callable[[Paths], Iterator[Finding]], ...] = (
        _machine, _programs, _plugins, _kernel_features, _cgroups, _limits, _disk, _guest, _acceleration, _platform,
    )  # fmt: skip
    return [finding for check in checks for finding in check(paths)]


def _machine(_: Paths) -> Iterator[Finding]:
    machine = platform.machine()
    if machine != "x86_64":
        yield Finding("machine", FAIL, f"this is {machine}; Cuboid runs on x86_64 only so far", "use an x86_64 machine")
    else:
        yield Finding("machine", OK, f"x86_64, {os.cpu_count()} CPUs, Linux {platform.release()}")
    if os.geteuid() != 0:
        yield Finding("user", WARN, "not root: some checks are left out", "sudo cuboid doctor")


def _programs(_: Paths) -> Iterator[Finding]:
    path = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
    missing = {name: package for name, package in PROGRAMS.items() if not shutil.which(name, path=path)}
    for name, package in missing.items():
        yield Finding("program", FAIL, f"{name} is not installed", f"apt-get install {package}")
    if not missing:
        yield Finding("programs", OK, ", ".join(PROGRAMS))


def _plugins(_: Paths) -> Iterator[Finding]:
    missing = [name for name in PLUGINS if not any((folder / name).exists() for folder in PLUGIN_FOLDERS)]
    if missing:
        fix = "apt-get install containernetworking-plugins"
        yield Finding("CNI plugins", FAIL, f"missing: {', '.join(missing)}", fix)
    else:
        yield Finding("CNI plugins", OK, ", ".join(PLUGINS))


def _kernel_features(_: Paths) -> Iterator[Finding]:
    if not Path("/dev/net/tun").exists():
        yield Finding("tun", FAIL, "/dev/net/tun is missing: no network for pods", "modprobe tun")
    if not Path("/proc/sys/net/ipv4/ip_forward").exists():
        yield Finding("forwarding", FAIL, "this kernel cannot forward IPv4", "use a kernel with IPv4 networking")
    elif Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() != "1":
        yield Finding(
            "forwarding", WARN, "IPv4 forwarding is off; cuboid up turns it on", "sysctl -w net.ipv4.ip_forward=1"
        )
    else:
        yield Finding("network", OK, "tun, IPv4 forwarding")


def _cgroups(_: Paths) -> Iterator[Finding]:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        yield Finding("cgroups", OK, "version 2")
    elif Path("/sys/fs/cgroup/memory").is_dir():
        yield Finding("cgroups", OK, "version 1 (version 2 gives better limits: systemd.unified_cgroup_hierarchy=1)")
    else:
        fix = "mount -t cgroup2 none /sys/fs/cgroup"
        yield Finding("cgroups", WARN, "none is mounted: VMM processes run without host limits", fix)


def _limits(_: Paths) -> Iterator[Finding]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < LEAST_FILES:
        yield Finding(
            "open files", WARN, f"the limit is {hard}", f"raise it to {LEAST_FILES} or more (ulimit -n, LimitNOFILE=)"
        )
    else:
        yield Finding("open files", OK, f"limit {soft} (hard {hard})")


def _disk(paths: Paths) -> Iterator[Finding]:
    place = next(path for path in (paths.state, *paths.state.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < LEAST_FREE:
        fix = "make room, or set CUBOID_STATE_DIR to a larger file system"
        yield Finding("disk", WARN, f"{free >> 20} MiB free at {place}", fix)
    else:
        yield Finding("disk", OK, f"{free >> 30} GiB free at {place}")


def _guest(_: Paths) -> Iterator[Finding]:
    from cuboid.guest.assets import GENERAL, HOW_TO_GET, MINIMAL, OVERHEAD_MIB, guest_assets
    from cuboid.lib.settings import load
    from cuboid.node.settings import NodeSettings

    try:
        settings = load(NodeSettings, "node")
        assets = guest_assets(kind=settings.guest)
    except CuboidError as error:
        yield Finding("guest", FAIL, error.message, error.hint or "make setup")
        return
    agent = f"agent {assets.agent_version}"
    if settings.kernel:
        yield Finding("guest", OK, f"kernel {settings.kernel}, as [node] kernel says")
    elif settings.guest:
        yield Finding("guest", OK, f"{assets.kind} kernel {assets.release}, as [node] guest says; {agent}")
    elif assets.kind == MINIMAL:
        yield Finding("guest", OK, f"minimal kernel {assets.release}, as it has been built; {agent}")
    else:
        more = OVERHEAD_MIB[GENERAL] - OVERHEAD_MIB[MINIMAL]
        text = f"general kernel {assets.release}, as the minimal one has not been built; {agent}; starts take longer"
        yield Finding("guest", WARN, f"{text}, and each pod {more} MiB more", HOW_TO_GET[MINIMAL])


def _acceleration(_: Paths) -> Iterator[Finding]:
    if not Path("/dev/kvm").exists():
        fix = "turn virtualisation on in the firmware, or take a machine that nests it; emulation works, slowly"
        yield Finding("KVM", WARN, "/dev/kvm is missing: virtual machines are emulated (TCG)", fix)
    else:
        yield Finding("KVM", OK, "/dev/kvm is there; whether it works is told by the boot that `cuboid up` tries")


def _platform(_: Paths) -> Iterator[Finding]:
    try:
        nodes = Api(config.find()).get("/api/v1/nodes")["items"]
    except CuboidError as error:
        yield Finding("platform", WARN, error.message, "cuboid up")
        return
    for node in nodes:
        yield from _node(node)


def _node(node: dict[str, object]) -> Iterator[Finding]:
    metadata, status = node["metadata"], node.get("status", {})
    if not isinstance(metadata, dict) or not isinstance(status, dict):
        return
    ready = any(row["type"] == "Ready" and row["status"] == "True" for row in status.get("conditions", []))
    notes = metadata.get("annotations", {})
    accel = f"{notes.get('cuboid.dev/accel', '?')}: {notes.get('cuboid.dev/accel-reason', '')}"
    if ready:
        yield Finding("node", OK, f"{metadata['name']} is ready; virtual machines by {accel}")
    else:
        yield Finding("node", FAIL, f"{metadata['name']} is not ready", "see the log of cuboid-node, or: cuboid up")

"""Builds what a guest boots besides its kernel: the agent as /init and the kernel modules a pod needs.

    python -m cuboid.guest.initramfs --agent FILE [--kernel FILE --modules FOLDER] -o FILE

Without modules it is for the minimal kernel (guest/kernel), which has everything built in: the agent and nothing else.

The archive is "newc" cpio, the same bytes for the same input, and padded to whole pages: QEMU's microvm lays its ACPI
tables into what is left of the last page, and a kernel without them hangs. Format: Linux
`Documentation/driver-api/early-userspace/buffer-format.rst`.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import lzma
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import zstandard

from cuboid.lib.errors import InvalidError, UnsupportedError
from cuboid.lib.paths import write_atomic

PAGE = 4096
SIGNED = b"~Module signature appended~\n"  # ends a signed module; before it the signature, and what describes it:
SIGNATURE_HEAD = 12  # bytes
FOLDERS = ("dev", "etc", "mnt", "proc", "run", "sys", "tmp")
MODULE_FOLDERS = ("lib", "lib/modules")
# Before devtmpfs is there: the kernel opens the console for PID 1, and without one (its driver is a module) the agent's
# run-time library opens /dev/null in its place, or aborts.
DEVICES = {"dev/console": (5, 1), "dev/null": (1, 3)}

# Loaded at boot, in this order: every pod has disks, an image and a network.
BOOT = ("virtio_mmio", "virtio_blk", "virtio_net", "erofs", "overlay")
# Loaded by the agent when something asks for them; what a kernel does not have is left out. `SMALL` is what costs a
# small guest little memory; `DEMAND` adds NFS (7 MB) and what privileged pods use (netfilter, bridges).
SMALL = (
    "virtio_rng", "virtio_balloon", "virtio_console", "vmw_vsock_virtio_transport", "ext4", "fuse", "loop", "tun",
    "veth",
)  # fmt: skip
DEMAND = (
    *SMALL, "nfsv4", "nfsv3", "bridge", "br_netfilter", "dummy", "binfmt_misc",
    "nf_tables", "nft_chain_nat", "nft_masq", "nft_redir", "nft_ct", "nft_compat", "nft_reject_inet", "nft_limit",
    "nft_log", "ip_tables", "ip6_tables", "iptable_filter", "iptable_nat", "iptable_mangle", "ip6table_filter",
    "ip6table_nat", "xt_conntrack", "xt_MASQUERADE", "xt_REDIRECT", "xt_tcpudp", "xt_multiport", "xt_comment",
    "xt_addrtype", "xt_mark", "xt_state", "xt_owner",
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A file, folder or device of the archive. `mode` is as in `stat(2)`."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def cpio(members: Iterable[Member]) -> bytes:
    """The archive, in the order given, with its trailer. Owner root, time 0, inode numbers counted."""
    rows = [*members, Member("TRAILER!!!", 0)]
    return b"".join(_row(number, member) for number, member in enumerate(rows, 1))


def _row(number: int, member: Member) -> bytes:
    name = member.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(member.mode) else 1
    fields = (
        number, member.mode, 0, 0, links, 0, len(member.data), 0, 0, *member.device, len(name), 0,
    )  # fmt: skip
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return _aligned(head, 4) + _aligned(member.data, 4)


def _aligned(data: bytes, size: int) -> bytes:
    return data + bytes(-len(data) % size)


class Modules:
    """The modules of one kernel release, from `modules.dep` and `modules.builtin`. Names have "_" for "-"."""

    def __init__(self, folder: Path) -> None:
        """`folder` is `lib/modules/RELEASE`. UnsupportedError if it is not one."""
        self.release = folder.name
        self._folder = folder
        try:
            rows = (folder / "modules.dep").read_text().splitlines()
            self.builtin = {_name(line) for line in (folder / "modules.builtin").read_text().split()}
        except FileNotFoundError as error:
            raise UnsupportedError(f"{folder} has no kernel modules", hint="tools/setup.sh fetches them") from error
        self._paths: dict[str, str] = {}
        self._needs: dict[str, list[str]] = {}
        for row in rows:
            path, _, needs = row.partition(":")
            self._paths[_name(path)] = path
            self._needs[_name(path)] = [_name(need) for need in needs.split()]

    def closure(self, names: Sequence[str], *, optional: bool = False) -> list[str]:
        """`names` and what they need, each after what it needs. Built-in ones are left out.

        UnsupportedError for a name that this kernel does not have, unless `optional`.
        """
        order: dict[str, None] = {}
        for name in names:
            if name in self.builtin or (optional and name not in self._paths):
                continue
            if name not in self._paths:
                raise UnsupportedError(f"the guest kernel {self.release} has no module {name}")
            # modules.dep lists what must be loaded first last.
            order.update(dict.fromkeys((*reversed(self._needs[name]), name)))
        return list(order)

    def content(self, name: str) -> bytes:
        """The module, decompressed: the guest's kernel may not know how. Unsigned: see `unsigned`."""
        path = self._folder / self._paths[name]
        return unsigned(_decompressed(path.read_bytes(), path.suffix))


def _decompressed(data: bytes, suffix: str) -> bytes:
    match suffix:
        case ".xz":
            return lzma.decompress(data)
        case ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        case ".gz":
            return gzip.decompress(data)
    return data


def unsigned(module: bytes) -> bytes:
    """The module without its appended signature, which an emulated CPU checks for 20 ms.

    The host vouches for the whole initramfs. Layout: Linux `include/linux/module_signature.h`, the length big-endian.
    """
    if not module.endswith(SIGNED):
        return module
    end = len(module) - len(SIGNED)
    return module[: max(0, end - SIGNATURE_HEAD - int.from_bytes(module[end - 4 : end], "big"))]


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def members(agent: bytes, modules: Modules | None = None, demand: Sequence[str] = DEMAND) -> list[Member]:
    """The whole tree: folders, console, the agent, modules, and the list of those that are loaded at boot."""
    return [
        *(Member(name, stat.S_IFDIR | 0o755) for name in FOLDERS),
        *(Member(name, stat.S_IFCHR | 0o600, device=device) for name, device in DEVICES.items()),
        Member("init", stat.S_IFREG | 0o755, agent),
        *(_module_members(modules, demand) if modules else ()),
    ]


def _module_members(modules: Modules, demand: Sequence[str]) -> list[Member]:
    boot = modules.closure(BOOT)
    names = list(dict.fromkeys((*boot, *modules.closure(demand, optional=True))))
    where = {name: f"lib/modules/{name}.ko" for name in names}
    load = "".join(f"/{where[name]}\n" for name in boot).encode()
    return [
        *(Member(name, stat.S_IFDIR | 0o755) for name in MODULE_FOLDERS),
        Member("etc/modules.load", stat.S_IFREG | 0o644, load),
        *(Member(path, stat.S_IFREG | 0o644, modules.content(name)) for name, path in where.items()),
    ]


def build(agent: bytes, modules: Modules | None = None, *, small: bool = False, compress: bool = False) -> bytes:
    """The initramfs, padded to whole pages."""
    data = cpio(members(agent, modules, SMALL if small else DEMAND))
    if compress:
        data = zstandard.ZstdCompressor(level=10).compress(data)
    return _aligned(data, PAGE)


def kernel_release(kernel: Path) -> str:
    """The release that a bzImage names in its header (Linux boot protocol 2.00: `kernel_version` at 0x20E)."""
    with kernel.open("rb") as file:
        head = file.read(1 << 16)
    start = int.from_bytes(head[0x20E:0x210], "little") + 0x200
    found = re.match(rb"[\w.+~-]+", head[start : start + 128])
    if head[0x202:0x206] != b"HdrS" or found is None:
        raise InvalidError(f"{kernel} is not a Linux kernel image for x86-64")
    return found.group().decode()


def write(
    output: Path, *, agent: Path, kernel: Path | None = None, modules_root: Path | None = None, small: bool = False,
    compress: bool = False,
) -> bool:  # fmt: skip
    """Build `output` and `output`.json beside it, unless they are there for the same input. True if they were built.

    With `kernel` and `modules_root` it has that kernel's modules.
    """
    modules = Modules(modules_root / kernel_release(kernel)) if kernel and modules_root else None
    content = agent.read_bytes()
    recipe = hashlib.sha256(Path(__file__).read_bytes() + content + bytes([small, compress]))
    about = output.with_name(output.name + ".json")
    wanted = {
        "kernel": modules.release if modules else "", "agent": agent_version(content), "recipe": recipe.hexdigest(),
    }  # fmt: skip
    if output.exists() and about.exists() and wanted.items() <= json.loads(about.read_text()).items():
        return False
    data = build(content, modules, small=small, compress=compress)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, data, mode=0o644, durable=False)
    wanted["sha256"] = hashlib.sha256(data).hexdigest()
    write_atomic(about, json.dumps(wanted, indent=1).encode() + b"\n", mode=0o644, durable=False)
    return True


def agent_version(agent: bytes) -> str:
    """The version that the agent's binary carries in the string `cuboid-agent/VERSION`; empty if it has none."""
    found = re.search(rb"cuboid-agent/(\d+\.\d+\.\d+)", agent)
    return found.group(1).decode() if found else ""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m cuboid.guest.initramfs", description=__doc__.partition("\n")[0])
    parser.add_argument("--kernel", type=Path, help="the guest's bzImage, if it has modules")
    parser.add_argument("--modules", type=Path, help="the folder that has one folder per release")
    parser.add_argument("--agent", type=Path, required=True, help="the static agent binary")
    parser.add_argument("--small", action="store_true", help="without NFS, netfilter and bridges")
    parser.add_argument("--compress", action="store_true", help="zstd: smaller on disk, slower to boot")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args(arguments)
    if (given.kernel is None) != (given.modules is None):
        parser.error("--kernel and --modules belong together")
    write(
        given.output, kernel=given.kernel, modules_root=given.modules, agent=given.agent, small=given.small,
        compress=given.compress,
    )  # fmt: skip


if __name__ == "__main__":
    main()

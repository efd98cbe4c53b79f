"""The initramfs builder: bytes that cpio understands, the right modules in the right order, whole pages."""

from __future__ import annotations

import lzma
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.guest import initramfs
from cuboid.guest.assets import guest_assets
from cuboid.guest.initramfs import BOOT, Member, Modules, cpio
from cuboid.lib.errors import InvalidError, UnsupportedError

RELEASE = "6.12.1-test"


def read_cpio(data: bytes) -> dict[str, tuple[int, bytes]]:
    """An independent reader of newc: name to (mode, content)."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        assert data[at : at + 6] == b"070701"
        name = data[at + 110 : at + 110 + fields[11] - 1].decode()
        begin = (at + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            assert not any(data[begin:]), "only zeros follow"
            return found
        found[name] = (fields[1], data[begin : begin + fields[6]])
        at = (begin + fields[6] + 3) & ~3


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A kernel, its modules and an agent."""
    folder = tmp_path / "modules" / RELEASE
    (folder / "kernel").mkdir(parents=True)
    rows = []
    for name in (*BOOT, "base", "deep-est", "nfsv4"):
        (folder / f"kernel/{name}.ko.xz").write_bytes(lzma.compress(name.encode()))
    needs = {"erofs": "kernel/base.ko.xz kernel/deep-est.ko.xz", "base": "kernel/deep-est.ko.xz"}
    rows = [f"kernel/{name}.ko.xz: {needs.get(name, '')}" for name in (*BOOT, "base", "deep-est", "nfsv4")]
    (folder / "modules.dep").write_text("\n".join(rows) + "\n")
    (folder / "modules.builtin").write_text("kernel/fs/ext4/ext4.ko\n")
    kernel = bytearray(0x1000)
    kernel[0x202:0x206] = b"HdrS"
    kernel[0x20E:0x210] = (0x400).to_bytes(2, "little")
    kernel[0x600 : 0x600 + 40] = f"{RELEASE} (builder) #1".encode().ljust(40, b"\0")
    (tmp_path / f"vmlinuz-{RELEASE}").write_bytes(kernel)
    (tmp_path / "agent").write_bytes(b"\x7fELF cuboid-agent/1.2.3")
    return tmp_path


def write(tree: Path, name: str = "out/initramfs") -> bool:
    return initramfs.write(
        tree / name, kernel=tree / f"vmlinuz-{RELEASE}", modules_root=tree / "modules", agent=tree / "agent"
    )


names = st.text("abc/-._", min_size=1, max_size=30)


@given(st.dictionaries(names, st.binary(max_size=50), max_size=8))
def test_what_goes_into_an_archive_comes_out_of_it(files: dict[str, bytes]) -> None:
    archive = cpio(Member(name, stat.S_IFREG | 0o644, data) for name, data in files.items())
    assert read_cpio(archive) == {name: (stat.S_IFREG | 0o644, data) for name, data in files.items()}


def test_the_image_is_whole_pages_and_the_same_each_time(tree: Path) -> None:
    assert write(tree) and write(tree, "other/initramfs")
    first, second = ((tree / name / "initramfs").read_bytes() for name in ("out", "other"))
    assert first == second
    assert len(first) % 4096 == 0


def test_modules_are_decompressed_and_loaded_after_what_they_need(tree: Path) -> None:
    write(tree)
    files = read_cpio((tree / "out/initramfs").read_bytes())
    assert files["init"] == (stat.S_IFREG | 0o755, b"\x7fELF cuboid-agent/1.2.3")
    assert files["lib/modules/nfsv4.ko"][1] == b"nfsv4"
    order = [line.rpartition("/")[2] for line in files["etc/modules.load"][1].decode().split()]
    assert order.index("deep_est.ko") < order.index("base.ko") < order.index("erofs.ko")
    assert "nfsv4.ko" not in order
    assert all(f"lib/modules/{name}" in files for name in order)
    assert stat.S_ISCHR(files["dev/console"][0])


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_module_loses_its_signature_and_nothing_else(module: bytes, signature: bytes) -> None:
    head = bytes(8) + len(signature).to_bytes(4, "big")
    signed = module + signature + head + b"~Module signature appended~\n"
    assert initramfs.unsigned(signed) == module
    assert initramfs.unsigned(module + b"\0") == module + b"\0"
    assert initramfs.unsigned(b"x" + b"\xff" * 4 + b"~Module signature appended~\n") == b""


def test_a_second_build_of_the_same_does_nothing(tree: Path) -> None:
    assert write(tree)
    assert not write(tree)
    (tree / "agent").write_bytes(b"another")
    assert write(tree)


def test_a_kernel_without_a_needed_module_is_refused_by_name(tree: Path) -> None:
    with pytest.raises(UnsupportedError, match="no module nothing"):
        Modules(tree / "modules" / RELEASE).closure(["nothing"])
    assert Modules(tree / "modules" / RELEASE).closure(["nothing", "ext4"], optional=True) == []


def test_what_is_no_kernel_is_refused(tree: Path) -> None:
    with pytest.raises(InvalidError, match="not a Linux kernel"):
        initramfs.kernel_release(tree / "agent")


def test_the_minimal_kernel_s_initramfs_is_the_agent_and_nothing_else(tree: Path) -> None:
    assert initramfs.write(tree / "out/initramfs-minimal", agent=tree / "agent")
    files = read_cpio((tree / "out/initramfs-minimal").read_bytes())
    regular = {name for name, (mode, _) in files.items() if stat.S_ISREG(mode)}
    assert regular == {"init"}
    assert not any("lib" in name for name in files)


def test_a_kernel_without_its_modules_is_refused_on_the_command_line(tree: Path) -> None:
    with pytest.raises(SystemExit):
        initramfs.main(["--agent", str(tree / "agent"), "--kernel", str(tree / "k"), "-o", str(tree / "out")])


def put_general(tree: Path) -> None:
    (tree / "build/kernel").mkdir(parents=True)
    (tree / f"vmlinuz-{RELEASE}").rename(tree / f"build/kernel/vmlinuz-{RELEASE}")
    initramfs.write(
        tree / "build/guest/initramfs", kernel=tree / f"build/kernel/vmlinuz-{RELEASE}",
        modules_root=tree / "modules", agent=tree / "agent",
    )  # fmt: skip


def put_minimal(tree: Path) -> None:
    (tree / "build/guest-kernel").mkdir(parents=True)
    (tree / "build/guest-kernel/vmlinux").write_bytes(b"\x7fELF")
    (tree / "build/guest-kernel/release").write_text("6.12.2-cuboid\n")
    initramfs.write(tree / "build/guest/initramfs-minimal", agent=tree / "agent")


def test_assets_are_found_or_the_command_that_makes_them_is_named(tree: Path) -> None:
    with pytest.raises(UnsupportedError, match="make run"):
        guest_assets(tree / "nowhere")
    put_general(tree)
    assets = guest_assets(tree)
    assert (assets.kernel.name, assets.agent_version) == (f"vmlinuz-{RELEASE}", "1.2.3")
    assert (assets.kind, assets.release) == ("general", RELEASE)
    assert assets.small == assets.initramfs
    (tree / f"build/kernel/vmlinuz-{RELEASE}").rename(tree / "build/kernel/vmlinuz-9.9")
    with pytest.raises(UnsupportedError, match="build_guest"):
        guest_assets(tree)


def test_the_minimal_kernel_is_taken_when_it_is_there_and_either_when_it_is_named(tree: Path) -> None:
    put_general(tree)
    with pytest.raises(UnsupportedError, match="make guest-kernel"):
        guest_assets(tree, kind="minimal")
    put_minimal(tree)
    assets = guest_assets(tree)
    assert assets == guest_assets(tree, kind="minimal")
    assert (assets.kind, assets.release, assets.kernel.name) == ("minimal", "6.12.2-cuboid", "vmlinux")
    assert assets.small == assets.initramfs == tree / "build/guest/initramfs-minimal"
    general = guest_assets(tree, kind="general")
    assert general.kind == "general"
    assert general.overhead_mib > assets.overhead_mib
    assert general.min_memory_mib > assets.min_memory_mib


def test_a_minimal_kernel_without_its_initramfs_is_not_taken(tree: Path) -> None:
    put_general(tree)
    put_minimal(tree)
    (tree / "build/guest/initramfs-minimal").unlink()
    assert guest_assets(tree).kind == "general"


def test_a_kind_of_guest_that_there_is_not_is_refused_with_those_that_there_are(tree: Path) -> None:
    with pytest.raises(InvalidError, match="minimal, general"):
        guest_assets(tree, kind="tiny")

"""The confined converter, and the kernel's and erofs-utils' opinion of what it writes."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
import stat
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cuboid.images.convert.run import Layer, convert
from cuboid.images.settings import ImageSettings
from cuboid.lib import proc
from cuboid.lib.errors import CuboidError, DeadlineError, ExhaustedError, HostileError
from tests.harness.erofs import fsck, look
from tests.harness.images import (
    folder,
    gnu_sparse,
    gzipped,
    hardlink,
    make_tar,
    member,
    sha256,
    small_settings,
    symlink,
)

UUID = bytes(range(16))
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a converter confines itself fully only when root starts it")
CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


async def device_of(tmp: Path, *layers: bytes, settings: ImageSettings | None = None, name: str = "device") -> Path:
    """The device of layers given as (possibly packed) tars."""
    empty = tmp / "empty"
    empty.mkdir(exist_ok=True)
    files = []
    for number, raw in enumerate(layers):
        path = tmp / f"layer-{number}"
        path.write_bytes(raw)
        files.append(Layer(path, sha256(unpacked(raw))))
    device = tmp / name
    await convert(files, device, UUID, settings or small_settings(), empty_root=empty)
    return device


def unpacked(raw: bytes) -> bytes:
    if raw.startswith(b"\x1f\x8b"):
        try:
            return gzip.decompress(raw)
        except EOFError:
            return b""
    return zstandard.decompress(raw) if raw.startswith(b"\x28\xb5\x2f\xfd") else raw


async def test_the_kernel_sees_every_kind_of_file_as_the_layers_have_it(tmp_path: Path) -> None:
    odd = b"caf\xe9".decode("utf-8", "surrogateescape")
    headers = {"SCHILY.xattr.security.capability": CAPABILITY.decode("utf-8", "surrogateescape"), "mtime": "7.5"}
    xattrs = {"SCHILY.xattr.user.note": "n" * 5000, "SCHILY.xattr.trusted.t": "", "SCHILY.xattr.nonsense": "x"}
    raw = make_tar(
        [
            folder("./", mode=0o755, mtime=99), folder("tmp", mode=0o1777),
            folder("bin", uid=70_000, gid=4_000_000_000),
            (member("bin/su", mode=0o4755, mtime=5), b"#!" * 40_000), (member("bin/ping", pax_headers=headers), b"p"),
            hardlink("bin/ping4", "bin/ping"), symlink("sh", "bin/su"), symlink("long", "x/" * 2040 + "y"),
            member("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666), member("pipe", tarfile.FIFOTYPE),
            member("disk", tarfile.BLKTYPE, devmajor=259, devminor=70_000), ("empty", b""), (odd, b"latin"),
            (member("noted", pax_headers=xattrs), b"1"), ("n" * 255, b"long name"), ("block", b"b" * 4096),
        ]
    )  # fmt: skip
    device = await device_of(tmp_path, raw)
    await fsck(device)
    found = await look(device, tmp_path)
    assert (found["/tmp"].permissions, found["/bin"].uid, found["/bin"].gid) == (0o1777, 70_000, 4_000_000_000)
    assert (found["/bin/su"].permissions, found["/bin/su"].mtime) == (0o4755, 5_000_000_000)
    assert found["/bin/su"].sha256 == hashlib.sha256(b"#!" * 40_000).hexdigest()
    assert found["/bin/ping"].xattrs == {"security.capability": CAPABILITY.hex()}
    assert found["/bin/ping"].mtime == 7_500_000_000
    assert (found["/bin/ping"].ino, found["/bin/ping"].links) == (found["/bin/ping4"].ino, 2)
    assert (found["/sh"].target, found["/long"].target) == ("bin/su", "x/" * 2040 + "y")
    assert (stat.S_ISCHR(found["/null"].mode), found["/null"].rdev) == (True, os.makedev(1, 3))
    assert (stat.S_ISBLK(found["/disk"].mode), found["/disk"].rdev) == (True, os.makedev(259, 70_000))
    assert stat.S_ISFIFO(found["/pipe"].mode)
    assert found[f"/{odd}"].sha256 == hashlib.sha256(b"latin").hexdigest()
    assert found["/noted"].xattrs == {"user.note": (b"n" * 5000).hex(), "trusted.t": ""}
    assert (found["/" + "n" * 255].size, found["/block"].size, found["/empty"].size) == (9, 4096, 0)
    assert (found["/"].mtime, found["/"].links) == (99_000_000_000, 4)


async def test_layers_merge_with_whiteouts_links_and_changed_types(tmp_path: Path) -> None:
    lower = make_tar([("a/gone", b"1"), ("a/kept", b"2"), ("type", b"3"), ("o/old", b"4"), symlink("via", "a")])
    middle = make_tar([("a/.wh.gone", b""), folder("type"), ("type/in", b"5"), hardlink("linked", "a/kept")])
    upper = make_tar([("o/.wh..wh..opq", b""), ("o/new", b"6"), ("via/through", b"7")])
    device = await device_of(tmp_path, lower, gzipped(middle), zstandard.compress(upper))
    await fsck(device)
    assert set(await look(device, tmp_path)) == {
        "/", "/a", "/a/kept", "/a/through", "/type", "/type/in", "/o", "/o/new", "/via", "/linked",
    }  # fmt: skip


async def test_a_folder_of_ten_thousand_names_and_a_deep_path_are_found_by_the_kernel(tmp_path: Path) -> None:
    deep = "/".join(["d" * 100] * 30)
    raw = make_tar([(f"many/{n:05d}-{'x' * (n % 50)}", b"") for n in range(10_000)] + [(f"{deep}/end", b"e")])
    device = await device_of(tmp_path, raw)
    await fsck(device)
    found = await look(device, tmp_path)
    assert len([path for path in found if path.startswith("/many/")]) == 10_000
    assert found[f"/{deep}/end"].size == 1


async def test_a_sparse_file_reads_with_its_holes(tmp_path: Path) -> None:
    device = await device_of(tmp_path, gnu_sparse(10 << 20, [(4097, b"a" * 512), (9 << 20, b"b")]))
    await fsck(device)
    expected = bytearray(10 << 20)
    expected[4097 : 4097 + 512] = b"a" * 512
    expected[9 << 20 : (9 << 20) + 1] = b"b"
    assert (await look(device, tmp_path))["/sparse"].sha256 == hashlib.sha256(expected).hexdigest()
    assert device.stat().st_blocks * 512 < 1 << 20


async def test_the_device_does_not_depend_on_how_layers_were_packed(tmp_path: Path) -> None:
    layers = [make_tar([("a", os.urandom(50_000))]), make_tar([("b", b"b")]), make_tar([(".wh.b", b"")])]
    one = await device_of(tmp_path, *layers, name="one")
    two = await device_of(tmp_path, *map(gzipped, layers), name="two")
    three = await device_of(tmp_path, *map(zstandard.compress, layers), name="three")
    assert one.read_bytes() == two.read_bytes() == three.read_bytes()


async def test_127_layers_become_one_device(tmp_path: Path) -> None:
    layers = [make_tar([(f"only-{n}", b"x" * n), ("same", str(n).encode())]) for n in range(127)]
    device = await device_of(tmp_path, *layers)
    found = await look(device, tmp_path)
    assert len(found) == 129
    assert found["/same"].sha256 == hashlib.sha256(b"126").hexdigest()


async def test_an_image_without_layers_is_an_empty_folder(tmp_path: Path) -> None:
    device = await device_of(tmp_path)
    await fsck(device)
    assert list(await look(device, tmp_path)) == ["/"]


# --- hostile layers: one sentence each, and no device left ------------------------------------------------------------


async def refused(tmp: Path, *layers: bytes, settings: ImageSettings | None = None) -> CuboidError:
    with pytest.raises(CuboidError) as caught:
        await device_of(tmp, *layers, settings=settings)
    assert not (tmp / "device").exists()
    assert "\n" not in str(caught.value)
    return caught.value


async def test_path_traversal_is_refused(tmp_path: Path) -> None:
    error = await refused(tmp_path, make_tar([("../../etc/cron.d/evil", b"x")]))
    assert isinstance(error, HostileError)
    assert "leaves the image" in error.message


async def test_writing_through_symlinks_stays_inside_the_image(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    device = await device_of(tmp_path, make_tar([symlink("esc", str(outside)), ("esc/evil", b"x")]))
    assert list(outside.iterdir()) == []
    assert f"{outside}/evil" in await look(device, tmp_path)


async def test_a_truncated_gzip_layer_is_refused(tmp_path: Path) -> None:
    packed = gzipped(make_tar([("f", os.urandom(100_000))]))
    error = await refused(tmp_path, packed[: len(packed) // 2])
    assert isinstance(error, HostileError)
    assert "truncated" in error.message


async def test_a_layer_that_is_not_what_its_image_says_is_refused(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(make_tar([("f", b"x")]))
    (tmp_path / "empty").mkdir()
    layer = Layer(tmp_path / "layer", "sha256:" + "0" * 64)
    with pytest.raises(HostileError, match="digest"):
        await convert([layer], tmp_path / "device", UUID, small_settings(), empty_root=tmp_path / "empty")
    assert not (tmp_path / "device").exists()


async def test_a_compression_bomb_is_cut_off(tmp_path: Path) -> None:
    bomb = gzipped(make_tar([("zeros", bytes(64 << 20))]))
    error = await refused(tmp_path, bomb, settings=small_settings(ratio_free_bytes=4 << 20))
    assert isinstance(error, HostileError)
    assert "bomb" in error.message


async def test_an_endless_run_of_entries_is_cut_off(tmp_path: Path) -> None:
    one = make_tar([("f", b"")])[:512]
    endless = zstandard.compress(one * 200_000)
    error = await refused(tmp_path, endless, settings=small_settings(max_entries=10_000))
    assert isinstance(error, HostileError)
    assert "10000 files" in error.message


async def test_a_device_bomb_is_cut_off(tmp_path: Path) -> None:
    raw = make_tar([member(str(n), tarfile.CHRTYPE, devmajor=1) for n in range(20)])
    error = await refused(tmp_path, raw, settings=small_settings(max_device_nodes=10))
    assert "device nodes" in error.message


async def test_a_sparse_giant_is_refused(tmp_path: Path) -> None:
    error = await refused(tmp_path, gnu_sparse(1 << 33, []), settings=small_settings(max_device_bytes=1 << 30))
    assert "max_device_bytes" in str(error)


async def test_memory_is_limited(tmp_path: Path) -> None:
    headers = {"SCHILY.xattr.user.a": "v" * 60_000}
    raw = make_tar([(member(str(n), pax_headers=headers), b"") for n in range(3000)])
    error = await refused(tmp_path, raw, settings=small_settings(worker_memory_bytes=160 << 20))
    assert isinstance(error, HostileError)
    assert "memory" in error.message


async def test_processor_time_is_limited(tmp_path: Path) -> None:
    endless = zstandard.compress(make_tar([("f", b"")])[:512] * 900_000)
    changes = {"worker_cpu_seconds": 1, "ratio_free_bytes": 1 << 40}
    error = await refused(tmp_path, endless, settings=small_settings(**changes))
    assert isinstance(error, HostileError)
    assert "processor time" in error.message


async def test_a_conversion_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    error = await refused(tmp_path, make_tar([("f", bytes(50 << 20))]), settings=small_settings(convert_deadline=0.05))
    assert isinstance(error, DeadlineError)


async def test_a_full_disk_is_put_into_words(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    await proc.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], timeout=10)
    try:
        (tmp_path / "layer").write_bytes(raw := make_tar([("f", os.urandom(4 << 20))]))
        (tmp_path / "empty").mkdir()
        with pytest.raises(ExhaustedError, match="no space"):
            await convert(
                [Layer(tmp_path / "layer", sha256(raw))], disk / "device", UUID, small_settings(),
                empty_root=tmp_path / "empty",
            )  # fmt: skip
        assert list(disk.iterdir()) == []
    finally:
        await proc.run(["umount", disk], timeout=10)


# --- what a converter that was taken over could do -------------------------------------------------------------------


async def confined(tmp: Path, code: str) -> str:
    """Run Python code in a process confined as a converter is; its output."""
    (tmp / "empty").mkdir(exist_ok=True)
    prelude = (
        "import ctypes, errno, os, resource, signal, socket, sys\n"
        "from cuboid.images.convert.confine import Confinement, confine\n"
        f"confine(Confinement({str(tmp / 'empty')!r}, 1_900_000_000, 1 << 30, 60, 1 << 20, 64))\n"
        "def tried(action):\n"
        "    try: action()\n"
        "    except OSError as e: return errno.errorcode[e.errno]\n"
        "    return 'done'\n"
    )
    result = await proc.run([sys.executable, "-I", "-c", f"{prelude}{code}\nos._exit(0)"], timeout=20)
    return result.text


@pytest.mark.parametrize(
    "action",
    [
        "os.open('/', os.O_RDONLY)", "socket.socket()", "os.fork()", "os.kill(os.getppid(), 0)", "os.setuid(0)",
        "os.execv('/bin/sh', ['sh'])", "os.mkdir('/x')", "os.chroot('/')", "os.pipe()", "os.stat('/')",
    ],
)  # fmt: skip
async def test_a_confined_process_cannot_leave_its_descriptors(tmp_path: Path, action: str) -> None:
    assert await confined(tmp_path, f"os.write(1, tried(lambda: {action}).encode())") == "EPERM"


async def test_a_confined_process_has_a_uid_of_its_own_and_limits(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code = (
        "import os, resource, sys, time\nfrom cuboid.images.convert import confine as c\n"
        "c._SYSCALLS |= {'getuid': 102, 'getgid': 104, 'prlimit64': 302, 'getgroups': 115}\n"
        f"c.confine(c.Confinement({str(tmp_path / 'empty')!r}, 1_900_000_000, 1 << 30, 60, 1 << 20, 64))\n"
        "r = resource\n"
        "print(os.getuid() - os.getpid(), os.getgid() - os.getpid(), os.getgroups(), r.getrlimit(r.RLIMIT_FSIZE)[1],"
        " r.getrlimit(r.RLIMIT_NOFILE)[1], r.getrlimit(r.RLIMIT_CORE)[1], flush=True)\nos._exit(0)"
    )
    result = await proc.run([sys.executable, "-I", "-c", code], timeout=20)
    assert result.text.split("\n")[0] == "1900000000 1900000000 [] 1048576 64 0"


# --- any tree, through the kernel ------------------------------------------------------------------------------------

NAMES = st.binary(min_size=1, max_size=255).filter(lambda n: not set(n) & {0, 47} and n not in (b".", b".."))
FILES = st.tuples(st.binary(max_size=9000), st.integers(0, 0o7777), st.integers(0, 2**32 - 2), st.integers(0, 2**33))


@hypothesis_settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES.filter(lambda n: not n.startswith(b".wh.")), FILES, max_size=40))
def test_any_files_are_seen_by_the_kernel_as_they_were(
    tmp_path: Path, files: dict[bytes, tuple[bytes, int, int, int]]
) -> None:
    members: list[tuple[tarfile.TarInfo, bytes]] = [
        (member(os.fsdecode(name), mode=mode, uid=uid, mtime=mtime), content)
        for name, (content, mode, uid, mtime) in files.items()
    ]
    (tmp_path / "device").unlink(missing_ok=True)
    device = asyncio.run(device_of(tmp_path, make_tar(members, tarfile.GNU_FORMAT)))
    asyncio.run(fsck(device))
    found = asyncio.run(look(device, tmp_path))
    assert {os.fsencode(path) for path in found} == {b"/"} | {b"/" + name for name in files}
    for name, (content, mode, uid, mtime) in files.items():
        seen = found[os.fsdecode(b"/" + name)]
        assert (seen.permissions, seen.uid, seen.mtime, seen.size) == (mode, uid, mtime * 10**9, len(content))
        assert seen.sha256 == hashlib.sha256(content).hexdigest()

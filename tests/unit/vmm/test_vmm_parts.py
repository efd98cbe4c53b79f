"""The small parts under the driver: plans, padding, consoles, users, the counter's rate."""

from __future__ import annotations

import gzip
import lzma
import os
import struct
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from cuboid.lib.errors import AlreadyExistsError, ExhaustedError, InvalidError, NotFoundError, UnsupportedError
from cuboid.lib.linux.cgroup import Hierarchy
from cuboid.vmm.base import HostLimits
from cuboid.vmm.check import check_id
from cuboid.vmm.qemu import boot, console, tsc
from cuboid.vmm.qemu.jail import Jails
from cuboid.vmm.qemu.launch import complaint
from cuboid.vmm.qemu.plan import Plan
from cuboid.vmm.settings import VmmSettings


def test_the_launcher_is_told_everything_in_words_and_the_command_line_last() -> None:
    plan = Plan(
        root="/r", root_size=7, binds=(("/a", "/b"), ("/c", "/d")), writable=(("/w", "/m"),),
        links=(("usr/lib", "/lib"),),
        netns="", taps=("t0", "t1"), cgroups=("/g",), fds=(5, 6), stderr=9, uid=1000, max_processes=3, max_files=4,
        pid_file="/p", preload="", argv=("/usr/bin/qemu", "--", "root"),
    )  # fmt: skip
    words = plan.words()
    end = words.index("--")
    assert words[end + 1 :] == ["/usr/bin/qemu", "--", "root"]
    pairs = list(zip(words[0:end:2], words[1:end:2], strict=True))
    assert [value for key, value in pairs if key == "bind_to"] == ["/b", "/d"]
    assert [value for key, value in pairs if key in ("tap", "fd", "writable_from", "link_to")] == [
        "/w", "/lib", "t0", "t1", "5", "6",
    ]  # fmt: skip
    assert dict(pairs).keys() >= {"root", "root_size", "netns", "stderr", "uid", "max_processes", "pid_file", "preload"}


@given(st.binary(max_size=10_000))
def test_an_initramfs_is_padded_to_whole_pages_with_zeros(data: bytes) -> None:
    padded = boot.padded(data)
    assert len(padded) % 4096 == 0
    assert padded.startswith(data)
    assert len(padded) - len(data) < 4096
    assert not padded[len(data) :].strip(b"\0")


def test_an_initramfs_that_fits_is_used_as_it_is_and_another_is_copied_once(tmp_path: Path) -> None:
    good, odd = tmp_path / "good", tmp_path / "odd"
    good.write_bytes(bytes(8192))
    good.chmod(0o644)
    odd.write_bytes(b"x" * 5000)
    assert boot.initramfs(good, tmp_path / "cache") == good
    copy = boot.initramfs(odd, tmp_path / "cache")
    assert copy.read_bytes() == boot.padded(odd.read_bytes())
    assert copy.stat().st_mode & 0o777 == 0o644
    assert boot.initramfs(odd, tmp_path / "cache") == copy
    odd.write_bytes(b"y" * 5001)
    assert boot.initramfs(odd, tmp_path / "cache") != copy


def test_an_initramfs_that_a_jailed_vmm_may_not_read_is_copied(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_bytes(bytes(4096))
    private.chmod(0o600)
    assert boot.initramfs(private, tmp_path / "cache") != private


def test_files_that_cannot_be_booted_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="gone"):
        boot.kernel(tmp_path / "gone")
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(InvalidError, match="not a Linux kernel"):
        boot.kernel(empty)
    with pytest.raises(InvalidError, match="is empty"):
        boot.initramfs(empty, tmp_path)


def elf(note: bytes = b"Xen\0", kind: int = 18) -> bytes:
    """An ELF file with one note."""
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    notes = (
        struct.pack("<III", 5, 6, 1)
        + b"other\0\0\0"
        + b"sixsix\0\0"
        + struct.pack("<III", 4, 8, kind)
        + note
        + bytes(8)
    )
    return header + struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(notes), len(notes), 4) + notes


def bzimage(payload: bytes) -> bytes:
    """A boot image with one set-up sector, that unpacks `payload`."""
    image = bytearray(1024)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    image[0x248:0x250] = struct.pack("<II", 16, len(payload))
    return bytes(image) + bytes(16) + payload + b"what follows"


SIZE = struct.pack("<I", 1000)  # appended by the kernel's build
PACKED = {
    "zstd": zstandard.compress(elf()) + SIZE,
    "xz": lzma.compress(elf()) + SIZE,
    "gzip": gzip.compress(elf()) + SIZE,
}


@pytest.mark.parametrize("packing", PACKED)
def test_a_kernel_is_unpacked_once_for_emulated_machines(tmp_path: Path, packing: str) -> None:
    image = tmp_path / "vmlinuz"
    image.write_bytes(bzimage(PACKED[packing]))
    copy = boot.unpacked(image, tmp_path / "cache")
    assert copy.read_bytes() == elf()
    assert copy.stat().st_mode & 0o777 == 0o644
    before = copy.stat().st_mtime_ns
    assert boot.unpacked(image, tmp_path / "cache") == copy
    assert copy.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x02!L\x18 packed in another way", zstandard.compress(elf())[:-9], gzip.compress(b"no ELF"),
     lzma.compress(elf(kind=17)), gzip.compress(elf(note=b"GNU\0")), lzma.compress(elf()[:70])],
    ids=["nothing", "unknown", "short zstd", "no elf", "other kind", "other note", "short lzma"],  # gzip holds the time
)  # fmt: skip
def test_a_kernel_that_must_unpack_itself_is_booted_as_it_is(tmp_path: Path, payload: bytes) -> None:
    image = tmp_path / "vmlinuz"
    image.write_bytes(bzimage(payload))
    assert boot.unpacked(image, tmp_path / "cache") == image
    assert not (tmp_path / "cache").exists()


@given(st.binary(max_size=2000), st.binary(max_size=300))
def test_any_bytes_are_a_kernel_to_unpack_or_not(image: bytes, note: bytes) -> None:
    boot.elf_inside(image)
    boot.elf_inside(bzimage(image))
    boot.has_pvh_entry(elf()[:120] + note)


@given(st.text())
def test_last_words_are_printable_and_bounded_whatever_the_guest_wrote(text: str) -> None:
    words = console.last_words(text)
    lines = words.split("\n")
    assert len(lines) <= console.LAST_LINES
    assert all(line.isprintable() and len(line) <= console.LINE_LENGTH for line in lines)


def test_last_words_of_a_panic_are_its_reason_and_not_its_dump() -> None:
    text = "agent: no disk\r\n[ 1.0] Kernel panic - not syncing: Attempted to kill init!\r\n[ 1.1] Call Trace:\r\n"
    assert console.last_words(text) == "agent: no disk\n[ 1.0] Kernel panic - not syncing: Attempted to kill init!"


def test_qemus_error_is_found_among_its_words() -> None:
    said = 'qemu-system-x86_64: -device x: Failed to get "write" lock\nIs another process using the image [y]?\n'
    assert complaint(said) == '-device x: Failed to get "write" lock'
    assert complaint("cannot become the VMM: no\n") == "cannot become the VMM: no"
    assert complaint("") == ""


def jails(folder: Path, count: int = 8) -> Jails:
    return Jails(folder, folder, VmmSettings(uid_base=2_090_000_000, uid_count=count), Hierarchy("none"))


def test_each_vm_has_a_user_of_its_own_until_none_is_left(tmp_path: Path) -> None:
    made = jails(tmp_path)
    users = {made.jail(f"vm-{number}").make(HostLimits()) for number in range(8)}
    assert users == set(range(2_090_000_000, 2_090_000_008))
    with pytest.raises(ExhaustedError, match="uid_count"):
        made.jail("vm-8").make(HostLimits())
    made.jail("vm-3").remove()
    assert made.jail("vm-9").make(HostLimits()) in users


def test_a_jail_is_made_once_and_removed_whole(tmp_path: Path) -> None:
    made = jails(tmp_path)
    made.jail("vm-1").make(HostLimits())
    with pytest.raises(AlreadyExistsError):
        made.jail("vm-1").make(HostLimits())
    assert made.ids() == {"vm-1"}
    for _ in range(2):
        made.jail("vm-1").remove()
    assert made.ids() == set()
    assert not list((tmp_path / "vmm").iterdir())
    assert not list((tmp_path / "vmm-users").iterdir())


def test_a_jail_notes_what_is_in_its_slots(tmp_path: Path) -> None:
    jail = jails(tmp_path).jail("vm-1")
    jail.make(HostLimits())
    jail.note_disk("image", Path("/images/one"))
    jail.note_disk("data", Path("/disks/a"))
    jail.note_disk("data", Path("/disks/b"))
    jail.note_disk("image", None)
    assert jails(tmp_path).jail("vm-1").noted_disks() == {"data": Path("/disks/b")}


def test_a_memory_file_is_the_users_alone_is_found_by_id_and_goes_with_its_vm(tmp_path: Path) -> None:
    jail = jails(tmp_path).jail("vm-1")
    jail.make_memory(1 << 20, os.getuid())
    assert (jail.memory.stat().st_size, jail.memory.stat().st_blocks) == (1 << 20, 0)
    assert jail.memory.stat().st_mode & 0o777 == 0o600
    assert jails(tmp_path).ids() == {"vm-1"}
    jail.remove()
    assert jails(tmp_path).ids() == set()


def test_an_unfinished_snapshot_goes_with_its_vm(tmp_path: Path) -> None:
    jail = jails(tmp_path).jail("vm-1")
    jail.make(HostLimits())
    draft = tmp_path / "draft"
    draft.mkdir()
    (draft / "state").write_bytes(b"half")
    jail.note_draft(draft)
    for _ in range(2):
        jail.drop_draft()
    assert not draft.exists()
    jail.note_draft(draft)
    jail.remove()  # there is none any more: nothing to remove


def test_a_run_folder_too_deep_for_sockets_is_refused(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    jail = jails(deep).jail("vm-1")
    jail.make(HostLimits())
    with pytest.raises(InvalidError, match="too long"):
        jail.listen()


@pytest.mark.parametrize("vm_id", ["", "UPPER", "a/b", "..", "a" * 41, "a b", "ä", "a\n"])
def test_an_id_that_is_no_name_is_refused(vm_id: str) -> None:
    with pytest.raises(InvalidError):
        check_id(vm_id)


def test_the_rate_of_the_counter_is_read_where_it_cannot_be_measured() -> None:
    assert tsc.cpuinfo_khz("model name\t: Some CPU @ 2.10GHz\ncpu MHz\t\t: 1999.5\n") == 2_100_000
    assert tsc.cpuinfo_khz("model name\t: Some CPU\ncpu MHz\t\t: 2095.078\n") == 2_095_078
    with pytest.raises(UnsupportedError):
        tsc.cpuinfo_khz("nothing")


def test_a_rate_stays_what_it_was_measured_first_until_the_host_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "vmm/tsc-khz"
    found = []
    for measured in (2_100_000, 2_100_300, 2_099_700, 2_101_000, 2_100_900):
        monkeypatch.setattr(tsc, "khz", lambda measured=measured: measured)
        found.append(tsc.settled(cache))
    assert found == [2_100_000, 2_100_000, 2_100_000, 2_101_000, 2_101_000]
    cache.write_text("no number")
    assert tsc.settled(cache) == 2_100_900


def test_the_measured_rate_is_that_of_a_real_counter() -> None:
    first, second = tsc._measured(), tsc._measured()
    assert 500_000 < first < 10_000_000
    assert abs(first - second) < first / 1000


@pytest.mark.skipif(os.geteuid() != 0, reason="a detached tmpfs needs root")
def test_a_console_holds_no_more_than_its_size_and_keeps_the_newest() -> None:
    output, console_fd, log_fd = console.make(64 << 10)
    try:
        with pytest.raises(OSError, match="No space"):
            while True:
                os.write(console_fd, b"x" * 4095 + b"\n")
        output.trim()
        os.write(console_fd, b"newest")
        assert output.tail(6) == "newest"
        assert output.tail(100).endswith("x\nnewest")
        os.write(log_fd, b"a complaint\n")
        assert output.vmm_log() == "a complaint"
    finally:
        output.close()
        os.close(console_fd)
        os.close(log_fd)
    assert output.tail(6) == "newest"
    assert output.vmm_log() == "a complaint"


def test_a_jail_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    made = jails(tmp_path, count=1)
    made.jail("vm-1").make(HostLimits())
    with pytest.raises(ExhaustedError):
        made.jail("vm-2").make(HostLimits())
    assert made.ids() == {"vm-1"}
    assert [entry.name for entry in (tmp_path / "vmm").iterdir()] == ["vm-1"]

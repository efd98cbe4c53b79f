"""The minimal kernel's recipe, its cache, and the sizes of what a guest boots."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
RECIPE = ROOT / "guest/kernel"
SCRIPT = ROOT / "tools/build_kernel.sh"
BUILT = ROOT / "build/guest-kernel"
FILES = ("vmlinux", "bzImage", "config", "release", "recipe")
MB = 1_000_000
# Bytes. What goes beyond is a decision, not an accident: say in docs/design/0013-guest-kernel.md what it buys.
BUDGET = {
    BUILT / "vmlinux": 22 * MB,  # a third of it is padding to whole huge pages
    BUILT / "bzImage": 6 * MB,
    ROOT / "build/guest/cuboid-agent": 4 * MB,
    ROOT / "build/guest/initramfs-minimal": 4 * MB,
}
# What the threat model says is not in it, and why nothing has to be locked down.
SHUT = (
    "MODULES KEXEC KEXEC_FILE HIBERNATION SUSPEND DEVMEM DEVPORT PROC_KCORE X86_MSR X86_CPUID X86_IOPL_IOPERM PCI "
    "ACPI_TABLE_UPGRADE MAGIC_SYSRQ IA32_EMULATION X86_X32_ABI MODIFY_LDT_SYSCALL USERFAULTFD SWAP DEBUG_FS VT INPUT "
    "USB_SUPPORT CRYPTO_USER_API_HASH CRYPTO_USER_API_SKCIPHER MSDOS_PARTITION EFI_PARTITION"
).split()


def fragments() -> list[Path]:
    return sorted((RECIPE / "config.d").glob("*.config"))


def options(text: str) -> list[tuple[str, str]]:
    """Name and value of each line of a configuration; what is not set is "n"."""
    found = re.findall(r"^(?:# )?CONFIG_(\w+)(?:=(.*)| is not set)$", text, re.MULTILINE)
    return [(name, value or "n") for name, value in found]


def test_each_option_is_wanted_in_one_group_only() -> None:
    names = Counter(name for path in fragments() for name, _ in options(path.read_text()))
    assert [name for name, count in names.items() if count > 1] == []
    assert names.total() > 200


@pytest.mark.parametrize("path", fragments(), ids=lambda path: path.stem)
def test_each_group_begins_with_its_reason(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert re.match(r"# [A-Z].{30,}", first), first


def test_what_the_threat_model_says_is_not_in_it_is_turned_off_by_name() -> None:
    wanted = dict(option for path in fragments() for option in options(path.read_text()))
    assert {name: wanted.get(name) for name in SHUT} == dict.fromkeys(SHUT, "n")


def test_the_kernel_that_was_built_has_what_was_wanted() -> None:
    if not (BUILT / "recipe").exists() or (BUILT / "recipe").read_text().split()[0] != recipe():
        pytest.skip("the minimal kernel of this recipe has not been built (make guest-kernel)")
    built = dict(options((BUILT / "config").read_text()))
    wanted = dict(option for path in fragments() for option in options(path.read_text()))
    assert {name: value for name, value in wanted.items() if built.get(name, "n") != value} == {}


@pytest.mark.parametrize("path", BUDGET, ids=lambda path: path.name)
def test_what_a_guest_boots_stays_within_its_size(path: Path) -> None:
    if not path.exists():
        pytest.skip(f"{path.relative_to(ROOT)} has not been built (make guest-kernel, make agent)")
    size = path.stat().st_size
    print(f"{path.name}: {size:,} bytes of {BUDGET[path]:,}")
    assert size <= BUDGET[path]


def recipe() -> str:
    """The part of a cache entry's name that stands for guest/kernel."""
    parts = [RECIPE / "compile.sh", *sorted((RECIPE / "patches").glob("*.patch")), *fragments()]
    return hashlib.sha256(b"".join(path.read_bytes() for path in parts)).hexdigest()[:24]


def entry(cache: Path, version: str = "6.12.1-1") -> Path:
    folder = cache / f"{recipe()}-{version}"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text(f"{name} {version}\n")
    rows = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in FILES]
    (folder / "SHA256SUMS").write_text("".join(rows))
    return folder


def environment(tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ, "CUBOID_KERNEL_CACHE": str(tmp_path / "cache"), "CUBOID_KERNEL_TARGET": str(tmp_path / "target"),
    }  # fmt: skip


def cached(tmp_path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, "--cached"], env=environment(tmp_path), timeout=20, capture_output=True, text=True, check=False
    )


def test_a_kernel_in_the_cache_is_used_without_compiling(tmp_path: Path) -> None:
    entry(tmp_path / "cache")
    assert cached(tmp_path).returncode == 0
    assert {path.name for path in (tmp_path / "target").iterdir()} == {*FILES, "SHA256SUMS"}
    before = (tmp_path / "target").stat().st_mtime_ns
    assert cached(tmp_path).returncode == 0
    assert (tmp_path / "target").stat().st_mtime_ns == before, "what is there already stays"


def test_a_file_that_was_damaged_after_it_was_taken_is_put_right(tmp_path: Path) -> None:
    entry(tmp_path / "cache")
    assert cached(tmp_path).returncode == 0
    (tmp_path / "target/vmlinux").write_text("something else")
    assert cached(tmp_path).returncode == 0
    assert (tmp_path / "target/vmlinux").read_text() == "vmlinux 6.12.1-1\n"


def test_an_empty_cache_says_how_a_kernel_is_made(tmp_path: Path) -> None:
    done = cached(tmp_path)
    assert (done.returncode, (tmp_path / "target").exists()) == (3, False)
    assert "make guest-kernel" in done.stderr


def test_a_damaged_or_half_entry_is_not_used(tmp_path: Path) -> None:
    damaged = entry(tmp_path / "cache")
    (damaged / "vmlinux").write_text("one bit more")
    half = entry(tmp_path / "cache", "6.12.2-1")
    (half / "SHA256SUMS").unlink()
    (tmp_path / "cache/.build.abc/entry").mkdir(parents=True)
    done = cached(tmp_path)
    assert (done.returncode, (tmp_path / "target").exists()) == (3, False)
    assert done.stderr.count("damaged") == 2
    entry(tmp_path / "cache", "6.12.0-1")
    assert cached(tmp_path).returncode == 0
    assert (tmp_path / "target/release").read_text() == "release 6.12.0-1\n"


def test_a_build_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    if not Path("/usr/src/linux-source-6.12.tar.xz").exists():
        pytest.skip("linux-source-6.12 is not installed (make guest-kernel)")
    cache = tmp_path / "cache"
    (cache / ".build.killed").mkdir(parents=True)
    building = subprocess.Popen([SCRIPT], env=environment(tmp_path), stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while not any(cache.glob(".build.*/source/*")):
            assert time.monotonic() < deadline and building.poll() is None
            time.sleep(0.05)
        assert not (cache / ".build.killed").exists(), "what an earlier build left is gone"
    finally:
        os.killpg(building.pid, signal.SIGTERM)
        time.sleep(0.02)
        os.killpg(building.pid, signal.SIGTERM)  # as `timeout` does, which is in the group that it signals
        building.wait(30)
    assert {path.name for path in cache.iterdir()} <= {".lock", "build.log"}
    assert not (tmp_path / "target").exists()


def test_an_unknown_option_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPT, "--cahced"], env=environment(tmp_path), timeout=20, capture_output=True, text=True, check=False
    )
    assert (done.returncode, (tmp_path / "cache").exists()) == (2, False)
    assert "--cached" in done.stderr

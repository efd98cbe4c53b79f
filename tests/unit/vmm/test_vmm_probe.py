"""How the accelerator is chosen, and the guest that finds out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cuboid.lib.errors import DeadlineError, InvalidError
from cuboid.vmm import probe as probing
from cuboid.vmm.probe import Outcome, candidates, conclude, probe


def test_the_first_that_boots_is_taken_and_the_others_faults_are_told() -> None:
    answer = conclude([Outcome("kvm", failure="the kernel hung"), Outcome("tcg", seconds=2.0)])
    assert (answer.usable, answer.accel, answer.boot_seconds) == (True, "tcg", 2.0)
    assert "KVM: the kernel hung" in answer.reason


def test_nothing_that_boots_is_not_usable_and_says_why() -> None:
    answer = conclude([Outcome("kvm", failure="no /dev/kvm"), Outcome("tcg", failure="too slow")])
    assert (answer.usable, answer.accel) == (False, "")
    assert "no /dev/kvm" in answer.reason
    assert "too slow" in answer.reason


def test_a_setting_that_is_no_accelerator_is_refused() -> None:
    assert candidates("auto") == ("kvm", "tcg")
    assert candidates("tcg") == ("tcg",)
    with pytest.raises(InvalidError, match="xen"):
        candidates("xen")


class Host:
    """Boots what `works` says and counts."""

    def __init__(self, works: Callable[[str], bool]) -> None:
        self._works = works
        self.tried: list[str] = []

    async def attempt(self, accel: str) -> float:
        self.tried.append(accel)
        if not self._works(accel):
            raise DeadlineError("the kernel did not reach user space")
        return 1.5


async def test_the_answer_is_kept_until_the_host_changes(tmp_path: Path) -> None:
    host, cache = Host(lambda accel: accel == "tcg"), tmp_path / "state/probe.json"
    first = await probe("auto", host.attempt, cache, "host one")
    assert await probe("auto", host.attempt, cache, "host one") == first
    assert host.tried == ["kvm", "tcg"]
    await probe("auto", host.attempt, cache, "host two")
    assert host.tried == ["kvm", "tcg"] * 2


async def test_a_host_where_nothing_boots_is_asked_again(tmp_path: Path) -> None:
    host, cache = Host(lambda accel: False), tmp_path / "probe.json"
    assert not (await probe("auto", host.attempt, cache, "key")).usable
    assert not cache.exists()
    assert host.tried == ["kvm", "tcg", "tcg"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"key": "key"}', b'{"key": "key", "probe": {"x": 1}}', b"\xff"]
)
async def test_a_broken_cache_is_no_answer(tmp_path: Path, content: bytes) -> None:
    cache = tmp_path / "probe.json"
    cache.write_bytes(content)
    assert (await probe("tcg", Host(lambda accel: True).attempt, cache, "key")).usable


def test_the_key_changes_with_the_kernel_and_the_setting(tmp_path: Path) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"one")
    first = probing.host_key("auto", kernel)
    assert probing.host_key("auto", kernel) == first
    assert probing.host_key("tcg", kernel) != first
    kernel.write_bytes(b"another")
    os.utime(kernel, ns=(1, 1))
    assert probing.host_key("auto", kernel) != first


def test_the_guest_is_a_small_elf_program_in_a_cpio_archive() -> None:
    program = probing.guest_program()
    assert program.startswith(b"\x7fELF\x02\x01")
    assert len(program) < 200
    archive = probing.initramfs()
    assert archive.startswith(b"070701")
    assert len(archive) % 4 == 0
    assert archive.index(program) % 4 == 0
    assert b"TRAILER!!!" in archive

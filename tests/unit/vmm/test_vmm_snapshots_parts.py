"""The folder of a snapshot, digests of sparse files, and what a VMM uses by part."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuboid.lib.errors import AlreadyExistsError, ConflictError, CuboidError
from cuboid.vmm import snapshots
from cuboid.vmm.qemu import usage
from cuboid.vmm.snapshots import BLOCK, Draft, Shape, Slot

SHAPE = Shape(1, 128, (Slot("image", True),), 1)
FACTS = {"driver": "test", "CPU": "imaginary"}


def snapshot(folder: Path) -> Path:
    with Draft(folder, "vm-1") as draft:
        (draft.path / "state").write_bytes(b"state")
        draft.finish(FACTS, SHAPE, shared_memory=True)
    return folder


def test_a_snapshot_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Draft(tmp_path / "one", "vm-1") as draft:
        (draft.path / "state").write_bytes(b"half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    snapshot(tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    manifest = snapshots.load(tmp_path / "one")
    assert (manifest.facts, manifest.shape, manifest.shared_memory) == (FACTS, SHAPE, True)
    with pytest.raises(AlreadyExistsError):
        snapshot(tmp_path / "one")


def test_what_a_crash_left_of_a_snapshot_is_replaced(tmp_path: Path) -> None:
    Draft(tmp_path / "one", "vm-1").__enter__().path.joinpath("old").write_bytes(b"old")
    snapshot(tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["snapshot.json", "state"]


def test_the_first_fact_that_differs_is_told(tmp_path: Path) -> None:
    manifest = snapshots.load(snapshot(tmp_path / "one"))
    snapshots.check_facts(tmp_path, manifest, FACTS)
    with pytest.raises(ConflictError, match="made with CPU imaginary, and this host has real"):
        snapshots.check_facts(tmp_path, manifest, FACTS | {"CPU": "real"})
    with pytest.raises(ConflictError, match="made with clock unknown, and this host has 1"):
        snapshots.check_facts(tmp_path, manifest, FACTS | {"clock": "1"})


def test_a_newer_format_is_not_guessed_at(tmp_path: Path) -> None:
    folder = snapshot(tmp_path / "one")
    text = (folder / "snapshot.json").read_text()
    (folder / "snapshot.json").write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(ConflictError, match="format is 2") as caught:
        snapshots.load(folder)
    assert caught.value.reason == "SnapshotIncompatible"


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_manifest_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "snapshot.json").write_bytes(data)
    with pytest.raises(CuboidError):
        snapshots.load(tmp_path)


def sparse(path: Path, pieces: dict[int, bytes], size: int) -> Path:
    with path.open("wb") as file:
        for offset, data in pieces.items():
            os.pwrite(file.fileno(), data, offset)
        file.truncate(size)
    return path


def test_a_digest_does_not_change_when_holes_become_zeros(tmp_path: Path) -> None:
    size = 10 * BLOCK + 7
    first = sparse(tmp_path / "a", {BLOCK + 5: b"x", 10 * BLOCK + 6: b"y"}, size)
    (tmp_path / "b").write_bytes(first.read_bytes())
    assert snapshots.digest(first) == snapshots.digest(tmp_path / "b")
    assert first.stat().st_blocks * 512 < size / 2


@given(st.integers(0, 5 * BLOCK), st.integers(0, 5 * BLOCK))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_a_digest_tells_where_data_is_and_how_long_the_file(tmp_path: Path, first: int, second: int) -> None:
    digests = {
        snapshots.digest(sparse(tmp_path / "x", {offset: b"data"}, size))
        for offset in {first, second}
        for size in (6 * BLOCK, 6 * BLOCK + 1)
    }
    assert len(digests) == (2 if first == second else 4)


@given(st.dictionaries(st.integers(0, 8 * BLOCK), st.binary(min_size=1, max_size=100), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_a_sparse_copy_has_the_same_bytes(tmp_path: Path, pieces: dict[int, bytes]) -> None:
    source = sparse(tmp_path / "source", pieces, 9 * BLOCK)
    (tmp_path / "copy").unlink(missing_ok=True)
    with source.open("rb") as file:
        snapshots.copy_sparse(file.fileno(), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks * 512 <= 5 * 2 * BLOCK


@given(st.dictionaries(st.integers(0, 8 * BLOCK), st.binary(min_size=1, max_size=100), max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_holes_are_made_of_zeros_and_of_nothing_else(tmp_path: Path, pieces: dict[int, bytes]) -> None:
    wanted = sparse(tmp_path / "wanted", pieces, 9 * BLOCK + 5).read_bytes()
    path = tmp_path / "whole"
    path.write_bytes(wanted)
    snapshots.punch_zeros(path)
    assert path.read_bytes() == wanted
    assert path.stat().st_blocks * 512 <= 2 * len(pieces) * BLOCK + 4096


SMAPS = b"""\
555555554000-555555600000 r-xp 00000000 fe:00 1 /usr/bin/vmm
Size:                688 kB
Rss:                 100 kB
Anonymous:             0 kB
VmFlags: rd ex
7f0000000000-7f0008000000 rw-p 00000000 fe:00 2 /boot/memory
Size:             131072 kB
Rss:                9000 kB
Anonymous:          2048 kB
LazyFree:              0 kB
7f0010000000-7f0012000000 rwxp 00000000 00:00 0
Size:              32768 kB
Anonymous:          6144 kB
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0 [stack]
Size:                132 kB
Anonymous:            20 kB
"""


def test_private_memory_is_told_by_part() -> None:
    assert usage.parts(SMAPS, 128 << 10) == ((2048 + 6144 + 20) << 10, 2048 << 10, 6144 << 10)
    assert usage.parts(b"", 1) == (0, 0, 0)

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.lib.errors import CuboidError, InvalidError, UnavailableError
from cuboid.storage import ext4
from cuboid.storage.fake import FakeDisks

PIECES = st.lists(st.tuples(st.integers(0, 64), st.binary(min_size=1, max_size=50)), max_size=6)


@settings(max_examples=30)
@given(pieces=PIECES, size=st.integers(70 * 4096, 90 * 4096))
def test_a_sparse_copy_is_equal_and_no_larger(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, bytes]], size: int
) -> None:
    folder = tmp_path_factory.mktemp("copy")
    source, target = folder / "source", folder / "target"
    with source.open("wb") as file:
        file.truncate(size)
        for block, data in pieces:
            file.seek(block * 4096)
            file.write(data)
    ext4.copy_sparse(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_copy_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    (tmp_path / "target").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        ext4.copy_sparse(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "elsewhere").exists()


def test_sizes_are_rounded_up_to_whole_mebibytes() -> None:
    assert ext4.rounded(16 << 20) == 16 << 20
    assert ext4.rounded((16 << 20) + 1) == 17 << 20
    for size in ((16 << 20) - 1, (16 << 40) + 1):
        with pytest.raises(InvalidError):
            ext4.rounded(size)


async def test_the_fake_fails_once_on_demand_and_records_calls() -> None:
    disks = FakeDisks()
    disks.fail("create_writable", UnavailableError("no"))
    with pytest.raises(CuboidError, match="no"):
        await disks.create_writable("pod-1", 64 << 20)
    await disks.create_writable("pod-1", 64 << 20)
    assert disks.calls == [("create_writable", "pod-1")] * 2
    with pytest.raises(ValueError, match="frobnicate"):
        disks.fail("frobnicate", UnavailableError("no"))

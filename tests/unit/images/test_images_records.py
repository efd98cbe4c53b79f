from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.images.base import ImageConfig
from cuboid.images.records import Index, Record, RecordFolder, merge
from cuboid.lib.errors import InvalidError

DIGEST = "sha256:" + "d" * 64


def record(number: int, *names: str, pulled_at: float = 0.0) -> Record:
    return Record(
        id=f"sha256:{number:064x}", digest=DIGEST, names=names, pins=(f"r.example/app@{DIGEST}",),
        device="d.erofs", device_bytes=4096, config=ImageConfig(cmd=("x",), labels={"a": "b"}),
        architecture="amd64", created="", layers=(DIGEST,), pulled_at=pulled_at,
    )  # fmt: skip


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    folder = RecordFolder(tmp_path)
    folder.write(record(1, "r.example/app:1"))
    assert RecordFolder(tmp_path).index().named("r.example/app:1") == record(1, "r.example/app:1")
    folder.delete(record(1))
    assert folder.index().by_id == {}


def test_a_change_by_another_process_is_seen(tmp_path: Path) -> None:
    ours, theirs = RecordFolder(tmp_path), RecordFolder(tmp_path)
    for number in range(1, 20):
        theirs.write(record(number))
        assert len(ours.index().by_id) == number


def test_the_latest_pull_owns_a_digest_that_two_images_share() -> None:
    index = Index([record(1, pulled_at=2.0), record(2, pulled_at=1.0)])
    found = index.find(f"r.example/app@{DIGEST}")
    assert found is not None
    assert found.id == record(1).id


def test_a_short_id_must_fit_one_image_only() -> None:
    one = msgspec.structs.replace(record(1), id="sha256:" + "abcdef1" + "0" * 57)
    two = msgspec.structs.replace(record(2), id="sha256:" + "abcdef2" + "0" * 57)
    index = Index([one, two])
    assert index.find("abcdef1") == one
    assert index.find("abcdef") is None
    assert index.find("abcde") is None


def test_a_name_wins_over_a_short_id() -> None:
    one = msgspec.structs.replace(record(1), id="sha256:" + "facade" + "0" * 58)
    named = record(2, "docker.io/library/facade:latest")
    assert Index([one, named]).find("facade") == named


def test_what_can_be_no_reference_is_refused() -> None:
    with pytest.raises(InvalidError):
        Index().find("NOT A NAME")


def test_pulling_again_adds_names_and_keeps_old_ones() -> None:
    merged = merge(record(1, "b:1", pulled_at=5.0), record(1, "a:1"))
    assert (merged.names, merged.pulled_at, len(merged.pins)) == (("a:1", "b:1"), 5.0, 1)


@given(st.binary(max_size=200))
def test_a_damaged_record_is_passed_over(raw: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.json").write_bytes(raw)
        assert RecordFolder(Path(folder)).index().by_id == {}

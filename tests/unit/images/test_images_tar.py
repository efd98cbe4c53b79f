from __future__ import annotations

import contextlib
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.images.layers import ByteStream
from cuboid.images.settings import Limits
from cuboid.images.tar import Entry, Kind, TarReader, parse_pax
from cuboid.lib.errors import HostileError
from tests.harness.images import folder, gnu_sparse, hardlink, make_tar, member, resum, symlink


def read(raw: bytes, limits: Limits | None = None) -> list[tuple[Entry, bytes]]:
    reader = TarReader(ByteStream(iter([raw])), limits or Limits())
    return [(entry, b"".join(reader.data())) for entry in reader]


def names(raw: bytes) -> list[bytes]:
    return [entry.name for entry, _ in read(raw)]


FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
_KINDS = {
    Kind.FILE: "isreg",
    Kind.DIRECTORY: "isdir",
    Kind.SYMLINK: "issym",
    Kind.HARDLINK: "islnk",
    Kind.FIFO: "isfifo",
}

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=60
)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)


@st.composite
def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    kind = draw(st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]))
    content = draw(st.binary(max_size=1500)) if kind == tarfile.REGTYPE else b""
    info = member(
        draw(PATHS), kind, mode=draw(st.integers(0, 0o7777)), uid=draw(st.integers(0, 2**32 - 1)),
        gid=draw(st.integers(0, 2**32 - 1)), mtime=draw(st.integers(-(2**31), 2**33)),
    )  # fmt: skip
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = draw(PATHS)
    return info, content


@settings(max_examples=60)
@given(st.lists(members(), max_size=6), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
def test_what_tarfile_writes_is_read_as_tarfile_reads_it(items: list[tuple[tarfile.TarInfo, bytes]], form: int) -> None:
    raw = make_tar(items, form)
    with tarfile.open(fileobj=io.BytesIO(raw), encoding="utf-8", errors="surrogateescape") as archive:
        expected = archive.getmembers()
        contents = [(file.read() if m.isreg() and (file := archive.extractfile(m)) else b"") for m in expected]
    got = read(raw)
    assert len(got) == len(expected)
    for (entry, content), info, wanted in zip(got, expected, contents, strict=True):
        assert entry.name.rstrip(b"/") == info.name.encode("utf-8", "surrogateescape").rstrip(b"/")
        assert getattr(info, _KINDS[entry.kind])()
        assert (entry.mode, entry.uid, entry.gid, entry.mtime) == (info.mode, info.uid, info.gid, info.mtime)
        assert entry.target == info.linkname.encode("utf-8", "surrogateescape")
        assert content == wanted


@pytest.mark.parametrize("form", FORMATS)
def test_each_format_keeps_kinds_and_owners(form: int) -> None:
    raw = make_tar(
        [
            folder("d", mode=0o1777, uid=7, gid=8), (member("d/f", mode=0o4755, mtime=5), b"abc"), symlink("s", "d/f"),
            hardlink("h", "d/f"), member("null", tarfile.CHRTYPE, devmajor=1, devminor=3),
            member("p", tarfile.FIFOTYPE),
            member("b", tarfile.BLKTYPE, devmajor=8, devminor=300),
        ],
        form,
    )  # fmt: skip
    entries = {entry.name.rstrip(b"/"): entry for entry, _ in read(raw)}
    assert (entries[b"d"].mode, entries[b"d"].uid, entries[b"d"].gid) == (0o1777, 7, 8)
    assert (entries[b"d/f"].mode, entries[b"d/f"].mtime, entries[b"d/f"].size) == (0o4755, 5, 3)
    assert entries[b"s"].target == entries[b"h"].target == b"d/f"
    assert (entries[b"null"].major, entries[b"null"].minor) == (1, 3)
    assert (entries[b"b"].kind, entries[b"b"].minor) == (Kind.BLOCK, 300)
    assert entries[b"p"].kind is Kind.FIFO


def test_long_and_non_utf8_names_survive() -> None:
    long = "/".join(["n" * 200] * 10)
    assert names(make_tar([(long, b"")], tarfile.GNU_FORMAT)) == [long.encode()]
    assert names(make_tar([(long, b"")], tarfile.PAX_FORMAT)) == [long.encode()]
    odd = b"\xff\xfe latin \xe4".decode("utf-8", "surrogateescape")
    assert names(make_tar([(odd, b"")], tarfile.GNU_FORMAT)) == [b"\xff\xfe latin \xe4"]


def test_xattrs_and_fractions_of_a_second_come_from_pax() -> None:
    capability = b"\x01\x00\x00\x02\x00\x04\x00\x00"
    headers = {"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"), "mtime": "12.5"}
    [(entry, _)] = read(make_tar([(member("f", pax_headers=headers), b"x")]))
    assert entry.xattrs == {b"security.capability": capability}
    assert (entry.mtime, entry.mtime_ns) == (12, 500_000_000)


def test_a_time_before_1970_keeps_its_order() -> None:
    [(entry, _)] = read(make_tar([(member("f", pax_headers={"mtime": "-1.25"}), b"")]))
    assert (entry.mtime, entry.mtime_ns) == (-2, 750_000_000)


def test_a_trailing_slash_makes_a_folder_in_old_archives() -> None:
    raw = bytearray(make_tar([("d", b"")], tarfile.USTAR_FORMAT))
    raw[1:2] = b"/"
    raw[156:157] = b"\0"
    [(entry, _)] = read(resum(raw))
    assert entry.kind is Kind.DIRECTORY


def test_a_gnu_sparse_file_gives_its_map() -> None:
    [(entry, stored)] = read(gnu_sparse(1 << 20, [(4096, b"a" * 512), (65536, b"b" * 100)]))
    assert entry.size == 1 << 20
    assert entry.segments == [(4096, 512), (65536, 100)]
    assert stored == b"a" * 512 + b"b" * 100


@pytest.mark.parametrize("segments", [[(100, b"a"), (50, b"b")], [(1 << 20, b"a")]])
def test_a_sparse_map_out_of_order_or_bounds_is_refused(segments: list[tuple[int, bytes]]) -> None:
    with pytest.raises(HostileError, match="sparse"):
        read(gnu_sparse(1 << 20, segments))


def test_pax_sparse_1_0_reads_the_map_from_the_data() -> None:
    listing = b"2\n0\n3\n4096\n2\n"
    headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "real",
        "GNU.sparse.realsize": "8192",
    }
    raw = make_tar([(member("GNUSparseFile.0/x", pax_headers=headers), listing.ljust(512, b"\0") + b"abcde")])
    [(entry, stored)] = read(raw)
    assert (entry.name, entry.size, entry.segments, stored) == (b"real", 8192, [(0, 3), (4096, 2)], b"abcde")


def test_pax_sparse_0_1_reads_the_map_from_the_header() -> None:
    headers = {"GNU.sparse.map": "10,2,20,1", "GNU.sparse.size": "100", "GNU.sparse.name": "real"}
    [(entry, stored)] = read(make_tar([(member("x", pax_headers=headers), b"abc")]))
    assert (entry.name, entry.size, entry.segments, stored) == (b"real", 100, [(10, 2), (20, 1)], b"abc")


def test_truncation_is_refused_wherever_it_happens() -> None:
    whole = make_tar([("a" * 120, b"x" * 700), ("b", b"y")])
    end = whole.rindex(b"y") + 1
    for cut in range(1, end):
        if cut in (2560, 1536 + 1024):  # between two members an archive may end
            continue
        with pytest.raises(HostileError):
            read(whole[:cut])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (slice(100, 108), b"zzzzzzz\0"),
        (slice(124, 136), b"-1\0"),
        (slice(156, 157), b"Q"),
        (slice(148, 156), b"0000000\0"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(field: slice, value: bytes) -> None:
    raw = bytearray(make_tar([("f", b"x")], tarfile.USTAR_FORMAT))
    raw[field] = value
    with pytest.raises(HostileError):
        read(bytes(raw) if field.start == 148 else resum(raw))


def test_negative_sizes_in_base_256_are_refused() -> None:
    raw = bytearray(make_tar([("f", b"x")], tarfile.USTAR_FORMAT))
    raw[124:136] = b"\xff" * 12
    with pytest.raises(HostileError):
        read(resum(raw))


@pytest.mark.parametrize(
    "headers",
    [{"SCHILY.xattr.user.a": "v" * 70_000}, {"path": "p" * 5000}, {"size": "x"}, {"uid": str(2**40)}, {"path": "a\0b"}],
)
def test_an_extended_header_beyond_the_limits_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(HostileError):
        read(make_tar([(member("f", pax_headers=headers), b"")]))


def test_a_huge_extended_header_is_refused_before_it_is_held() -> None:
    raw = make_tar([(member("f", pax_headers={"comment": "c" * 100_000}), b"")])
    with pytest.raises(HostileError, match="extended header"):
        read(raw, Limits(pax_bytes=10_000))


def test_extended_headers_without_end_are_refused() -> None:
    raw = make_tar([(member("f", pax_headers={"comment": "c"}), b"")])
    with pytest.raises(HostileError, match="run of extended headers"):
        read(raw[:1024] * 20 + raw[1024:])


@pytest.mark.parametrize("body", [b"5 a=\n9", b"99 a=b\n", b"6 a=b", b"x a=b\n", b"0 a=b\n", b"6 =ab\n", b"3 a\n"])
def test_a_malformed_pax_record_is_refused(body: bytes) -> None:
    with pytest.raises(HostileError):
        parse_pax(body)


@given(st.binary(max_size=200))
def test_any_pax_body_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(HostileError):
        parse_pax(body)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid archive with some bytes changed; most with checksums made right, so that parsing goes on."""
    raw = bytearray(make_tar(draw(st.lists(members(), min_size=1, max_size=3)), draw(st.sampled_from([1, 2]))))
    for _ in range(draw(st.integers(1, 6))):
        raw[draw(st.integers(0, min(len(raw) - 1, 511)))] = draw(st.integers(0, 255))
    return resum(raw) if draw(st.booleans()) else bytes(raw)


@settings(max_examples=200)
@given(damaged() | st.binary(max_size=2000))
def test_any_archive_is_read_or_refused(raw: bytes) -> None:
    try:
        read(raw, Limits(unpacked_bytes=1 << 20))
    except HostileError as error:
        assert "\n" not in error.message

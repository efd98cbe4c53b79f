"""What `kubectl get` prints of custom resources: paths, types of columns; and formats of strings."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.kube.crd import formats, jsonpath, printing
from cuboid.lib.clock import parse_rfc3339
from cuboid.lib.errors import InvalidError

DOCUMENT: dict[str, Any] = {
    "metadata": {"name": "x", "labels": {"a.b/c": "d"}, "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"n": 3, "list": [{"name": "a", "v": 1}, {"name": "b", "v": 2}], "flag": True, "map": {"k": "v"}},
    "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.n", [3]),
        (".spec.list[0].name", ["a"]),
        (".spec.list[-1].name", ["b"]),
        (".spec.list[*].v", [1, 2]),
        (".spec.list[0:1].v", [1]),
        (".spec.list[::2].v", [1]),
        (".spec['n']", [3]),
        (r".metadata.labels.a\.b/c", ["d"]),
        (".metadata.labels['a.b/c']", ["d"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type == 'Other')].status", ["False"]),
        (".spec.list[?(@.v>1)].name", ["b"]),
        (".spec.list[?(@.nothing)].name", []),
        ("..name", ["x", "a", "b"]),
        (".spec.map.*", ["v"]),
        (".spec.missing.deep", []),
        (".spec.n[0]", []),
    ],
)
def test_a_path_finds(path: str, found: list[Any]) -> None:
    assert jsonpath.find(path, DOCUMENT) == found


@pytest.mark.parametrize("path", ["spec", "", ".spec[", ".spec[]", ".a[?(x)]", ".a[::0]", ".a b", "..", ".a.", ".a[b]"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(InvalidError):
        jsonpath.parse(path)


@pytest.mark.parametrize(
    ("kind", "path", "cell"),
    [
        ("string", ".spec.n", "3"),
        ("string", ".spec.list[*].name", "a b"),
        ("string", ".spec.map", '{"k":"v"}'),
        ("integer", ".spec.n", 3),
        ("integer", ".spec.map", None),
        ("number", ".spec.n", 3.0),
        ("boolean", ".spec.flag", True),
        ("boolean", ".spec.n", None),
        ("date", ".metadata.creationTimestamp", "3d2h"),
        ("date", ".metadata.name", "<invalid>"),
        ("string", ".spec.missing", None),
    ],
)
def test_a_cell_has_the_type_of_its_column(kind: str, path: str, cell: Any) -> None:
    _, cells = printing.printed([{"name": "C", "type": kind, "jsonPath": path}])
    now = parse_rfc3339("2026-01-04T02:00:00Z")
    assert cells(DOCUMENT, now) == ["x", cell]


def test_without_columns_there_is_the_age() -> None:
    columns, cells = printing.printed([])
    assert [column.name for column in columns] == ["Name", "Age"]
    assert cells(DOCUMENT, parse_rfc3339("2026-01-01T00:00:05Z")) == ["x", "5s"]


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("date-time", "2026-01-01T00:00:00+02:00", "yesterday"),
        ("date", "2026-02-28", "2026-13-01"),
        ("ipv4", "10.0.0.1", "10.0.0"),
        ("ipv6", "::1", "10.0.0.1"),
        ("cidr", "10.0.0.0/8", "10.0.0.0"),
        ("uuid", "00000000-0000-0000-0000-000000000000", "x"),
        ("byte", "aGFsbG8=", "*"),
        ("hostname", "a.example.com", "-a"),
        ("email", "a@example.com", "a"),
        ("uri", "https://example.com/a", "a b"),
        ("duration", "1h30m", "soon"),
        ("mac", "00:11:22:33:44:55", "00:11"),
    ],
)
def test_a_format_fits_or_not(name: str, good: str, bad: str) -> None:
    assert formats.fits(name, good) and not formats.fits(name, bad)

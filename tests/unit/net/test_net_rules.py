"""Of the rules in the nat table those of one pod are found, and no other's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from cuboid.net.rules import removal

SAVED = r"""
*nat
:POSTROUTING ACCEPT [0:0]
:CNI-ef32d2916ee4baa642152e48 - [0:0]
-A POSTROUTING -s 10.77.0.3/32 -m comment --comment "name: \"cuboid\" id: \"pod-1\"" -j CNI-ef32d2916ee4baa642152e48
-A POSTROUTING -s 10.77.0.4/32 -m comment --comment "name: \"cuboid\" id: \"pod-12\"" -j CNI-aaaaaaaaaaaaaaaaaaaaaaaa
-A POSTROUTING -s 10.88.0.4/32 -m comment --comment "name: \"podman\" id: \"pod-1\"" -j CNI-bbbbbbbbbbbbbbbbbbbbbbbb
-A CNI-ef32d2916ee4baa642152e48 -d 10.77.0.0/16 -m comment --comment "name: \"cuboid\" id: \"pod-1\"" -j ACCEPT
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"cuboid\" id: \"pod-1\"" -j CNI-DN-ef32d2916ee4baa642152
COMMIT
"""


def test_a_pods_rules_and_chains_are_removed_and_no_others() -> None:
    lines = removal(SAVED, "cuboid", "pod-1").splitlines()
    assert (lines[0], lines[-1]) == ("*nat", "COMMIT")
    assert [line.split()[1] for line in lines if line.startswith("-D")] == [
        "POSTROUTING",
        "CNI-ef32d2916ee4baa642152e48",
        "CNI-HOSTPORT-DNAT",
    ]
    assert "-X CNI-ef32d2916ee4baa642152e48" in lines
    assert "-X CNI-DN-ef32d2916ee4baa642152" in lines
    assert not [line for line in lines if "pod-12" in line or "podman" in line or "aaaa" in line or "bbbb" in line]


def test_nothing_is_done_where_nothing_is_left() -> None:
    assert removal(SAVED, "cuboid", "pod-3") == ""


@given(some.text())
def test_any_table_is_read(saved: str) -> None:
    assert isinstance(removal(saved, "cuboid", "pod-1"), str)

"""`cuboid volume rm`: what a PersistentVolume stands for is not taken from under it."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.cli.verbs.volumes import refuse_managed
from cuboid.lib.errors import ConflictError


def volume(handle: str, **spec: Any) -> dict[str, Any]:
    driver = {"driver": "volume.cuboid.dev", "volumeHandle": handle}
    return {"metadata": {"name": "pvc-1"}, "spec": {"csi": driver, **spec}}


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ({}, "kubectl delete pv pvc-1"),
        ({"claimRef": {"namespace": "shop", "name": "db"}}, "kubectl delete pvc db -n shop"),
    ],
)
def test_a_volume_of_a_persistent_volume_is_refused_with_what_to_delete_instead(
    spec: dict[str, Any], hint: str
) -> None:
    with pytest.raises(ConflictError, match="is the PersistentVolume pvc-1") as refused:
        refuse_managed([volume("shop/pvc-1", **spec)], "shop", "pvc-1")
    assert refused.value.hint == hint


@pytest.mark.parametrize(
    "other", [volume("shop/other"), volume("else/pvc-1"), {"metadata": {"name": "nfs"}, "spec": {}}]
)
def test_any_other_volume_may_go(other: dict[str, Any]) -> None:
    refuse_managed([other], "shop", "pvc-1")

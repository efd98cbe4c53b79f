"""How big a pod's machine is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cuboid.kube.types import Pod
from cuboid.lib.errors import InvalidError
from cuboid.node import sizing
from cuboid.node.settings import NodeSettings
from tests.harness.node import make_pod

SETTINGS = NodeSettings(guest_overhead_mib=0, container_mib=128)


def size(pod: Pod, **options: int) -> sizing.Size:
    return sizing.size_of(pod, SETTINGS, **{"host_cpus": 4, "overhead_mib": 32, "min_memory_mib": 64, **options})


def limited(name: str, **limits: str) -> dict[str, Any]:
    return {"name": name, "image": "i", "resources": {"limits": limits}}


def test_memory_is_the_class_of_the_containers_limits_and_the_guests_need() -> None:
    assert size(make_pod(limited("a", memory="64Mi"))).memory_mib == 96
    assert size(make_pod(limited("a", memory="64Mi"), limited("b", memory="5Mi"))).memory_mib == 128
    assert size(make_pod(limited("a"))).memory_mib == 160


def test_the_smallest_pod_has_the_smallest_machine_that_guest_and_driver_bear() -> None:
    assert size(make_pod(limited("a", memory="4Mi"))).memory_mib == 64
    assert size(make_pod(limited("a", memory="4Mi")), min_memory_mib=128).memory_mib == 128


def test_the_overhead_of_the_settings_wins_over_the_kernels_own() -> None:
    pod = make_pod(limited("a", memory="64Mi"))
    assert sizing.size_of(pod, NodeSettings(guest_overhead_mib=96), host_cpus=1, overhead_mib=32).memory_mib == 160


def test_a_large_init_container_counts_by_its_own_and_sidecars_with_all() -> None:
    side = {**limited("s", memory="10Mi"), "restartPolicy": "Always"}
    pod = make_pod(limited("a", memory="20Mi"), inits=(side, limited("i", memory="500Mi")))
    assert size(pod).memory_mib == 640  # 510 + 32
    assert size(make_pod(limited("a", memory="20Mi"), inits=(side,))).memory_mib == 64


@given(some.integers(1, 1 << 20))
def test_a_class_is_enough_and_wastes_at_most_a_third(needed: int) -> None:
    found = sizing.memory_class(needed)
    assert found >= needed
    assert found <= max(64, needed * 4 // 3 + 32)
    assert sizing.memory_class(found) == found, "a class is its own"


def test_classes_above_one_gibibyte_are_three_to_a_doubling() -> None:
    assert [sizing.memory_class(n) for n in (1024, 1025, 1281, 1601, 2049)] == [1024, 1280, 1600, 2048, 2560]


def test_cpus_are_rounded_up_and_at_most_the_hosts() -> None:
    assert size(make_pod(limited("a", cpu="50m"))).vcpus == 1
    assert size(make_pod(limited("a", cpu="1500m"), limited("b", cpu="600m"))).vcpus == 3
    assert size(make_pod(limited("a", cpu="64"))).vcpus == 4


def test_a_container_that_can_start_nothing_is_told_what_is_needed() -> None:
    with pytest.raises(InvalidError, match="at least 4Mi"):
        size(make_pod(limited("a", memory="1Mi")))


def test_the_writable_disk_is_as_large_as_its_limits() -> None:
    assert size(make_pod(limited("a"))).disk_bytes == SETTINGS.disk_mib << 20
    pod = make_pod(
        limited("a", **{"ephemeral-storage": "1Gi"}), volumes=[{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}]
    )
    assert size(pod).disk_bytes == 2 << 30


def test_a_large_guest_s_own_share_grows_with_it() -> None:
    """4,960 MiB and the guest's 32 would fill the class of 5,120 to 97 %, and its kernel keeps more than that."""
    whole = make_pod(limited("app", memory="4960Mi"))
    assert size(whole).memory_mib > 5120

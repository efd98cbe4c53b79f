"""Bandwidth annotations and the buckets made of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.lib.errors import InvalidError
from cuboid.net import bandwidth
from cuboid.net.base import NO_LIMITS, Bandwidth
from cuboid.net.fake import FakeNetwork


def test_kubernetes_annotations_are_bits_per_second() -> None:
    annotations = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "1Ki", "other": "x"}
    assert bandwidth.of_annotations(annotations) == Bandwidth(ingress=10_000_000, egress=1024)
    assert bandwidth.of_annotations({"kubernetes.io/egress-bandwidth": "1G"}) == Bandwidth(egress=10**9)
    assert bandwidth.of_annotations({}) == NO_LIMITS


@pytest.mark.parametrize("text", ["", "fast", "10 M", "10Mbit", "-1M", "0", "999", "1500m", "2P", "1e99"])
def test_a_bandwidth_that_makes_no_sense_is_refused_by_the_annotations_name(text: str) -> None:
    for name in (bandwidth.INGRESS, bandwidth.EGRESS):
        with pytest.raises(InvalidError, match=f"the annotation {name}") as caught:
            bandwidth.of_annotations({name: text})
        assert caught.value.hint


@given(st.integers(bandwidth.MIN_BITS, bandwidth.MAX_BITS))
def test_every_bucket_takes_the_largest_frame_and_fits_the_kernels_fields(bits: int) -> None:
    made = bandwidth.bucket(bits)
    assert made.rate == bits // 8
    assert 1 << 16 <= made.burst < 1 << 31
    assert 1 << 16 <= made.queue < 1 << 31


async def test_the_fake_remembers_a_pods_limits_until_it_is_detached() -> None:
    network = FakeNetwork()
    limits = Bandwidth(1000, 2000)
    await network.attach("pod", namespace="default", name="web", limits=limits)
    await network.prepare("slot")
    await network.adopt("slot", namespace="default", name="web", limits=limits)
    assert network.limits == {"pod": limits, "slot": limits}
    await network.detach("pod")
    await network.clean(set())
    assert network.limits == {}

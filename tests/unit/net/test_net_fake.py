from __future__ import annotations

import pytest

from cuboid.lib.errors import UnavailableError
from cuboid.net.fake import FakeNetwork


async def test_the_fake_fails_once_on_demand_and_records_calls() -> None:
    network = FakeNetwork()
    network.fail("attach", UnavailableError("no"))
    with pytest.raises(UnavailableError):
        await network.attach("pod-1", namespace="default", name="web")
    await network.attach("pod-1", namespace="default", name="web")
    assert network.calls == [("attach", "pod-1")] * 2
    with pytest.raises(ValueError, match="frobnicate"):
        network.fail("frobnicate", UnavailableError("no"))


async def test_a_broken_pod_fails_its_check_until_it_is_attached_anew() -> None:
    network = FakeNetwork()
    await network.attach("pod-1", namespace="default", name="web")
    network.break_pod("pod-1")
    with pytest.raises(UnavailableError):
        await network.check("pod-1")
    await network.attach("pod-1", namespace="default", name="web")
    await network.check("pod-1")

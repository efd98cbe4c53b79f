"""What every `Network` promises, of the fake and of CNI with real plugins alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cuboid.lib.errors import ConflictError, ExhaustedError, InvalidError
from cuboid.net.base import Attachment, Network, PortMapping
from cuboid.net.fake import FakeNetwork
from tests.harness import network as harness
from tests.harness.network import Who

WHO: Who = {"namespace": "default", "name": "web"}


@pytest.fixture(params=["fake", pytest.param("cni", marks=pytest.mark.net)])
async def net(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Network]:
    if request.param == "fake":
        yield FakeNetwork("10.77.0.0/29")
        return
    if reason := harness.missing():
        pytest.skip(reason)
    async with harness.host_net(tmp_path) as host:
        network = host.network(subnet="10.77.0.0/29")
        yield network
        await network.clean(set())
        assert host.leftovers() == []


async def test_a_pod_gets_an_address_a_mac_a_tap_and_a_default_route(net: Network) -> None:
    attachment = await net.attach("pod-1", **WHO)
    assert attachment.ip.startswith("10.77.0.")
    assert attachment.tap
    assert len(attachment.mac.split(":")) == 6
    assert attachment.mtu >= 1280
    assert [(route.destination, route.gateway) for route in attachment.routes] == [("0.0.0.0/0", "10.77.0.1")]
    assert net.attachments() == {"pod-1": attachment}


async def test_attaching_twice_gives_the_same_attachment(net: Network) -> None:
    assert await net.attach("pod-1", **WHO) == await net.attach("pod-1", **WHO)


async def test_attaching_the_same_pod_at_once_makes_one_attachment(net: Network) -> None:
    one, other = await asyncio.gather(net.attach("pod-1", **WHO), net.attach("pod-1", **WHO))
    assert one == other


async def test_pods_have_different_addresses_and_macs(net: Network) -> None:
    one, other = await asyncio.gather(net.attach("pod-1", **WHO), net.attach("pod-2", **WHO))
    assert one.ip != other.ip
    assert one.mac != other.mac


async def test_an_attachment_survives_json(net: Network) -> None:
    attachment = await net.attach("pod-1", **WHO)
    assert Attachment.from_json(attachment.to_json()) == attachment


async def test_detaching_is_idempotent_and_forgets_the_pod(net: Network) -> None:
    await net.attach("pod-1", **WHO)
    await net.detach("pod-1")
    await net.detach("pod-1")
    await net.detach("never-seen")
    assert net.attachments() == {}


async def test_a_published_port_belongs_to_one_pod_until_it_is_detached(net: Network) -> None:
    await net.attach("pod-1", **WHO, ports=(PortMapping(8080, 80),))
    with pytest.raises(ConflictError, match=r"8080/tcp is taken by the pod default/web") as caught:
        await net.attach("pod-2", namespace="default", name="other", ports=(PortMapping(8080, 81),))
    assert caught.value.reason == "PortTaken"
    assert set(net.attachments()) == {"pod-1"}
    await net.attach("pod-3", namespace="default", name="third", ports=(PortMapping(8080, 80, "udp"),))
    await net.detach("pod-1")
    await net.attach("pod-2", namespace="default", name="other", ports=(PortMapping(8080, 81),))


async def test_a_senseless_port_is_refused_and_leaves_nothing(net: Network) -> None:
    for port in (
        PortMapping(0, 80),
        PortMapping(80, 70000),
        PortMapping(80, 80, "icmp"),
        PortMapping(1, 1, "tcp", "x"),
    ):
        with pytest.raises(InvalidError):
            await net.attach("pod-1", **WHO, ports=(port,))
    with pytest.raises(InvalidError, match="twice"):
        await net.attach("pod-1", **WHO, ports=(PortMapping(80, 1), PortMapping(80, 2, "tcp", "127.0.0.1")))
    assert net.attachments() == {}


async def test_a_uid_that_names_another_file_is_refused(net: Network) -> None:
    for uid in ("", "../x", "a/b", "-rf", "x" * 200):
        with pytest.raises(InvalidError):
            await net.attach(uid, **WHO)
        with pytest.raises(InvalidError):
            await net.detach(uid)


async def test_running_out_of_addresses_says_so_and_a_detach_helps(net: Network) -> None:
    for number in range(5):
        await net.attach(f"pod-{number}", **WHO)
    with pytest.raises(ExhaustedError):
        await net.attach("one-more", **WHO)
    assert "one-more" not in net.attachments()
    await net.detach("pod-2")
    await net.attach("one-more", **WHO)


async def test_check_passes_for_a_whole_attachment_and_complains_without_one(net: Network) -> None:
    await net.attach("pod-1", **WHO, ports=(PortMapping(8080, 80),))
    await net.check("pod-1")
    with pytest.raises(InvalidError):
        await net.check("pod-2")


async def test_clean_removes_pods_that_nobody_knows_and_names_them(net: Network) -> None:
    for uid in ("pod-1", "pod-2", "pod-3"):
        await net.attach(uid, **WHO)
    assert await net.clean({"pod-2"}) == ["pod-1", "pod-3"]
    assert set(net.attachments()) == {"pod-2"}
    assert await net.clean({"pod-2"}) == []

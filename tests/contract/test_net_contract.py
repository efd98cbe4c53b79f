"""What every `Network` promises, of the fake and of CNI with real plugins alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cuboid.lib.errors import ConflictError, ExhaustedError, InvalidError, NotFoundError
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
    assert (net.attachment("pod-1"), net.attachment("pod-2")) == (attachment, None)


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


@pytest.mark.parametrize(
    ("one", "other"), [("2001:db8::1", "2001:DB8:0::1"), ("2001:DB8:0::1", "2001:db8::1"), ("0::0", "127.0.0.1")]
)
async def test_another_spelling_of_an_address_takes_no_port_from_a_pod(net: Network, one: str, other: str) -> None:
    await net.attach("pod-1", **WHO, ports=(PortMapping(8080, 80, "tcp", one),))
    wanted = (PortMapping(8080, 81, "tcp", other),)
    await net.prepare("slot-1")
    with pytest.raises(ConflictError, match="8080/tcp is taken by the pod default/web"):
        await net.attach("pod-2", namespace="default", name="other", ports=wanted)
    with pytest.raises(ConflictError, match="8080/tcp is taken by the pod default/web"):
        await net.adopt("slot-1", namespace="default", name="other", ports=wanted)
    await net.check("pod-1")
    await net.detach("pod-1")
    await net.adopt("slot-1", namespace="default", name="other", ports=wanted)


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


async def test_a_prepared_slot_is_given_to_a_pod_as_it_is(net: Network) -> None:
    assert net.prepares
    slot = await net.prepare("slot-1")
    assert await net.prepare("slot-1") == slot
    await net.check("slot-1")
    assert await net.adopt("slot-1", **WHO) == slot
    await net.check("slot-1")
    assert net.attachments() == {"slot-1": slot}
    assert net.attachment("slot-1") == slot
    assert (await net.attach("pod-1", **WHO)).ip != slot.ip
    await net.detach("slot-1")
    assert set(net.attachments()) == {"pod-1"}


async def test_a_slot_is_given_away_once(net: Network) -> None:
    await net.prepare("slot-1")
    one, other = await asyncio.gather(
        net.adopt("slot-1", **WHO), net.adopt("slot-1", namespace="default", name="other"), return_exceptions=True
    )
    assert isinstance(one, Attachment)
    assert isinstance(other, NotFoundError)
    with pytest.raises(ConflictError, match="belongs to the pod default/web"):
        await net.prepare("slot-1")


async def test_only_a_prepared_slot_is_given_away(net: Network) -> None:
    await net.attach("pod-1", **WHO)
    await net.prepare("slot-1")
    await net.detach("slot-1")
    for slot in ("pod-1", "slot-1", "never-seen"):
        with pytest.raises(NotFoundError):
            await net.adopt(slot, **WHO)
    for slot in ("../x", ""):
        with pytest.raises(InvalidError):
            await net.prepare(slot)
        with pytest.raises(InvalidError):
            await net.adopt(slot, **WHO)


async def test_ports_are_published_when_a_slot_is_given_away(net: Network) -> None:
    await net.prepare("slot-1")
    await net.adopt("slot-1", **WHO, ports=(PortMapping(8080, 80),))
    await net.check("slot-1")
    with pytest.raises(ConflictError, match="taken by the pod default/web"):
        await net.attach("pod-2", namespace="default", name="other", ports=(PortMapping(8080, 80),))
    await net.detach("slot-1")
    await net.attach("pod-2", namespace="default", name="other", ports=(PortMapping(8080, 80),))


async def test_a_slot_whose_pod_wants_a_taken_port_stays_prepared(net: Network) -> None:
    await net.attach("pod-1", **WHO, ports=(PortMapping(8080, 80),))
    slot = await net.prepare("slot-1")
    for port in (PortMapping(8080, 80), PortMapping(8080, 0)):
        with pytest.raises((ConflictError, InvalidError)):
            await net.adopt("slot-1", namespace="default", name="other", ports=(PortMapping(8081, 80), port))
    assert net.attachments()["slot-1"] == slot
    await net.attach("pod-2", **WHO, ports=(PortMapping(8081, 80),))
    assert await net.adopt("slot-1", namespace="default", name="other", ports=(PortMapping(8082, 80),)) == slot


async def test_a_slot_that_nobody_names_is_a_leftover_given_away_or_not(net: Network) -> None:
    for slot in ("slot-1", "slot-2", "slot-3", "slot-4"):
        await net.prepare(slot)
    await net.adopt("slot-3", **WHO)
    await net.adopt("slot-4", **WHO)
    assert await net.clean({"slot-2", "slot-4"}) == ["slot-1", "slot-3"]
    assert set(net.attachments()) == {"slot-2", "slot-4"}
    await net.adopt("slot-2", **WHO)

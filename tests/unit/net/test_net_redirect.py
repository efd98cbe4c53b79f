"""Published ports as elements of nftables maps, and the netlink messages for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.net import netlink, redirect
from cuboid.net.base import PortMapping
from cuboid.net.conntrack import _udp_port

POD = ("10.77.0.2/16", "fd77::2/64")


def test_a_port_on_every_address_is_one_element_per_family_of_the_pod() -> None:
    (v4, v6) = redirect.elements((PortMapping(8080, 80),), POD)
    assert (v4.map, v6.map) == ("any4", "any6")
    assert v4.key == v6.key == bytes.fromhex("06000000 1f900000")
    assert v4.data == bytes.fromhex("0a4d0002 00500000")
    assert v6.data == bytes.fromhex("fd77000000000000 0000000000000002 00500000")
    assert len(list(redirect.elements((PortMapping(8080, 80),), POD[:1]))) == 1


@pytest.mark.parametrize(
    ("host_ip", "map_name", "start"), [("127.0.0.1", "one4", "7f000001"), ("fd99::2", "one6", "fd990000")]
)
def test_a_port_on_one_address_leads_to_the_pods_address_of_that_family(
    host_ip: str, map_name: str, start: str
) -> None:
    (element,) = redirect.elements((PortMapping(53, 5353, "udp", host_ip),), POD)
    assert element.map == map_name
    assert element.key.startswith(bytes.fromhex(start))
    assert element.key.endswith(bytes.fromhex("11000000 00350000"))


def test_the_rules_name_the_bridge_and_each_subnet() -> None:
    text = redirect.ruleset("cuboid0", ["10.77.0.0/16", "fd77::/64"])
    assert "ip saddr 10.77.0.0/16 ip daddr 10.77.0.0/16 ct status dnat masquerade" in text
    assert "ip6 saddr fd77::/64 ip6 daddr fd77::/64 ct status dnat masquerade" in text
    assert text.count("flush table inet cuboid-cuboid0-ports") == 1
    assert "delete" not in text


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=5))
def test_attributes_are_read_back_as_they_were_written(values: dict[int, bytes]) -> None:
    data = b"".join(netlink.attribute(kind, value) for kind, value in values.items())
    assert netlink.attributes(data) == values
    assert netlink.attributes(netlink.nested(1, data))[1] == data


@given(st.binary(max_size=200))
def test_any_bytes_are_attributes_or_none(data: bytes) -> None:
    netlink.attributes(data)
    _udp_port(data)

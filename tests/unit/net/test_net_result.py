from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.lib.errors import (
    CuboidError,
    ExhaustedError,
    HostileError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from cuboid.net.base import Route
from cuboid.net.cni.result import parse_error, parse_result, pod_addresses, pod_routes

GOOD: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "interfaces": [
        {"name": "cuboid0", "mac": "9e:0e:97:a0:34:b8"},
        {"name": "eth0", "mac": "26:87:56:5D:55:BC", "sandbox": "/run/netns/x"},
    ],
    "ips": [
        {"interface": 1, "address": "fd00::3/64", "gateway": "fd00::1"},
        {"interface": 1, "address": "10.1.0.3/16", "gateway": "10.1.0.1"},
        {"interface": 0, "address": "10.1.0.1/16"},
    ],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.0.9"}],
    "dns": {"nameservers": ["10.1.0.53"], "domain": "example.org"},
}


def parse(**changes: Any) -> Any:
    return parse_result(json.dumps({**GOOD, **changes}).encode())


def test_a_result_is_read_whole() -> None:
    result = parse()
    assert pod_addresses(result) == ("10.1.0.3/16", "fd00::3/64")
    assert pod_routes(result) == (
        Route("0.0.0.0/0", "10.1.0.1"),
        Route("::/0", "fd00::1"),
        Route("10.9.0.0/16", "10.1.0.9"),
    )
    assert (result.dns.nameservers, result.dns.search) == (("10.1.0.53",), ("example.org",))
    assert result.interfaces[1].mac == "26:87:56:5d:55:bc"
    assert result.raw == GOOD


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_all_versions_of_this_form_are_read(version: str) -> None:
    assert parse(cniVersion=version).version == version


def test_what_is_optional_may_be_absent_or_null() -> None:
    result = parse_result(b'{"cniVersion": "1.0.0", "ips": null, "routes": null, "dns": null}')
    assert (result.interfaces, result.addresses, result.routes) == ((), (), ())


def test_a_network_without_an_address_for_the_pod_is_refused() -> None:
    with pytest.raises(InvalidError, match="no address"):
        pod_addresses(parse(ips=[{"interface": 0, "address": "10.1.0.1/16"}]))


@pytest.mark.parametrize(
    "changes",
    [
        {"cniVersion": "0.2.0"},
        {"cniVersion": 1},
        {"interfaces": "eth0"},
        {"interfaces": [{"name": "a/b"}]},
        {"interfaces": [{"name": "a" * 16}]},
        {"interfaces": [{"name": "eth0", "mac": "not a mac"}]},
        {"interfaces": [{"name": "eth0"}] * 65},
        {"ips": [{"address": "10.1.0.3"}]},
        {"ips": [{"address": "10.1.0.3/99"}]},
        {"ips": [{"address": "fe80::1%eth0/64"}]},
        {"ips": [{"address": "10.1.0.3/16", "interface": 2}]},
        {"ips": [{"address": "10.1.0.3/16", "interface": -1}]},
        {"ips": [{"address": "10.1.0.3/16", "interface": True}]},
        {"ips": [{"address": "10.1.0.3/16", "gateway": "gw"}]},
        {"ips": [None]},
        {"routes": [{"gw": "10.1.0.1"}]},
        {"routes": [{"dst": "0.0.0.0/0"}] * 1025},
        {"dns": []},
        {"dns": {"nameservers": ["; rm -rf /"]}},
        {"dns": {"nameservers": "10.1.0.53"}},
        {"dns": {"search": ["a\nnameserver 1.2.3.4"]}},
    ],
)
def test_a_result_that_breaks_a_rule_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(HostileError):
        parse(**changes)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from(["cniVersion", "interfaces", "ips", "routes", "dns"])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_result_or_hostile(data: bytes) -> None:
    with pytest.raises(HostileError):
        parse_result(data)


@given(st.dictionaries(KEYS, JSON | st.sampled_from([*GOOD.values()]), max_size=5))
def test_any_json_in_a_results_fields_is_read_or_hostile(fields: dict[str, Any]) -> None:
    try:
        result = parse(**fields)
    except HostileError:
        return
    assert len(result.addresses) <= 64
    assert all("/" in address.address for address in result.addresses)
    json.dumps(result.raw)


def test_too_much_and_too_deep_are_hostile() -> None:
    for data in (b" " * (2 << 20), b"[" * 100_000, b'{"cniVersion": NaN}', b'{"cniVersion": "1.0.0\xff"}'):
        with pytest.raises(HostileError):
            parse_result(data)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, UnsupportedError),
        (2, InvalidError),
        (3, NotFoundError),
        (4, InvalidError),
        (5, UnavailableError),
        (6, InvalidError),
        (7, InvalidError),
        (11, UnavailableError),
        (50, UnavailableError),
        (100, UnavailableError),
        (999, UnavailableError),
    ],
)
def test_error_codes_have_their_meanings(code: int, kind: type[CuboidError]) -> None:
    error = parse_error("bridge", "ADD", json.dumps({"code": code, "msg": "no", "details": "why"}).encode(), b"")
    assert type(error) is kind
    assert str(error) == f"the CNI plugin bridge failed in ADD with code {code}: no (why)"


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()), st.binary(max_size=2000))
def test_any_error_output_gives_one_short_printable_sentence(stdout: bytes, stderr: bytes) -> None:
    error = parse_error("bridge", "ADD", stdout, stderr)
    assert str(error).isprintable()
    assert len(str(error)) < 1200


def test_addresses_running_out_is_told_apart() -> None:
    message = {"code": 999, "msg": "failed to allocate for range 0: no IP addresses available in range set: 10.0.0.1"}
    assert isinstance(parse_error("bridge", "ADD", json.dumps(message).encode(), b""), ExhaustedError)

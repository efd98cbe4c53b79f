from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.lib.errors import InvalidError, UnavailableError
from cuboid.storage.nfs import guest_mount, parse_source, resolve


def mount(server: str = "192.0.2.7", *options: str, read_only: bool = False) -> Any:
    source = parse_source({"server": server, "path": "/export/data", "readOnly": read_only}, options)
    return guest_mount(source, source.server, "10.77.0.2")


def test_by_default_it_is_version_4_2_over_tcp_with_the_pods_address_for_callbacks() -> None:
    made = mount()
    assert (made.source, made.kind, made.read_only) == ("192.0.2.7:/export/data", "nfs4", False)
    assert made.options == "vers=4.2,addr=192.0.2.7,proto=tcp,clientaddr=10.77.0.2"


def test_version_3_carries_the_mount_protocols_address_and_no_lock_daemon() -> None:
    made = mount("192.0.2.7", "nfsvers=3,hard", "timeo=600")
    assert made.kind == "nfs"
    assert made.options == "hard,timeo=600,vers=3,addr=192.0.2.7,proto=tcp,mountaddr=192.0.2.7,mountproto=tcp,nolock"
    assert mount("192.0.2.7", "vers=3", "lock").options.split(",").count("nolock") == 0


def test_an_ipv6_server_is_bracketed() -> None:
    for server in ("2001:db8::7", "[2001:db8::7]"):
        made = mount(server)
        assert made.source == "[2001:db8::7]:/export/data"
        assert "addr=2001:db8::7,proto=tcp6" in made.options


@pytest.mark.parametrize(
    ("options", "version"),
    [
        (("vers=4",), "4.2"),
        (("vers=4", "minorversion=1"), "4.1"),
        (("minorversion=0",), "4.0"),
        (("nfsvers=4.1",), "4.1"),
    ],
)
def test_the_version_is_read_in_all_its_spellings(options: tuple[str, ...], version: str) -> None:
    assert f"vers={version}" in mount("192.0.2.7", *options).options.split(",")


def test_read_only_comes_from_the_field_or_the_option() -> None:
    assert mount(read_only=True).read_only
    assert mount("192.0.2.7", "ro").read_only
    assert not mount("192.0.2.7", "rw", "noatime").read_only


@pytest.mark.parametrize(
    "source",
    [
        {"path": "/x"},
        {"server": "", "path": "/x"},
        {"server": "a b", "path": "/x"},
        {"server": "host,addr=10.0.0.1", "path": "/x"},
        {"server": "fe80::1%eth0", "path": "/x"},
        {"server": "a" * 300, "path": "/x"},
        {"server": "host", "path": "x"},
        {"server": "host", "path": "/a/../b"},
        {"server": "host", "path": "/a\nb"},
        {"server": "host", "path": "/" + "a" * 1024},
        {"server": "host", "path": "/x", "readOnly": "yes"},
        {"server": "host", "path": "/x", "mountOptions": []},
        {"server": 7, "path": "/x"},
    ],
)
def test_a_senseless_source_is_refused(source: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        parse_source(source)


@pytest.mark.parametrize(
    "option",
    ["addr=10.0.0.1", "clientaddr=1.2.3.4", "sec=krb5", "suid", "timeo=0", "timeo=x", "timeo=", "hard=1", "vers=2",
     "proto=rdma", "fsc", "rsize=99999999", "retrans=٣", "context=system_u:object_r:x"],
)  # fmt: skip
def test_an_option_that_is_not_on_the_list_is_refused(option: str) -> None:
    with pytest.raises(InvalidError):
        mount("192.0.2.7", option)


@given(st.text(max_size=60), st.text(max_size=60), st.lists(st.text(max_size=30), max_size=5))
def test_any_source_is_refused_or_gives_exactly_one_address(server: str, path: str, options: list[str]) -> None:
    try:
        source = parse_source({"server": server, "path": path}, options)
    except InvalidError:
        return
    words = guest_mount(source, "192.0.2.7", "10.77.0.2").options.split(",")
    assert [word for word in words if word.startswith("addr=")] == ["addr=192.0.2.7"]
    assert source.path.isprintable()


async def test_an_address_needs_no_resolver_and_an_unknown_name_says_so() -> None:
    assert await resolve("192.0.2.7") == "192.0.2.7"
    assert await resolve("localhost") in ("127.0.0.1", "::1")
    with pytest.raises(UnavailableError, match=r"does-not-exist\.invalid"):
        await resolve("does-not-exist.invalid")

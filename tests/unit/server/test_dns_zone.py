"""What names of services mean, and to whom."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.server.dns.zone import Found, Zone

Object = dict[str, Any]


def service(name: str, namespace: str = "d", **spec: Any) -> Object:
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    return {"metadata": {"name": name, "namespace": namespace}, "spec": {"ports": ports, **spec}}


def endpoints(*rows: tuple[str, str, bool]) -> Object:
    """(address, host name, ready)"""
    return {
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": [address], "hostname": host, "conditions": {"ready": ready}} for address, host, ready in rows
        ],
    }


class Known:
    def __init__(self) -> None:
        self.services = [
            service("web", clusterIP="10.96.0.20"),
            service("redis", clusterIP="None"),
            service("elsewhere", type="ExternalName", externalName="example.com"),
            service("empty", clusterIP="None"),
            service("kubernetes", "default", clusterIP="10.96.0.1"),
            service("theirs", "other", clusterIP="10.96.0.30"),
        ]

    def service(self, namespace: str, name: str) -> Object | None:
        return next(
            (s for s in self.services if (s["metadata"]["namespace"], s["metadata"]["name"]) == (namespace, name)), None
        )

    def slices(self, namespace: str, service: str) -> list[Object]:
        rows = [("10.77.0.3", "redis-1", True), ("10.77.0.2", "redis-0", True), ("10.77.0.4", "redis-2", False)]
        return [endpoints(*rows)] if service == "redis" else []

    def by_address(self, address: str) -> list[Object]:
        return [s for s in self.services if s["spec"].get("clusterIP") == address]

    def pod_exists(self, namespace: str, address: str) -> bool:
        return (namespace, address) == ("d", "10.77.0.9")


ZONE = Zone(Known(), "cluster.local")


def find(name: str, type_: str = "A", visible: Any = None) -> Found:
    return ZONE.find(f"{name}.cluster.local", type_, visible)


@pytest.mark.parametrize(
    ("name", "type_", "records"),
    [
        ("web.d.svc", "A", ["10.96.0.20"]),
        ("redis.d.svc", "A", ["10.77.0.2", "10.77.0.3"]),
        ("redis-0.redis.d.svc", "A", ["10.77.0.2"]),
        ("10-77-0-3.redis.d.svc", "A", ["10.77.0.3"]),
        ("elsewhere.d.svc", "A", ["example.com."]),
        ("_http._tcp.web.d.svc", "SRV", ["0 100 80 web.d.svc.cluster.local."]),
        (
            "_http._tcp.redis.d.svc",
            "SRV",
            ["0 50 8080 redis-1.redis.d.svc.cluster.local.", "0 50 8080 redis-0.redis.d.svc.cluster.local."],
        ),
        ("10-77-0-9.d.pod", "A", ["10.77.0.9"]),
    ],
)
def test_names_have_the_records_of_their_service(name: str, type_: str, records: list[str]) -> None:
    found = find(name, type_)
    assert (found.exists, [record.data for record in found.records]) == (True, records)


@pytest.mark.parametrize(
    "name",
    [
        "nothing.d.svc",
        "web.e.svc",
        "redis-2.redis.d.svc",
        "empty.d.svc",
        "a.web.d.svc",
        "_nope._tcp.web.d.svc",
        "_http._udp.web.d.svc",
        "10-77-0-8.d.pod",
        "x.y.z.web.d.svc",
        "web.d",
        "web.d.elsewhere",
    ],
)
def test_other_names_do_not_exist(name: str) -> None:
    assert not find(name).exists


def test_a_name_without_a_record_of_the_type_exists_all_the_same() -> None:
    assert find("web.d.svc", "AAAA") == Found(True)


def test_names_of_other_tenants_are_like_names_that_do_not_exist() -> None:
    mine = {"d"}
    assert find("web.d.svc", visible=mine).exists
    assert find("theirs.other.svc", visible=mine) == find("nothing.other.svc", visible=mine) == Found(False)
    assert not find("_http._tcp.theirs.other.svc", "SRV", mine).exists
    assert not ZONE.reverse("10.96.0.30", "30.0.96.10.in-addr.arpa", mine).exists


def test_everybody_may_know_the_api() -> None:
    assert find("kubernetes.default.svc", visible={"d"}).records[0].data == "10.96.0.1"


def test_an_address_has_the_name_of_its_service() -> None:
    found = ZONE.reverse("10.96.0.20", "20.0.96.10.in-addr.arpa", None)
    assert [record.data for record in found.records] == ["web.d.svc.cluster.local."]
    assert not ZONE.reverse("10.96.0.99", "x", None).exists


@pytest.mark.parametrize(
    ("name", "ours"),
    [("cluster.local", True), ("a.cluster.local", True), ("notcluster.local", False), ("x.org", False)],
)
def test_the_zone_holds_what_is_below_its_domain(name: str, ours: bool) -> None:
    assert ZONE.holds(name) == ours

"""A service that asks for a load balancer is reached at its port on the host."""

from __future__ import annotations

from typing import Any

from cuboid.net.services import Front
from cuboid.node.services import forwards

Object = dict[str, Any]


def service(name: str, made: str, **port: Any) -> Object:
    spec = {"type": "LoadBalancer", "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"]}
    metadata = {"namespace": "d", "name": name, "creationTimestamp": made}
    return {"metadata": metadata, "spec": {**spec, "ports": [{"port": 8080, "protocol": "TCP", **port}]}}


def endpoints(name: str, address: str) -> Object:
    return {
        "metadata": {"namespace": "d", "name": f"{name}-x", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
    }


def test_the_port_of_the_host_leads_to_its_pods() -> None:
    found = {row.front: row.targets for row in forwards([service("web", "1")], [endpoints("web", "10.77.0.2")])}
    assert found[Front("", "tcp", 8080)] == (("10.77.0.2", 80),)
    assert found[Front("10.96.0.20", "tcp", 8080)] == (("10.77.0.2", 80),)


def test_of_two_that_want_one_port_the_older_has_it() -> None:
    services = [service("old", "2026-01-01T00:00:00Z"), service("new", "2026-01-02T00:00:00Z")]
    slices = [endpoints("old", "10.77.0.2"), endpoints("new", "10.77.0.3")]
    for order in (services, services[::-1]):
        found = {row.front: row.targets for row in forwards(order, slices)}
        assert found[Front("", "tcp", 8080)] == (("10.77.0.2", 80),)


def test_a_class_is_somebody_elses_balancer() -> None:
    other = service("web", "1")
    other["spec"]["loadBalancerClass"] = "example.com/other"
    fronts = {row.front for row in forwards([other], [endpoints("web", "10.77.0.2")])}
    assert fronts == {Front("10.96.0.20", "tcp", 8080)}

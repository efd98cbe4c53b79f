"""Services of type LoadBalancer say where they are reached."""

from __future__ import annotations

from typing import Any

from cuboid.controllers.balancers import MOST, Balancers, addresses
from cuboid.kube.client import NODES, SERVICES
from cuboid.kube.controller.instructions import Update
from cuboid.kube.controller.view import Change, Key
from tests.harness.plain_view import PlainView

Object = dict[str, Any]
KEY = Key("ns", "web")


def node(name: str, *rows: tuple[str, str], ready: str = "True") -> Object:
    told = [{"type": kind, "address": address} for kind, address in rows]
    status = {"addresses": told, "conditions": [{"type": "Ready", "status": ready}]}
    return {"kind": "Node", "metadata": {"name": name}, "status": status}


def service(kind: str = "LoadBalancer", told: list[str] | None = None, **spec: Any) -> Object:
    status = {"loadBalancer": {"ingress": [{"ip": ip} for ip in told or []]}}
    return {
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "ns", "resourceVersion": "1"},
        "spec": {"type": kind, **spec},
        "status": status,
    }


def written(view: PlainView) -> list[str] | None:
    """Addresses in the status that is written; None if nothing is."""
    done = Balancers().plan(KEY, view, 0.0).instructions
    if not done:
        return None
    (only,) = done
    assert isinstance(only, Update) and only.sub == "status"
    return [row["ip"] for row in only.body["status"]["loadBalancer"].get("ingress", [])]


def view(*documents: Object) -> PlainView:
    found = PlainView()
    for document in documents:
        found.put(NODES if document["kind"] == "Node" else SERVICES, document)
    return found


def test_it_is_reached_at_the_nodes_that_are_ready() -> None:
    nodes = [
        node("a", ("InternalIP", "192.0.2.10"), ("Hostname", "a")),
        node("b", ("InternalIP", "192.0.2.9"), ("ExternalIP", "198.51.100.1")),
        node("c", ("InternalIP", "192.0.2.11"), ready="Unknown"),
        node("d", ("InternalIP", "fd00::1")),
    ]
    assert addresses(nodes) == ["192.0.2.10", "198.51.100.1"]
    assert written(view(service(), *nodes)) == ["192.0.2.10", "198.51.100.1"]
    assert written(view(service(told=["192.0.2.10", "198.51.100.1"]), *nodes)) is None


def test_what_is_no_balanced_service_any_more_has_no_address() -> None:
    assert written(view(service("ClusterIP", ["192.0.2.1"]))) == []
    assert written(view(service("ClusterIP"))) is None


def test_a_class_is_somebody_elses() -> None:
    here = node("a", ("InternalIP", "192.0.2.10"))
    assert written(view(service(told=["203.0.113.1"], loadBalancerClass="example.com/x"), here)) is None


def test_heartbeats_of_nodes_wake_nobody_and_a_lost_one_wakes_all() -> None:
    _, watch = Balancers().watches
    fine, lost = node("a", ("InternalIP", "192.0.2.10")), node("a", ("InternalIP", "192.0.2.10"), ready="Unknown")
    seen = view(service())
    assert list(watch.keys(Change("MODIFIED", fine, fine), seen)) == []
    assert list(watch.keys(Change("MODIFIED", lost, fine), seen)) == [KEY]


def test_of_many_nodes_some_are_told() -> None:
    nodes = [node(f"n{number}", ("InternalIP", f"192.0.2.{number}")) for number in range(1, 100)]
    assert len(addresses(nodes)) == MOST

"""Endpoints of services, in slices and in the older form."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.controllers import endpointslice_plan
from cuboid.controllers.endpoints import EndpointsController
from cuboid.controllers.endpoints_pods import services_of
from cuboid.controllers.endpointslice_mirror import EndpointSliceMirrorController
from cuboid.controllers.endpointslices import EndpointSliceController
from cuboid.kube.client import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES
from cuboid.kube.controller.view import Change, Key
from tests.harness.plain_view import PlainView, replay, settle

Object = dict[str, Any]
KEY = Key("ns", "web")


def service(labels: Object | None = None, **spec: Any) -> Object:
    given = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}], **spec}
    meta = {"name": "web", "namespace": "ns", "uid": "svc", "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": given}


def pod(number: int, *, ready: bool = True, phase: str = "Running", ending: bool = False, **spec: Any) -> Object:
    meta: Object = {"name": f"p{number}", "namespace": "ns", "uid": f"pod-{number}", "labels": {"app": "web"}}
    if ending:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    ip = f"10.0.{number // 200}.{number % 200 + 1}"
    status = {
        "phase": phase, "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
    }  # fmt: skip
    containers = [{"name": "c", "ports": [{"name": "web", "containerPort": 9000 + number % 2}]}]
    given = {"nodeName": "n1", "containers": containers, **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": given, "status": status}


def world(*pods: Object, svc: Object | None = None) -> PlainView:
    view = PlainView()
    view.put(SERVICES, svc or service())
    view.put(NODES, {"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z1"}}})
    view.put(PODS, *pods)
    return view


def slices(view: PlainView) -> list[Object]:
    return view.select(ENDPOINT_SLICES, "ns")


def endpoints(view: PlainView) -> dict[str, Object]:
    found = [endpoint for slice_ in slices(view) for endpoint in slice_["endpoints"]]
    assert len({e["addresses"][0] for e in found}) == len(found), "an endpoint is in two slices"
    return {endpoint["targetRef"]["name"]: endpoint for endpoint in found}


def test_a_pod_of_a_service_is_an_endpoint_with_its_node_zone_and_port() -> None:
    view = world(pod(1))
    settle(EndpointSliceController(), KEY, view)
    (slice_,) = slices(view)
    assert slice_["addressType"] == "IPv4"
    assert slice_["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert slice_["endpoints"] == [
        {
            "addresses": ["10.0.0.2"],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "targetRef": {"kind": "Pod", "namespace": "ns", "name": "p1", "uid": "pod-1"},
            "nodeName": "n1",
            "zone": "z1",
        }
    ]
    assert slice_["metadata"]["labels"] == {
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    (owner,) = slice_["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Service", "svc", True)


@pytest.mark.parametrize(
    ("given", "published", "expected"),
    [
        (pod(1), False, (True, True, False)),
        (pod(1, ready=False), False, (False, False, False)),
        (pod(1, ending=True), False, (False, True, True)),
        (pod(1, ready=False, ending=True), False, (False, False, True)),
        (pod(1, ready=False), True, (True, False, False)),
        (pod(1, ending=True), True, (True, True, True)),
    ],
)
def test_conditions_tell_ready_serving_and_terminating_apart(
    given: Object, published: bool, expected: tuple[bool, ...]
) -> None:
    view = world(given, svc=service(publishNotReadyAddresses=published))
    settle(EndpointSliceController(), KEY, view)
    assert tuple(endpoints(view)["p1"]["conditions"].values()) == expected


def test_pods_that_have_ended_or_have_no_address_are_no_endpoints() -> None:
    nameless = pod(3)
    nameless["status"] |= {"podIP": "", "podIPs": []}
    view = world(pod(1, phase="Failed"), pod(2, phase="Succeeded"), nameless)
    settle(EndpointSliceController(), KEY, view)
    (slice_,) = slices(view)
    assert (slice_["endpoints"], slice_["ports"]) == ([], []), "an empty slice says that there are none"


def test_named_ports_are_looked_up_in_each_pod_and_pods_that_differ_are_in_different_slices() -> None:
    view = world(pod(1), pod(2), pod(3), svc=service(ports=[{"port": 80, "targetPort": "web"}]))
    settle(EndpointSliceController(), KEY, view)
    found = {s["ports"][0]["port"]: [e["targetRef"]["name"] for e in s["endpoints"]] for s in slices(view)}
    assert found == {9000: ["p2"], 9001: ["p1", "p3"]}


def test_a_port_that_a_pod_does_not_have_is_left_out() -> None:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81, "targetPort": "nothing"}]
    view = world(pod(1), svc=service(ports=ports))
    settle(EndpointSliceController(), KEY, view)
    assert [p["name"] for p in slices(view)[0]["ports"]] == ["a"]


def test_a_headless_service_needs_no_ports_and_knows_hostnames() -> None:
    view = world(
        pod(1, hostname="db-0", subdomain="web"),
        pod(2, hostname="db-1", subdomain="other"),
        svc=service(clusterIP="None", ports=[]),
    )
    settle(EndpointSliceController(), KEY, view)
    assert endpoints(view)["p1"]["hostname"] == "db-0"
    assert "hostname" not in endpoints(view)["p2"]
    assert slices(view)[0]["metadata"]["labels"]["service.kubernetes.io/headless"] == ""


@pytest.mark.parametrize("spec", [{"selector": {}}, {"selector": None}, {"type": "ExternalName"}])
def test_a_service_without_a_selector_is_left_alone(spec: Object) -> None:
    view = world(pod(1), svc=service(**spec))
    for controller in (EndpointSliceController(), EndpointsController()):
        assert not controller.plan(KEY, view, 0).instructions


def test_a_slice_holds_a_hundred_and_one_more_pod_costs_one_write() -> None:
    view = world(*(pod(n) for n in range(250)))
    settle(EndpointSliceController(), KEY, view)
    assert sorted(len(s["endpoints"]) for s in slices(view)) == [50, 100, 100]
    view.log.clear()
    view.put(PODS, pod(250))
    settle(EndpointSliceController(), KEY, view)
    assert [line.split()[0] for line in view.log] == ["update"]
    assert sorted(len(s["endpoints"]) for s in slices(view)) == [51, 100, 100]


def test_a_pod_that_is_replaced_takes_the_place_that_became_free() -> None:
    view = world(*(pod(n) for n in range(150)))
    settle(EndpointSliceController(), KEY, view)
    view.log.clear()
    view.drop(PODS, "ns", "p3")
    view.put(PODS, pod(151))
    settle(EndpointSliceController(), KEY, view)
    assert len(view.log) == 1, "one slice is written"
    assert set(endpoints(view)) == {f"p{n}" for n in range(150) if n != 3} | {"p151"}


def test_nothing_is_written_when_nothing_changed() -> None:
    view = world(*(pod(n) for n in range(3)))
    settle(EndpointSliceController(), KEY, view)
    settle(EndpointsController(), KEY, view)
    view.log.clear()
    settle(EndpointSliceController(), KEY, view)
    settle(EndpointsController(), KEY, view)
    assert view.log == []


def test_labels_of_the_service_and_its_next_life_reach_the_slices() -> None:
    view = world(pod(1))
    settle(EndpointSliceController(), KEY, view)
    (before,) = slices(view)
    view.put(SERVICES, service(labels={"tier": "front"}))
    settle(EndpointSliceController(), KEY, view)
    assert slices(view)[0]["metadata"]["labels"]["tier"] == "front"
    again = service()
    again["metadata"]["uid"] = "svc-2"
    view.put(SERVICES, again)
    settle(EndpointSliceController(), KEY, view)
    (after,) = slices(view)
    assert after["metadata"]["ownerReferences"][0]["uid"] == "svc-2"
    assert after["metadata"]["uid"] != before["metadata"]["uid"]


def test_slices_survive_an_interruption_behind_every_instruction() -> None:
    ports = [{"port": 80, "targetPort": "web"}]

    def scenario() -> PlainView:
        view = world(*(pod(n) for n in range(130)), svc=service(ports=ports))
        settle(EndpointSliceController(), KEY, view)
        for number in range(40):
            view.drop(PODS, "ns", f"p{number}")
        view.put(PODS, *(pod(n) for n in range(200, 400)))
        return view

    end = replay(EndpointSliceController, KEY, scenario)
    assert set(endpoints(end)) == {f"p{n}" for n in [*range(40, 130), *range(200, 400)]}


# --- the older form --------------------------------------------------------------------------------------------------


def test_endpoints_have_ready_addresses_and_others_in_order() -> None:
    view = world(pod(12), pod(2), pod(3, ready=False), pod(4, ending=True))
    settle(EndpointsController(), KEY, view)
    found = view.get(ENDPOINTS, "ns", "web")
    assert found is not None
    (subset,) = found["subsets"]
    assert [a["ip"] for a in subset["addresses"]] == ["10.0.0.3", "10.0.0.13"], "by number, not by letter"
    assert [a["targetRef"]["name"] for a in subset["notReadyAddresses"]] == ["p3"]
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]


def test_more_than_a_thousand_addresses_are_cut_and_said() -> None:
    view = world(*(pod(n, ready=n >= 30) for n in range(1020)))
    settle(EndpointsController(), KEY, view)
    found = view.get(ENDPOINTS, "ns", "web")
    assert found is not None
    (subset,) = found["subsets"]
    assert (len(subset["addresses"]), len(subset["notReadyAddresses"])) == (990, 10), "unready ones go first"
    assert found["metadata"]["annotations"] == {"endpoints.kubernetes.io/over-capacity": "truncated"}
    for number in range(500):
        view.drop(PODS, "ns", f"p{number}")
    settle(EndpointsController(), KEY, view)
    assert (
        "endpoints.kubernetes.io/over-capacity"
        not in (view.get(ENDPOINTS, "ns", "web") or {})["metadata"]["annotations"]
    )


def test_endpoints_go_with_their_service_but_not_those_of_an_election() -> None:
    view = world(pod(1))
    settle(EndpointsController(), KEY, view)
    view.drop(SERVICES, "ns", "web")
    settle(EndpointsController(), KEY, view)
    assert view.get(ENDPOINTS, "ns", "web") is None
    note = {"control-plane.alpha.kubernetes.io/leader": "{}"}
    view.put(ENDPOINTS, {"metadata": {"name": "web", "namespace": "ns", "annotations": note}})
    settle(EndpointsController(), KEY, view)
    assert view.get(ENDPOINTS, "ns", "web") is not None


# --- mirrors ---------------------------------------------------------------------------------------------------------


def by_hand(**metadata: Any) -> Object:
    subset = {
        "addresses": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}],
        "notReadyAddresses": [{"ip": "192.0.2.2", "hostname": "b"}],
        "ports": [{"name": "db", "port": 5432, "protocol": "TCP"}],
    }
    meta = {"name": "web", "namespace": "ns", "uid": "ep", **metadata}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta, "subsets": [subset]}


def test_endpoints_written_by_hand_are_mirrored_by_address_family() -> None:
    view = world(svc=service(selector=None))
    view.put(ENDPOINTS, by_hand(labels={"a": "b"}))
    end = replay(EndpointSliceMirrorController, KEY, lambda: _with(by_hand(labels={"a": "b"})))
    settle(EndpointSliceMirrorController(), KEY, view)
    found = {
        s["addressType"]: [(e["addresses"][0], e["conditions"]["ready"]) for e in s["endpoints"]] for s in slices(view)
    }
    assert found == {"IPv4": [("192.0.2.1", True), ("192.0.2.2", False)], "IPv6": [("2001:db8::1", True)]}
    labels = slices(view)[0]["metadata"]["labels"]
    assert (labels["a"], labels["endpointslice.kubernetes.io/managed-by"]) == (
        "b",
        "endpointslicemirroring-controller.k8s.io",
    )
    assert end.contents() == view.contents()
    view.drop(ENDPOINTS, "ns", "web")
    settle(EndpointSliceMirrorController(), KEY, view)
    assert slices(view) == []


def _with(document: Object) -> PlainView:
    view = world(svc=service(selector=None))
    view.put(ENDPOINTS, document)
    return view


@pytest.mark.parametrize(
    "document",
    [
        by_hand(labels={"endpointslice.kubernetes.io/skip-mirror": "true"}),
        by_hand(annotations={"control-plane.alpha.kubernetes.io/leader": "{}"}),
    ],
)
def test_endpoints_that_ask_not_to_be_mirrored_are_not(document: Object) -> None:
    view = _with(document)
    settle(EndpointSliceMirrorController(), KEY, view)
    assert slices(view) == []


# --- what wakes them -------------------------------------------------------------------------------------------------


def test_a_pod_wakes_the_services_that_select_it_before_or_after_and_only_when_it_matters() -> None:
    view = world()
    old, new = pod(1, ready=False), pod(1)
    assert list(services_of(Change("MODIFIED", new, old), view)) == [KEY]
    beat = pod(1)
    beat["metadata"]["resourceVersion"] = "99"
    assert list(services_of(Change("MODIFIED", beat, new), view)) == []
    moved = pod(1)
    moved["metadata"]["labels"] = {"app": "other"}
    assert list(services_of(Change("MODIFIED", moved, new), view)) == [KEY]
    assert list(services_of(Change("ADDED", moved), view)) == []


def test_a_burst_of_changes_of_a_large_service_is_followed_by_few_looks() -> None:
    view, controller = world(*(pod(n) for n in range(200))), EndpointSliceController()
    settle(controller, KEY, view, now=0.0)
    view.put(PODS, pod(200))
    assert controller.plan(KEY, view, 0.05).again == pytest.approx(0.55)
    assert controller.plan(KEY, view, 0.05).instructions == ()
    settle(controller, KEY, view, now=0.7)
    assert len(endpoints(view)) == 201


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "drop", "flip"]), st.integers(0, 40)), max_size=40))
def test_whatever_comes_and_goes_each_pod_is_in_one_slice_of_its_ports(changes: list[tuple[str, int]]) -> None:
    view = world(svc=service(ports=[{"port": 80, "targetPort": "web"}]))
    there: dict[int, bool] = {}
    with patch.object(endpointslice_plan, "MOST", 4):
        for what, number in changes:
            if what == "drop":
                there.pop(number, None)
                view.drop(PODS, "ns", f"p{number}")
            else:
                there[number] = not there.get(number, False) if what == "flip" else True
                view.put(PODS, pod(number, ready=there[number]))
            view.log.clear()
            settle(EndpointSliceController(), KEY, view)
            assert len(view.log) <= 3, "one pod is at most a slice that goes, one that shrinks and one that comes"
            found = endpoints(view)
            assert {name: e["conditions"]["ready"] for name, e in found.items()} == {
                f"p{n}": r for n, r in there.items()
            }
            for slice_ in slices(view):
                assert len(slice_["endpoints"]) <= 4
                for endpoint in slice_["endpoints"]:
                    assert slice_["ports"][0]["port"] == 9000 + int(endpoint["targetRef"]["name"][1:]) % 2

"""The older form of a service's endpoints, one object, for clients that do not read slices.

Source of the behaviour: kubernetes/pkg/controller/endpoint and pkg/api/v1/endpoints RepackSubsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from cuboid.controllers import endpoints_pods as of_pods
from cuboid.controllers.endpointslice_mirror import LEADER_NOTE
from cuboid.controllers.endpointslice_plan import group_key
from cuboid.controllers.endpointslices import FEW
from cuboid.controllers.pace import Pace
from cuboid.kube import objects
from cuboid.kube.client import ENDPOINTS, PODS, SERVICES
from cuboid.kube.controller.instructions import NOTHING, Create, Delete, Plan, Update
from cuboid.kube.controller.view import Change, Key, View, Watch, itself

Object = dict[str, Any]
Raw = Mapping[str, Any]
MOST = 1000
"""Addresses that the object holds; it says so when there are more."""
PAUSE_PER_POD = 0.01
"""Seconds between two writes of an object that holds all pods, for each of them."""
CAPACITY_NOTE = "endpoints.kubernetes.io/over-capacity"
MANAGED_LABEL = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"


def ours(change: Change, view: View) -> Iterable[Key]:
    """Endpoints that this controller keeps; those that somebody writes by hand, perhaps before the service, are not."""
    for document in (change.old, change.new):
        if document is not None and objects.labels(document).get(MANAGED_LABEL) == MANAGER:
            yield Key(objects.namespace(document), objects.name(document))


class EndpointsController:
    name = "endpoint"
    watches = (
        Watch(SERVICES, itself, initial=True),
        Watch(PODS, of_pods.services_of),
        Watch(ENDPOINTS, ours, initial=True),
    )

    def __init__(self) -> None:
        self._pace = Pace(PAUSE_PER_POD, free=FEW)

    def plan(self, key: Key, view: View, now: float) -> Plan:
        service = view.get(SERVICES, key.namespace, key.name)
        current = view.get(ENDPOINTS, key.namespace, key.name)
        if service is None:
            self._pace.forget(key)
            return _removed(current)
        if objects.deleting(service) or of_pods.selector_of(service) is None:
            return NOTHING
        if left := self._pace.wait(key, now):
            return Plan(again=left)
        pods = of_pods.pods_of(service, view)
        self._pace.done(key, now, len(pods))
        wanted = _wanted(service, pods)
        if current is None:
            return Plan((Create(ENDPOINTS, wanted, key.namespace),))
        meta = current["metadata"]
        kept = {name: value for name, value in objects.notes(current).items() if name != CAPACITY_NOTE}
        notes = {**kept, **objects.notes(wanted)}
        same = (current.get("subsets") or []) == wanted["subsets"] and objects.labels(current) == objects.labels(wanted)
        if same and notes == objects.notes(current):
            return NOTHING
        metadata = {**meta, "labels": objects.labels(wanted), "annotations": notes}
        return Plan((Update(ENDPOINTS, {**wanted, "metadata": metadata}),))


def _removed(current: Raw | None) -> Plan:
    if current is None or LEADER_NOTE in objects.notes(current):
        return NOTHING
    return Plan((Delete(ENDPOINTS, objects.name(current), objects.namespace(current), uid=objects.uid(current)),))


def _wanted(service: Raw, pods: Iterable[Raw]) -> Object:
    labels = {key: value for key, value in objects.labels(service).items() if key != of_pods.HEADLESS_LABEL}
    labels[MANAGED_LABEL] = MANAGER
    if of_pods.headless(service):
        labels[of_pods.HEADLESS_LABEL] = ""
    subsets, truncated = _subsets(service, pods)
    return {
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": objects.name(service), "namespace": objects.namespace(service), "labels": labels,
            "annotations": {CAPACITY_NOTE: "truncated"} if truncated else {},
        },
        "subsets": subsets,
    }  # fmt: skip


def _subsets(service: Raw, pods: Iterable[Raw]) -> tuple[list[Object], bool]:
    """Addresses by the ports that they have, in a fixed order; and whether some are left out, unready ones first."""
    every = bool(service["spec"].get("publishNotReadyAddresses"))
    counted = [pod for pod in pods if of_pods.counts(pod, terminating=every)]
    rows = []
    for pod in counted:
        ports = of_pods.ports_of(service, pod)
        if ports or (of_pods.headless(service) and not service["spec"].get("ports")):
            rows.append((every or objects.ready(pod), pod, ports))
    rows.sort(key=lambda row: (not row[0], ip_address(of_pods.address(row[1])), objects.name(row[1])))
    found: dict[str, Object] = {}
    for ready, pod, ports in rows[:MOST]:
        subset = found.setdefault(group_key("", ports), {"ports": sorted(ports, key=_port_order)} if ports else {})
        subset.setdefault("addresses" if ready else "notReadyAddresses", []).append(_address(service, pod))
    return [found[key] for key in sorted(found)], len(rows) > MOST


def _port_order(port: Raw) -> tuple[str, int, str]:
    return port["name"], port["port"], port["protocol"]


def _address(service: Raw, pod: Raw) -> Object:
    made: Object = {"ip": of_pods.address(pod), "targetRef": of_pods.target(pod)}
    if node := pod["spec"].get("nodeName"):
        made["nodeName"] = node
    if hostname := of_pods.hostname_in(pod, service):
        made["hostname"] = hostname
    return made

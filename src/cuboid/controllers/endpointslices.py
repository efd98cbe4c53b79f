"""EndpointSlices of services with a selector.

Source of the behaviour: kubernetes/pkg/controller/endpointslice and k8s.io/endpointslice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.controllers import endpoints_pods as of_pods
from cuboid.controllers.endpointslice_plan import MANAGED_LABEL, SERVICE_LABEL, Frame, Group, group_key, pack
from cuboid.controllers.pace import Pace
from cuboid.kube import objects
from cuboid.kube.client import ENDPOINT_SLICES, NODES, PODS, SERVICES
from cuboid.kube.controller.instructions import NOTHING, Plan
from cuboid.kube.controller.view import Change, Key, View, Watch, itself
from cuboid.kube.selectors import Requirement

Object = dict[str, Any]
Raw = Mapping[str, Any]
MANAGER = "endpointslice-controller.k8s.io"
PAUSE_PER_POD = 0.003
"""Seconds between two looks at the pods of a service, for each of them."""
FEW = 50
"""Pods below which every change is followed at once."""
_ZONE = "topology.kubernetes.io/zone"


def its_service(manager: str) -> Any:
    """Keys of slices: the service of those that `manager` keeps."""

    def keys(change: Change, view: View) -> Iterable[Key]:
        for document in (change.old, change.new):
            if document is not None and objects.labels(document).get(MANAGED_LABEL) == manager:
                yield Key(objects.namespace(document), objects.labels(document).get(SERVICE_LABEL, ""))

    return keys


def slices_of(view: View, key: Key, manager: str) -> list[Object]:
    wanted = {SERVICE_LABEL: key.name, MANAGED_LABEL: manager}
    selector = tuple(Requirement(label, "=", frozenset((value,))) for label, value in wanted.items())
    return view.select(ENDPOINT_SLICES, key.namespace, selector)


class EndpointSliceController:
    name = "endpointslice"
    watches = (
        Watch(SERVICES, itself, initial=True),
        Watch(PODS, of_pods.services_of),
        Watch(ENDPOINT_SLICES, its_service(MANAGER)),
    )

    def __init__(self) -> None:
        self._pace = Pace(PAUSE_PER_POD, free=FEW)

    def plan(self, key: Key, view: View, now: float) -> Plan:
        service = view.get(SERVICES, key.namespace, key.name)
        if service is None or objects.deleting(service) or of_pods.selector_of(service) is None:
            self._pace.forget(key)
            return NOTHING  # slices go with their owner
        if left := self._pace.wait(key, now):
            return Plan(again=left)
        pods = of_pods.pods_of(service, view)
        self._pace.done(key, now, len(pods))
        groups = _groups(service, pods, view)
        return Plan(tuple(pack(slices_of(view, key, MANAGER), groups, _frame(service))))


def _frame(service: Raw) -> Frame:
    labels = {key: value for key, value in objects.labels(service).items() if key != of_pods.HEADLESS_LABEL}
    labels |= {SERVICE_LABEL: objects.name(service), MANAGED_LABEL: MANAGER}
    if of_pods.headless(service):
        labels[of_pods.HEADLESS_LABEL] = ""
    owner = objects.owner_reference(service)
    return Frame(objects.namespace(service), objects.name(service), owner, labels)


def _groups(service: Raw, pods: Iterable[Raw], view: View) -> list[Group]:
    found: dict[str, tuple[list[Object], list[Object]]] = {}
    zones: dict[str, str] = {}
    for pod in pods:
        if of_pods.counts(pod, terminating=True):
            ports = of_pods.ports_of(service, pod)
            group = found.setdefault(group_key("IPv4", ports), (ports, []))
            group[1].append(_endpoint(service, pod, _zone(pod, view, zones)))
    return [Group("IPv4", ports, endpoints) for ports, endpoints in found.values()]


def _zone(pod: Raw, view: View, known: dict[str, str]) -> str:
    node = str(pod["spec"].get("nodeName") or "")
    if node and node not in known:
        found = view.get(NODES, "", node)
        known[node] = objects.labels(found).get(_ZONE, "") if found else ""
    return known.get(node, "")


def _endpoint(service: Raw, pod: Raw, zone: str) -> Object:
    serving, terminating = objects.ready(pod), objects.deleting(pod)
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not terminating)
    made: Object = {
        "addresses": [of_pods.address(pod)],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": of_pods.target(pod),
    }
    for key, value in (
        ("nodeName", pod["spec"].get("nodeName")),
        ("hostname", of_pods.hostname_in(pod, service)),
        ("zone", zone),
    ):
        if value:
            made[key] = value
    return made

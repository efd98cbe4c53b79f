"""EndpointSlices that mirror Endpoints written by hand, of services without a selector.

Source of the behaviour: kubernetes/pkg/controller/endpointslicemirroring.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.controllers.endpointslice_plan import MANAGED_LABEL, SERVICE_LABEL, Frame, Group, group_key, pack
from cuboid.controllers.endpointslices import its_service, slices_of
from cuboid.kube import objects
from cuboid.kube.client import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from cuboid.kube.controller.instructions import Delete, Plan
from cuboid.kube.controller.view import Key, View, Watch, itself

Object = dict[str, Any]
Raw = Mapping[str, Any]
MANAGER = "endpointslicemirroring-controller.k8s.io"
MOST = 1000
"""Addresses of one subset that are mirrored."""
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
LEADER_NOTE = "control-plane.alpha.kubernetes.io/leader"
_OWN_NOTES = ("kubectl.kubernetes.io/last-applied-configuration", "endpoints.kubernetes.io/last-change-trigger-time")


class EndpointSliceMirrorController:
    name = "endpointslicemirroring"
    watches = (
        Watch(ENDPOINTS, itself, initial=True),
        Watch(SERVICES, itself),
        Watch(ENDPOINT_SLICES, its_service(MANAGER)),
    )

    def plan(self, key: Key, view: View, now: float) -> Plan:
        existing = slices_of(view, key, MANAGER)
        endpoints = view.get(ENDPOINTS, key.namespace, key.name)
        service = view.get(SERVICES, key.namespace, key.name)
        if endpoints is None or service is None or not _mirrored(endpoints, service):
            gone = (Delete(ENDPOINT_SLICES, objects.name(s), key.namespace, uid=objects.uid(s)) for s in existing)
            return Plan(tuple(gone))
        groups = _groups(endpoints)
        if not groups and not existing:
            return Plan()
        return Plan(tuple(pack(existing, groups, _frame(endpoints))))


def _mirrored(endpoints: Raw, service: Raw) -> bool:
    if service["spec"].get("selector") or objects.deleting(endpoints):
        return False
    return objects.labels(endpoints).get(SKIP_LABEL) != "true" and LEADER_NOTE not in objects.notes(endpoints)


def _frame(endpoints: Raw) -> Frame:
    labels = {**objects.labels(endpoints), SERVICE_LABEL: objects.name(endpoints), MANAGED_LABEL: MANAGER}
    notes = {key: value for key, value in objects.notes(endpoints).items() if key not in _OWN_NOTES}
    owner = objects.owner_reference(endpoints)
    return Frame(objects.namespace(endpoints), objects.name(endpoints), owner, labels, notes)


def _groups(endpoints: Raw) -> list[Group]:
    """Subsets with the same ports become one group; an address that is ready in one of them is ready."""
    found: dict[str, tuple[str, list[Object], dict[str, Object]]] = {}
    for subset in endpoints.get("subsets") or []:
        ports = [_port(port) for port in subset.get("ports") or []]
        for address, ready in _addresses(subset):
            type_ = "IPv6" if ":" in address["ip"] else "IPv4"
            group = found.setdefault(group_key(type_, ports), (type_, ports, {}))
            group[2].setdefault(address["ip"], _endpoint(address, ready))
    return [Group(type_, ports, list(endpoints.values())) for type_, ports, endpoints in found.values()]


def _addresses(subset: Raw) -> Iterable[tuple[Raw, bool]]:
    every = [(item, True) for item in subset.get("addresses") or []]
    every += [(item, False) for item in subset.get("notReadyAddresses") or []]
    return every[:MOST]


def _port(port: Raw) -> Object:
    made = {"name": port.get("name", ""), "port": port["port"], "protocol": port.get("protocol", "TCP")}
    return {**made, "appProtocol": port["appProtocol"]} if port.get("appProtocol") else made


def _endpoint(address: Raw, ready: bool) -> Object:
    made: Object = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    for key in ("hostname", "nodeName", "targetRef"):
        if address.get(key):
            made[key] = address[key]
    return made

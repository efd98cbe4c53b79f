"""Where services of type LoadBalancer are reached: at their ports on the nodes that are ready.

A real cluster has a balancer of its own. On this platform each node leads its ports to the pods (`node.services`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cuboid.kube import objects
from cuboid.kube.client import NODES, SERVICES
from cuboid.kube.controller.instructions import NOTHING, Plan, Update
from cuboid.kube.controller.view import Change, Key, View, Watch, itself

Object = dict[str, Any]
Raw = Mapping[str, Any]
MOST = 16
"""Addresses that are told of one service: every node has the same way in."""


def balanced(service: Raw) -> bool:
    """A class names a balancer that somebody else runs."""
    spec = service.get("spec", {})
    return spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerClass")


def addresses(nodes: Sequence[Raw]) -> list[str]:
    """One of each node that is ready, in order."""
    found = {ip for node in nodes if (ip := _address(node))}
    return [str(ip) for ip in sorted(found)][:MOST]


def _address(node: Raw) -> ipaddress.IPv4Address | None:
    if (objects.condition(node, "Ready") or {}).get("status") != "True" or objects.deleting(node):
        return None
    rows = {row["type"]: row["address"] for row in reversed(node.get("status", {}).get("addresses", []))}
    try:
        return ipaddress.IPv4Address(rows.get("ExternalIP") or rows.get("InternalIP") or "")
    except ValueError:
        return None


def _of_nodes(change: Change, view: View) -> Iterable[Key]:
    """All of them, when a way in came or went."""
    if change.old is not None and change.type == "MODIFIED" and _address(change.old) == _address(change.new):
        return
    for service in view.select(SERVICES):
        if balanced(service):
            yield Key(objects.namespace(service), objects.name(service))


class Balancers:
    name = "service-lb"
    watches = (Watch(SERVICES, itself, initial=True), Watch(NODES, _of_nodes))

    def plan(self, key: Key, view: View, now: float) -> Plan:
        service = view.get(SERVICES, key.namespace, key.name)
        if service is None or objects.deleting(service):
            return NOTHING
        told = service.get("status", {}).get("loadBalancer", {}).get("ingress", [])
        if balanced(service):
            wanted = [{"ip": ip, "ipMode": "VIP"} for ip in addresses(view.select(NODES))]
        elif service["spec"].get("type") == "LoadBalancer":
            return NOTHING
        else:
            wanted = []
        if [row.get("ip") for row in told] == [row["ip"] for row in wanted]:
            return NOTHING
        status = {**service.get("status", {}), "loadBalancer": {"ingress": wanted} if wanted else {}}
        return Plan((Update(SERVICES, {**service, "status": status}, "status"),))

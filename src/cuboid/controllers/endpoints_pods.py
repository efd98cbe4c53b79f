"""What a service makes of its pods: which of them count, at which ports. Pure; shared by both forms of endpoints.

Source: k8s.io/endpointslice/util and pkg/api/v1/pod FindPort.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.kube import objects, selectors
from cuboid.kube.client import PODS, SERVICES
from cuboid.kube.controller.view import Change, Key, View
from cuboid.kube.selectors import Requirement, Selector

Object = dict[str, Any]
Raw = Mapping[str, Any]

HEADLESS_LABEL = "service.kubernetes.io/headless"
RELEVANT_SPEC = ("nodeName", "hostname", "subdomain", "containers", "initContainers")


def selector_of(service: Raw) -> Selector | None:
    """None for a service without a selector, whose endpoints somebody else keeps."""
    spec = service.get("spec", {})
    given = spec.get("selector")
    if not given or spec.get("type") == "ExternalName":
        return None
    return tuple(Requirement(key, "=", frozenset((value,))) for key, value in given.items())


def headless(service: Raw) -> bool:
    return bool(service.get("spec", {}).get("clusterIP") == "None")


def pods_of(service: Raw, view: View) -> list[Object]:
    selector = selector_of(service)
    return [] if selector is None else view.select(PODS, objects.namespace(service), selector)


def address(pod: Raw) -> str:
    """Its IPv4 address, "" while it has none."""
    status = pod.get("status", {})
    given = [status.get("podIP", ""), *(item.get("ip", "") for item in status.get("podIPs") or [])]
    return next((str(ip) for ip in given if ip and ":" not in ip), "")


def counts(pod: Raw, *, terminating: bool) -> bool:
    """Whether it is an endpoint at all; one that is asked to end only with `terminating`."""
    return bool(address(pod)) and not objects.finished(pod) and (terminating or not objects.deleting(pod))


def port_of(pod: Raw, port: Raw) -> int | None:
    """Where a pod serves a service's port; None when it has no port of that name."""
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    sidecars = [c for c in pod["spec"].get("initContainers") or [] if c.get("restartPolicy") == "Always"]
    for container in [*(pod["spec"].get("containers") or []), *sidecars]:
        for own in container.get("ports") or []:
            if own.get("name") == target and own.get("protocol", "TCP") == port.get("protocol", "TCP"):
                return int(own["containerPort"])
    return None


def ports_of(service: Raw, pod: Raw) -> list[Object]:
    """The service's ports at this pod, in their order; those that it does not have are left out."""
    found = []
    for port in service.get("spec", {}).get("ports") or []:
        number = port_of(pod, port)
        if number is not None:
            made: Object = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
            if port.get("appProtocol"):
                made["appProtocol"] = port["appProtocol"]
            found.append(made)
    return found


def target(pod: Raw) -> Object:
    meta = pod["metadata"]
    return {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta.get("uid", "")}


def hostname_in(pod: Raw, service: Raw) -> str:
    """The name under which DNS knows the pod in this service, "" for none."""
    spec = pod["spec"]
    return str(spec.get("hostname") or "") if spec.get("subdomain") == objects.name(service) else ""


def services_of(change: Change, view: View) -> Iterable[Key]:
    """The services that select a pod, before or after its change; none when nothing about it that they tell changed."""
    if change.old is not None and change.type == "MODIFIED" and _told(change.old) == _told(change.new):
        return
    states = [objects.labels(document) for document in (change.old, change.new) if document is not None]
    for service in view.glance(SERVICES, objects.namespace(change.new)):
        selector = selector_of(service)
        if selector is not None and any(selectors.matches(selector, labels) for labels in states):
            yield Key(objects.namespace(service), objects.name(service))


def _told(pod: Raw) -> Object:
    spec = {key: pod["spec"].get(key) for key in RELEVANT_SPEC}
    return {
        "spec": spec, "labels": objects.labels(pod), "address": address(pod), "ready": objects.ready(pod),
        "finished": objects.finished(pod), "deleting": objects.deleting(pod),
    }  # fmt: skip

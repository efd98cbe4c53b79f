"""The downward API: what a pod may learn of itself, as text. Source: "Downward API" in the Kubernetes documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from fractions import Fraction

from cuboid.kube import quantity
from cuboid.kube.types import Container, ObjectFieldSelector, Pod, ResourceFieldSelector
from cuboid.lib.errors import InvalidError
from cuboid.node.objects import PodFacts

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_Fields = dict[str, Callable[[Pod, PodFacts], str]]

_FIELDS: _Fields = {
    "metadata.name": lambda pod, _: pod.metadata.name,
    "metadata.namespace": lambda pod, _: pod.metadata.namespace,
    "metadata.uid": lambda pod, _: pod.metadata.uid,
    "metadata.labels": lambda pod, _: _map_text(pod.metadata.labels),
    "metadata.annotations": lambda pod, _: _map_text(pod.metadata.annotations),
    "spec.nodeName": lambda pod, facts: facts.node_name or pod.spec.node_name,
    "spec.serviceAccountName": lambda pod, _: pod.spec.service_account_name or "default",
    "status.hostIP": lambda _, facts: facts.host_ip,
    "status.hostIPs": lambda _, facts: facts.host_ip,
    "status.podIP": lambda _, facts: facts.pod_ips[0] if facts.pod_ips else "",
    "status.podIPs": lambda _, facts: ",".join(facts.pod_ips),
}
_RESOURCES = ("cpu", "memory", "ephemeral-storage")


def field_value(pod: Pod, selector: ObjectFieldSelector, facts: PodFacts) -> str:
    """The text of a `fieldRef`. InvalidError names the path if there is no such field."""
    path = selector.field_path
    if match := _SUBSCRIPT.fullmatch(path):
        table = pod.metadata.labels if match[1] == "labels" else pod.metadata.annotations
        return table.get(match[2], "")
    if path not in _FIELDS:
        raise InvalidError(
            f"fieldRef {path!r} is not a field of the downward API", hint=f"one of {', '.join(sorted(_FIELDS))}"
        )
    return _FIELDS[path](pod, facts)


def _map_text(table: dict[str, str]) -> str:
    """`key="value"` lines, sorted, with the value escaped."""
    return "\n".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sorted(table.items()))


def resource_value(pod: Pod, container: Container, selector: ResourceFieldSelector, facts: PodFacts) -> str:
    """The number of a `resourceFieldRef`, rounded up to whole divisors. A missing limit is what the VM has."""
    if selector.container_name and selector.container_name != container.name:
        container = _named(pod, selector.container_name)
    kind, _, resource = selector.resource.partition(".")
    if kind not in ("limits", "requests") or resource not in _RESOURCES:
        raise InvalidError(
            f"resourceFieldRef {selector.resource!r} is not a resource of the downward API",
            hint="limits or requests of cpu, memory or ephemeral-storage",
        )
    divisor = quantity.parse(selector.divisor or "1")
    if divisor <= 0:
        divisor = Fraction(1)
    return str(-(-_amount(container, kind, resource, facts) // divisor))


def _amount(container: Container, kind: str, resource: str, facts: PodFacts) -> Fraction:
    given = container.resources.limits if kind == "limits" else container.resources.requests
    text = given.get(resource, "" if kind == "limits" else container.resources.limits.get(resource, ""))
    if text:
        return quantity.parse(text)
    if kind == "requests":
        return Fraction(0)
    whole = {
        "cpu": Fraction(facts.cpu_millis, 1000),
        "memory": Fraction(facts.memory_bytes),
        "ephemeral-storage": Fraction(facts.ephemeral_bytes),
    }
    return whole[resource]


def _named(pod: Pod, name: str) -> Container:
    for container in [*pod.spec.containers, *pod.spec.init_containers]:
        if container.name == name:
            return container
    raise InvalidError(f"resourceFieldRef names the container {name!r}, which the pod does not have")

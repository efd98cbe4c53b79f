"""Objects that every server has from its start: the services of the API and of the resolver, where the API is, and the
priority classes of the system."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

from cuboid.kube import kinds, namespaces, syntax
from cuboid.kube.groups.class_strategy import SYSTEM
from cuboid.kube.kind import Kind
from cuboid.kube.names import API_SERVICE, DNS_SERVICE, SERVICE_SUBNET, api_service_ip, dns_service_ip
from cuboid.kube.registry import Registry, WriteOptions
from cuboid.lib.errors import AlreadyExistsError, CuboidError
from cuboid.lib.log import get_log

log = get_log(__name__)

Object = dict[str, Any]
EVERY = 10.0
"""Seconds between two looks, as in Kubernetes."""
_HTTPS = {"name": "https", "protocol": "TCP"}
_SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
_OF_SERVICE = "kubernetes.io/service-name"


async def ensure(registry: Registry, url: str, *, dns: bool, subnet: str = SERVICE_SUBNET) -> None:
    """Create what a fresh store lacks, and say where the API is now. Idempotent. What is refused, by a quota perhaps,
    is said and left out: without it the server still serves.

    `url` is the server's own, `https://host:port`; `dns` tells whether it has a resolver, `subnet` is
    the range of services' addresses.
    """
    parts = urlsplit(url)
    port = parts.port or 443
    for name, value in SYSTEM.items():
        await _ensure(registry, "PriorityClass", _priority(name, value), group="scheduling.k8s.io")
    await _ensure(registry, "Service", _api_service(port, api_service_ip(subnet)))
    if dns:
        await _ensure(registry, "Service", _dns_service(dns_service_ip(subnet)))
    host = parts.hostname or ""
    if not syntax.ip_address(host):
        await _ensure(registry, "Endpoints", _endpoints(host, port), ("subsets",))
        await _ensure(registry, "EndpointSlice", _slice(host, port), ("endpoints", "ports"), "discovery.k8s.io")


async def keep(registry: Registry, url: str, *, dns: bool, subnet: str = SERVICE_SUBNET, every: float = EVERY) -> None:
    """Until cancelled: what somebody deleted comes back within `every` seconds."""
    while True:
        await asyncio.sleep(every)
        await namespaces.ensure_permanent(registry)
        await ensure(registry, url, dns=dns, subnet=subnet)


def _priority(name: str, value: int) -> Object:
    what = "node" if "node" in name else "cluster"
    text = f"Used for system critical pods that must {_MUST[what]}."
    return {"metadata": {"name": name}, "value": value, "description": text}


_MUST = {
    "cluster": "run in the cluster, but can be moved to another node if necessary",
    "node": "not be moved from their current node",
}


def _named(place: tuple[str, str], **labels: str) -> Object:
    return {"namespace": place[0], "name": place[1], "labels": labels}


def _api_service(port: int, address: str) -> Object:
    labels = {"component": "apiserver", "provider": "kubernetes"}
    ports = [{**_HTTPS, "port": 443, "targetPort": port}]
    return {
        "metadata": _named(API_SERVICE, **labels),
        "spec": {"clusterIP": address, "ports": ports, "type": "ClusterIP"},
    }


def _dns_service(address: str) -> Object:
    labels = {"k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    return {"metadata": _named(DNS_SERVICE, **labels), "spec": {"clusterIP": address, "ports": ports}}


def _endpoints(host: str, port: int) -> Object:
    subsets = [{"addresses": [{"ip": host}], "ports": [{**_HTTPS, "port": port}]}]
    return {"metadata": _named(API_SERVICE, **{_SKIP_MIRROR: "true"}), "subsets": subsets}


def _slice(host: str, port: int) -> Object:
    return {
        "metadata": _named(API_SERVICE, **{_OF_SERVICE: API_SERVICE[1]}),
        "addressType": "IPv6" if ":" in host else "IPv4",
        "endpoints": [{"addresses": [host], "conditions": {"ready": True}}],
        "ports": [{**_HTTPS, "port": port}],
    }


async def _ensure(
    registry: Registry, name: str, wanted: Object, current: tuple[str, ...] = (), group: str = ""
) -> None:
    """`current` are the fields that are set anew at each start."""
    kind: Kind = kinds.builtin(name, group)
    try:
        await _written(registry, kind, wanted, current)
    except AlreadyExistsError:
        return
    except CuboidError as error:
        told = wanted["metadata"]["name"]
        log.warning("an object of the platform is missing", kind=name, name=told, error=str(error))


async def _written(registry: Registry, kind: Kind, wanted: Object, current: tuple[str, ...]) -> None:
    metadata = wanted["metadata"]
    namespace = metadata.get("namespace", "")
    entry = registry.of(kind).get(namespace, metadata["name"])
    if entry is None:
        await registry.create(kind, namespace, wanted, WriteOptions())
        return
    found = entry.object()
    changed = {**found, **{key: wanted[key] for key in current}}
    if changed != found:
        await registry.update(kind, namespace, metadata["name"], changed, WriteOptions())

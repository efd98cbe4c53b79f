"""Services on this node: which targets each address has now, and the loop that keeps the host's rules so.

`forwards` is pure. On a cluster whose own proxy does this (`[node] services = false`) nothing here runs.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from cuboid.kube.client import ENDPOINT_SLICES, SERVICES, Client, Resource
from cuboid.kube.informer import Informer
from cuboid.kube.names import SERVICE_SUBNET, api_service_ip, dns_service_ip
from cuboid.kube.types import Pod
from cuboid.lib.errors import CuboidError
from cuboid.lib.log import get_log
from cuboid.net.services import Forward, Front, Target, checked

log = get_log(__name__)
Raw = Mapping[str, Any]
SERVICE_NAME = "kubernetes.io/service-name"
GATHER_SECONDS = 0.02
"""How long a change waits for others to be written with it."""
CHECK_SECONDS = 30.0
"""How often the host's rules are looked at although nothing changed."""
_API = ("default", "kubernetes")


class Rules(Protocol):
    async def apply(self, forwards: Iterable[Forward]) -> None: ...


def fixed(server: str, dns_port: int, subnet: str = SERVICE_SUBNET) -> list[Forward]:
    """What the platform itself offers to pods, though it listens on loopback only: the API, and a resolver."""
    found = []
    parts = urlsplit(server)
    host = {"localhost": "127.0.0.1", "::1": "127.0.0.1"}.get(parts.hostname or "", parts.hostname or "")
    if parts.scheme == "https" and host:
        found.append(Forward(Front(api_service_ip(subnet), "tcp", 443), ((host, parts.port or 443),)))
    if dns_port:
        found += [
            Forward(Front(dns_service_ip(subnet), kind, 53), (("127.0.0.1", dns_port),)) for kind in ("udp", "tcp")
        ]
    return [forward for forward in found if _usable(forward)]


def forwards(services: Iterable[Raw], slices: Iterable[Raw]) -> list[Forward]:
    """Every address and node port of every service, with the targets that are ready now.

    When none is ready, those that are ending but still serve get what comes. `externalIPs` are not followed: whoever
    may write a service could take over any address with them (CVE-2020-8554). Of two services that want one port of
    the host the older has it: of a front that is there twice, the last counts.
    """
    by_service: dict[tuple[str, str], list[Raw]] = {}
    for item in slices:
        metadata = item["metadata"]
        name = (metadata.get("labels") or {}).get(SERVICE_NAME, "")
        by_service.setdefault((metadata["namespace"], name), []).append(item)
    found: list[Forward] = []
    for service in sorted(services, key=lambda one: str(one["metadata"].get("creationTimestamp", "")), reverse=True):
        place = (service["metadata"]["namespace"], service["metadata"]["name"])
        if place != _API:
            found += _of_service(service, by_service.get(place, []))
    return [forward for forward in found if _usable(forward) and not _of_the_host(forward)]


def _of_the_host(forward: Forward) -> bool:
    """Whoever may write endpoints must not reach with them what listens on the host's loopback, or a metadata service:
    only the platform's own forwards lead there."""
    for address, _ in forward.targets:
        ip = ipaddress.IPv4Address(address)
        if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            log.warning("a service is left out", front=str(forward.front), target=address)
            return True
    return False


def _of_service(service: Raw, slices: list[Raw]) -> Iterable[Forward]:
    spec = service.get("spec", {})
    if spec.get("type") == "ExternalName":
        return
    addresses = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP", "")] if ip and ip != "None"]
    sticky = spec.get("sessionAffinity") == "ClientIP"
    for port in spec.get("ports") or ():
        protocol = port.get("protocol", "TCP").lower()
        targets = _targets(slices, port.get("name", ""), port.get("protocol", "TCP"))
        for address in addresses:
            yield Forward(Front(address, protocol, port["port"]), targets, sticky)
        if port.get("nodePort"):
            yield Forward(Front("", protocol, port["nodePort"]), targets, sticky)
        if spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerClass"):  # none: the host is the way in
            yield Forward(Front("", protocol, port["port"]), targets, sticky)


def _targets(slices: list[Raw], name: str, protocol: str) -> tuple[Target, ...]:
    ready: set[Target] = set()
    ending: set[Target] = set()
    for item in slices:
        if item.get("addressType", "IPv4") != "IPv4":
            continue
        for port in item.get("ports") or ():
            if (port.get("name") or "") != name or port.get("protocol", "TCP") != protocol or not port.get("port"):
                continue
            for endpoint in item.get("endpoints") or ():
                conditions = endpoint.get("conditions") or {}
                here = {(address, int(port["port"])) for address in endpoint.get("addresses", [])[:1]}
                if conditions.get("ready") is not False:
                    ready |= here
                elif conditions.get("serving") and conditions.get("terminating"):
                    ending |= here
    return tuple(sorted(ready or ending))


def _usable(forward: Forward) -> bool:
    """What is no IPv4 address or port is left out: one odd object must not keep all others from being reached."""
    try:
        checked(forward)
    except CuboidError as error:
        log.info("a service is left out", front=str(forward.front), error=str(error))
        return False
    return True


def environment(services: Iterable[Raw], pod: Pod) -> dict[str, str]:
    """Variables that tell a pod where services are: the API's, and with `enableServiceLinks` those of its namespace.

    Source: kubernetes/pkg/kubelet/envvars.
    """
    found: dict[str, str] = {}
    for service in services:
        metadata, spec = service["metadata"], service.get("spec", {})
        place = (metadata["namespace"], metadata["name"])
        linked = pod.spec.enable_service_links is not False and metadata["namespace"] == pod.metadata.namespace
        if spec.get("clusterIP", "None") not in ("", "None") and (place == _API or linked):
            found |= _variables(metadata["name"], spec)
    return found


def _variables(name: str, spec: Raw) -> dict[str, str]:
    prefix, address, ports = name.upper().replace("-", "_"), spec["clusterIP"], spec.get("ports") or []
    if not ports:
        return {}
    first = ports[0]
    url = f"{first.get('protocol', 'TCP').lower()}://{address}:{first['port']}"
    found = {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(first["port"]),
        f"{prefix}_PORT": url,
    }
    for port in ports:
        protocol, number = port.get("protocol", "TCP"), str(port["port"])
        if port.get("name"):
            found[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = number
        stem = f"{prefix}_PORT_{number}_{protocol}"
        found |= {
            stem: f"{protocol.lower()}://{address}:{number}",
            f"{stem}_PROTO": protocol.lower(),
            f"{stem}_PORT": number,
            f"{stem}_ADDR": address,
        }
    return found


class ServiceProxy:
    """An edge of the node agent."""

    def __init__(self, client: Client, rules: Rules, constant: Iterable[Forward] = ()) -> None:
        self._rules = rules
        self._constant = list(constant)
        self._services = Informer(client, SERVICES)
        self._slices = Informer(client, ENDPOINT_SLICES)
        self._changed = asyncio.Event()

    def environment(self, pod: Pod) -> dict[str, str]:
        """What a container of this pod that starts now is told of services."""
        return environment(self._services.objects.values(), pod)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(self._services, SERVICES), name="services")
            group.create_task(self._follow(self._slices, ENDPOINT_SLICES), name="slices")
            group.create_task(self._keep(), name="rules")

    async def _follow(self, informer: Informer, resource: Resource) -> None:
        while True:
            try:
                async for _ in informer.events():
                    self._changed.set()
            except CuboidError as error:
                log.warning("cannot watch", resource=resource.plural, error=str(error))
                await asyncio.sleep(1.0)

    async def _keep(self) -> None:
        # What was there before this process stays as it is until everything is known: no service is cut off meanwhile.
        await self._services.synced.wait()
        await self._slices.synced.wait()
        while True:
            self._changed.clear()
            wanted = [*self._constant, *forwards(self._services.objects.values(), self._slices.objects.values())]
            try:
                await self._rules.apply(wanted)
            except (CuboidError, OSError) as error:
                log.error("the addresses of services are not as they should be", error=str(error))
                await asyncio.sleep(1.0)
                continue
            try:
                async with asyncio.timeout(CHECK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(GATHER_SECONDS)

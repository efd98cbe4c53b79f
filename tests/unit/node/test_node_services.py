"""Which targets the addresses of services have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from cuboid.kube.types import pod
from cuboid.net.services import Forward, Front
from cuboid.node.services import environment, fixed, forwards

Object = dict[str, Any]


def service(name: str = "web", **spec: Any) -> Object:
    ports = [{"port": 80, "protocol": "TCP", "targetPort": 8080}]
    return {
        "metadata": {"namespace": "d", "name": name},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20"], "ports": ports, **spec},
    }


def endpoints(*addresses: str, name: str = "web", port: str = "", **conditions: bool) -> Object:
    return {
        "metadata": {"namespace": "d", "name": f"{name}-x", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": port, "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": conditions} for address in addresses],
    }


def targets(services: Iterable[Object], slices: Iterable[Object]) -> dict[str, list[str]]:
    return {
        f"{forward.front.address}:{forward.front.port}": [address for address, _ in forward.targets]
        for forward in forwards(services, slices)
    }


def test_ready_endpoints_of_all_slices_are_targets() -> None:
    slices = [endpoints("10.77.0.3"), endpoints("10.77.0.2", ready=True), endpoints("10.77.0.4", ready=False)]
    assert targets([service()], slices) == {"10.96.0.20:80": ["10.77.0.2", "10.77.0.3"]}


def test_those_that_end_get_what_comes_when_nobody_else_is_there() -> None:
    ending = endpoints("10.77.0.3", ready=False, serving=True, terminating=True)
    assert targets([service()], [ending]) == {"10.96.0.20:80": ["10.77.0.3"]}
    assert targets([service()], [ending, endpoints("10.77.0.2")]) == {"10.96.0.20:80": ["10.77.0.2"]}


def test_ports_are_told_apart_by_name() -> None:
    ports = [{"name": "a", "port": 80, "protocol": "TCP"}, {"name": "b", "port": 81, "protocol": "TCP"}]
    found = targets([service(ports=ports)], [endpoints("10.77.0.2", port="b")])
    assert found == {"10.96.0.20:80": [], "10.96.0.20:81": ["10.77.0.2"]}


def test_a_node_port_leads_to_the_same_targets() -> None:
    ports = [{"port": 80, "protocol": "TCP", "nodePort": 30080}]
    found = targets([service(type="NodePort", ports=ports)], [endpoints("10.77.0.2")])
    assert found == {"10.96.0.20:80": ["10.77.0.2"], ":30080": ["10.77.0.2"]}


def test_slices_of_another_service_or_namespace_are_not_mixed_in() -> None:
    other = endpoints("10.77.0.9")
    other["metadata"]["namespace"] = "e"
    assert targets([service()], [other, endpoints("10.77.0.8", name="db")]) == {"10.96.0.20:80": []}


@pytest.mark.parametrize(
    "odd",
    [
        service(type="ExternalName", clusterIP="", clusterIPs=[]),
        service(clusterIP="None", clusterIPs=["None"]),
        service(clusterIP="fd00::1", clusterIPs=["fd00::1"]),
        service(clusterIP="1.2.3.4 . tcp", clusterIPs=["1.2.3.4 . tcp"]),
    ],
    ids=["external name", "headless", "IPv6", "no address"],
)
def test_what_has_no_address_of_its_own_has_no_rule(odd: Object) -> None:
    assert targets([odd], [endpoints("10.77.0.2")]) == {}


def test_external_addresses_are_nobodys_to_take() -> None:
    assert list(targets([service(externalIPs=["8.8.8.8"])], [endpoints("10.77.0.2")])) == ["10.96.0.20:80"]


def test_an_odd_target_keeps_nobody_else_from_being_reached() -> None:
    slices = [endpoints("not an address"), endpoints("10.77.0.2", name="db")]
    assert list(targets([service(), service("db", clusterIPs=["10.96.0.21"])], slices)) == ["10.96.0.21:80"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0"])
def test_endpoints_written_by_hand_lead_to_nothing_of_the_host(address: str) -> None:
    assert targets([service()], [endpoints(address)]) == {}


def test_a_client_is_kept_where_it_is_when_asked_for() -> None:
    (found,) = forwards([service(sessionAffinity="ClientIP")], [endpoints("10.77.0.2")])
    assert found.sticky


def test_the_api_and_the_resolver_are_reached_by_addresses_of_services() -> None:
    assert fixed("https://127.0.0.1:6443", 10053) == [
        Forward(Front("10.96.0.1", "tcp", 443), (("127.0.0.1", 6443),)),
        Forward(Front("10.96.0.10", "udp", 53), (("127.0.0.1", 10053),)),
        Forward(Front("10.96.0.10", "tcp", 53), (("127.0.0.1", 10053),)),
    ]
    assert fixed("https://api.example.com", 0) == []
    assert [forward.front.address for forward in fixed("https://127.0.0.1:6443", 0, "172.20.0.0/24")] == ["172.20.0.1"]


def told(links: bool, *services: Object) -> dict[str, str]:
    made = pod({"metadata": {"name": "p", "namespace": "d"}, "spec": {"enableServiceLinks": links}})
    return environment(services, made)


def test_a_pod_is_told_where_the_services_of_its_namespace_are() -> None:
    ports = [{"name": "my-http", "port": 80, "protocol": "TCP"}]
    assert told(True, service("my-web", ports=ports)) == {
        "MY_WEB_SERVICE_HOST": "10.96.0.20",
        "MY_WEB_SERVICE_PORT": "80",
        "MY_WEB_SERVICE_PORT_MY_HTTP": "80",
        "MY_WEB_PORT": "tcp://10.96.0.20:80",
        "MY_WEB_PORT_80_TCP": "tcp://10.96.0.20:80",
        "MY_WEB_PORT_80_TCP_PROTO": "tcp",
        "MY_WEB_PORT_80_TCP_PORT": "80",
        "MY_WEB_PORT_80_TCP_ADDR": "10.96.0.20",
    }


def test_without_links_it_is_told_of_the_api_alone() -> None:
    api = service("kubernetes", clusterIP="10.96.0.1", ports=[{"name": "https", "port": 443, "protocol": "TCP"}])
    api["metadata"]["namespace"] = "default"
    found = told(False, service(), api)
    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert not any(key.startswith("WEB") for key in found)


def test_services_without_an_address_or_of_others_are_not_told() -> None:
    other = service("db")
    other["metadata"]["namespace"] = "e"
    assert told(True, service(clusterIP="None"), other) == {}


async def test_rules_follow_the_api_and_come_back_after_a_failure() -> None:
    from cuboid.kube.client import Listed, Resource
    from cuboid.node.services import ServiceProxy

    class Api:
        """Lists what there is; a watch that never ends."""

        async def list(self, resource: Resource, namespace: str = "", **_: Any) -> Listed:
            items = [service()] if resource.plural == "services" else [endpoints("10.77.0.2")]
            for item in items:
                item["metadata"].update(uid="u", resourceVersion="1")
            return Listed(items, "1")

        async def watch(self, resource: Resource, namespace: str = "", **_: Any) -> Any:
            await asyncio.Event().wait()
            yield "", {}

    class Rules:
        def __init__(self) -> None:
            self.calls: list[list[Forward]] = []
            self.done = asyncio.Event()

        async def apply(self, wanted: Iterable[Forward]) -> None:
            self.calls.append(list(wanted))
            if len(self.calls) == 1:
                raise OSError("no nft")
            self.done.set()

    rules = Rules()
    proxy = ServiceProxy(Api(), rules)  # type: ignore[arg-type]
    task = asyncio.get_running_loop().create_task(proxy.run())
    try:
        async with asyncio.timeout(10):
            await rules.done.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [forward.targets for forward in rules.calls[-1]] == [(("10.77.0.2", 8080),)]

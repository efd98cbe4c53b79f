"""Services are filled in, refused and changed as Kubernetes does, and get addresses and ports that nobody else has."""

# ruff: noqa: E501 - a case is a line

from __future__ import annotations

import asyncio
import contextlib
import copy
import ipaddress
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube import kinds, namespaces, system_objects
from cuboid.kube.admission import Chain
from cuboid.kube.admit.addresses import ServiceAddresses
from cuboid.kube.cache import Cache
from cuboid.kube.fields import Fields
from cuboid.kube.registry import DeleteOptions, Registry, WriteOptions
from cuboid.kube.service_addresses import PORT_POOL, Pool, address_pool, addresses_of, node_ports_of
from cuboid.kube.store import Store
from cuboid.lib.errors import CuboidError, InvalidError

KIND = kinds.builtin("Service")
PORTS = [{"port": 80}]


def service(name: str = "x", **spec: Any) -> dict[str, Any]:
    new = {"metadata": {"name": name, "namespace": "default"}, "spec": copy.deepcopy({"ports": PORTS, **spec})}
    KIND.strategy.prepare_create(new, "2026-01-01T00:00:00Z")
    KIND.strategy.default(new)
    return new


def complaints(new: dict[str, Any]) -> list[str]:
    fields = Fields()
    KIND.strategy.validate(new, fields)
    return [str(error) for error in fields.errors]


TWO = [{"name": "a", "port": 80}, {"name": "b", "port": 80}]
STICKY = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86_401}}}
CASES: list[tuple[dict[str, Any], str]] = [
    ({"name": "1x"}, "metadata.name: Invalid value: \"1x\": a DNS-1035 label must consist of"),
    ({"type": "Magic"}, 'spec.type: Unsupported value: "Magic": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'),
    ({"ports": []}, "spec.ports: Required value"),
    ({"ports": [{"port": 80}, {"port": 81}]}, "spec.ports[0].name: Required value"),
    ({"ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]}, 'spec.ports[1].name: Duplicate value: "a"'),
    ({"ports": TWO}, 'spec.ports[1]: Duplicate value: {"protocol":"TCP","port":80}'),
    ({"ports": [{"port": 80, "name": "A"}]}, 'spec.ports[0].name: Invalid value: "A": a lowercase RFC 1123 label'),
    ({"ports": [{"port": 0, "targetPort": 1}]}, "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"),
    ({"ports": [{"port": 80, "protocol": "ICMP"}]}, 'spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'),
    ({"ports": [{"port": 80, "targetPort": 70_000}]}, "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive"),
    ({"ports": [{"port": 80, "targetPort": "a_b"}]}, 'spec.ports[0].targetPort: Invalid value: "a_b": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)'),
    ({"ports": [{"port": 80, "appProtocol": "a b"}]}, 'spec.ports[0].appProtocol: Invalid value: "a b": name part must consist of'),
    ({"ports": [{"port": 80, "nodePort": 30_000}]}, "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"),
    ({"type": "NodePort", "ports": [{"name": "a", "port": 80, "nodePort": 30_000}, {"name": "b", "port": 81, "nodePort": 30_000}]}, "spec.ports[1].nodePort: Duplicate value: 30000"),
    ({"selector": {"a": "b c"}}, 'spec.selector: Invalid value: "b c": a valid label must be'),
    ({"sessionAffinity": "Cookie"}, 'spec.sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"'),
    (STICKY, "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400"),
    ({"clusterIP": "300.1.1.1"}, 'spec.clusterIPs[0]: Invalid value: "300.1.1.1": must be a valid IP address'),
    ({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.6"]}, 'spec.clusterIPs: Invalid value: ["10.96.0.6"]: first value must match `clusterIP`'),
    ({"clusterIPs": ["10.96.0.5", "10.96.0.6"]}, 'spec.clusterIPs: Invalid value: ["10.96.0.5","10.96.0.6"]: may specify no more than one IP for each IP family'),
    ({"clusterIPs": ["10.96.0.5", "None"]}, "spec.clusterIPs[1]: Invalid value: \"None\": 'None' must be the first and only value"),
    ({"clusterIPs": ["10.96.0.5", "fd00::1", "fd00::2"]}, "may only hold up to 2 values"),
    ({"type": "NodePort", "clusterIP": "None"}, "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"),
    ({"type": "LoadBalancer", "clusterIP": "None"}, "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for LoadBalancer services"),
    ({"type": "LoadBalancer", "ports": [{"port": 10_250}]}, "spec.ports[0]: Invalid value: 10250: may not expose port 10250 externally since it is used by kubelet"),
    ({"type": "ExternalName"}, "spec.externalName: Required value"),
    ({"type": "ExternalName", "externalName": "a_b"}, 'spec.externalName: Invalid value: "a_b": a lowercase RFC 1123 subdomain'),
    ({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.0.5"}, "spec.clusterIPs: Forbidden: may not be set for ExternalName services"),
    ({"type": "ExternalName", "externalName": "a.b", "ipFamilyPolicy": "SingleStack"}, "spec.ipFamilyPolicy: Forbidden: may not be set for ExternalName services"),
    ({"ipFamilies": ["IPv6"]}, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'),
    ({"ipFamilies": ["IPX"]}, 'spec.ipFamilies[0]: Unsupported value: "IPX": supported values: "IPv4", "IPv6"'),
    ({"ipFamilies": ["IPv4", "IPv4"]}, 'spec.ipFamilies[1]: Duplicate value: "IPv4"'),
    ({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack"}, "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"),
    ({"ipFamilyPolicy": "RequireDualStack"}, 'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services'),
    ({"ipFamilyPolicy": "Some"}, 'spec.ipFamilyPolicy: Unsupported value: "Some"'),
    ({"externalIPs": ["127.0.0.1"]}, 'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'),
    ({"externalIPs": ["169.254.1.1"]}, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
    ({"externalIPs": ["x"]}, 'spec.externalIPs[0]: Invalid value: "x": must be a valid IP address'),
    ({"externalTrafficPolicy": "Local"}, 'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services'),
    ({"type": "NodePort", "externalTrafficPolicy": "Some"}, 'spec.externalTrafficPolicy: Unsupported value: "Some": supported values: "Cluster", "Local"'),
    ({"internalTrafficPolicy": "Some"}, 'spec.internalTrafficPolicy: Unsupported value: "Some": supported values: "Cluster", "Local"'),
    ({"type": "NodePort", "healthCheckNodePort": 30_001}, "spec.healthCheckNodePort: Invalid value: 30001: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"),
    ({"trafficDistribution": "Far"}, 'spec.trafficDistribution: Unsupported value: "Far"'),
    ({"loadBalancerClass": "a.b/c"}, "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"),
    ({"allocateLoadBalancerNodePorts": False}, "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'"),
    ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"),
    ({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0"]}, 'spec.LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.0": must be a valid CIDR value'),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "expected"), CASES, ids=[f"{i}" for i in range(len(CASES))])
def test_a_wrong_service_is_refused_in_kubernetes_words(spec: dict[str, Any], expected: str) -> None:
    found = complaints(service(**spec))
    assert any(expected in complaint for complaint in found), found


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"clusterIP": "None", "ports": []},
        {"type": "ExternalName", "externalName": "a.example.", "ports": []},
        {"type": "NodePort", "ports": [{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]},
        {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"], "externalTrafficPolicy": "Local"},
        {"ipFamilyPolicy": "PreferDualStack"},
        {"sessionAffinity": "ClientIP"},
    ],
)
def test_a_right_service_is_accepted(spec: dict[str, Any]) -> None:
    assert complaints(service(**spec)) == []


def test_what_a_service_does_not_say_is_filled_in() -> None:
    assert service()["spec"] == {
        "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
    }  # fmt: skip
    sticky = service(sessionAffinity="ClientIP")["spec"]
    assert sticky["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10_800}}
    balancer = service(type="LoadBalancer")["spec"]
    assert (balancer["externalTrafficPolicy"], balancer["allocateLoadBalancerNodePorts"]) == ("Cluster", True)
    free = service(clusterIP="None")["spec"]
    assert (free["clusterIPs"], free["ipFamilies"]) == (["None"], ["IPv4", "IPv6"])
    assert "ipFamilies" not in service(type="ExternalName", externalName="a")["spec"]


# --- addresses and ports ---------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "db")
    try:
        yield opened
    finally:
        opened.close()


async def served(store: Store, subnet: str = "10.96.0.0/16") -> Registry:
    cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in kinds.Kinds().stored()})
    registry = Registry(store, cache)
    await namespaces.ensure_permanent(registry)
    registry.admission = Chain(ServiceAddresses(registry, subnet=subnet, pick=random.Random(1)))
    return registry


async def create(registry: Registry, name: str, *, dry: bool = False, **spec: Any) -> dict[str, Any]:
    body = {"metadata": {"name": name}, "spec": {"ports": PORTS, **spec}}
    made = (await registry.create(KIND, "default", body, WriteOptions(dry_run=dry))).object
    found: dict[str, Any] = made["spec"]
    return found


async def update(registry: Registry, name: str, **spec: Any) -> dict[str, Any]:
    body = {"metadata": {"name": name}, "spec": {"ports": PORTS, **spec}}
    found: dict[str, Any] = (await registry.update(KIND, "default", name, body, WriteOptions())).object["spec"]
    return found


async def test_services_made_at_once_get_addresses_of_their_own(store: Store) -> None:
    registry = await served(store, "10.96.0.0/27")
    made = await asyncio.gather(*(create(registry, f"s{i}") for i in range(28)))
    found = {spec["clusterIP"] for spec in made}
    assert len(found) == 28
    assert all(ipaddress.ip_address(text) in ipaddress.ip_network("10.96.0.0/27") for text in found)
    assert not found & {"10.96.0.0", "10.96.0.1", "10.96.0.10", "10.96.0.31"}
    with pytest.raises(InvalidError, match="failed to allocate a serviceIP: range is full"):
        await create(registry, "more")
    await registry.delete(KIND, "default", "s3", DeleteOptions())
    assert (await create(registry, "more"))["clusterIP"] == made[3]["clusterIP"]


async def test_an_address_that_is_asked_for_is_had_once(store: Store) -> None:
    registry = await served(store)
    assert (await create(registry, "a", clusterIP="10.96.7.7"))["clusterIPs"] == ["10.96.7.7"]
    taken = r'spec.clusterIPs: Invalid value: \["10.96.7.7"\]: failed to allocate IP 10.96.7.7: provided IP is already'
    with pytest.raises(InvalidError, match=taken):
        await create(registry, "b", clusterIP="10.96.7.7")
    with pytest.raises(InvalidError, match=r"is not in the valid range. The range of valid IPs is 10.96.0.0/16"):
        await create(registry, "b", clusterIP="10.97.0.1")
    for settled in ("10.96.0.1", "10.96.0.10"):
        with pytest.raises(InvalidError, match="provided IP is already allocated"):
            await create(registry, "b", clusterIP=settled)
    assert "clusterIP" in await create(registry, "b", dry=True)
    assert (await create(registry, "c", clusterIP="None"))["clusterIP"] == "None"


async def test_addresses_outlive_the_server(store: Store) -> None:
    before = await served(store)
    await create(before, "a", type="NodePort", clusterIP="10.96.7.7", ports=[{"port": 80, "nodePort": 30_080}])
    again = await served(store)
    with pytest.raises(InvalidError) as caught:
        await create(again, "b", type="NodePort", clusterIP="10.96.7.7", ports=[{"port": 80, "nodePort": 30_080}])
    assert "failed to allocate IP 10.96.7.7" in str(caught.value)
    assert "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated" in str(caught.value)


async def test_ports_of_nodes_are_had_once_and_given_back(store: Store) -> None:
    registry = await served(store)
    first = await create(registry, "a", type="NodePort")
    number = first["ports"][0]["nodePort"]
    assert 30_000 <= number <= 32_767
    wanted = [{"port": 80, "nodePort": number}]
    with pytest.raises(InvalidError, match="provided port is already allocated"):
        await create(registry, "b", type="NodePort", ports=wanted)
    with pytest.raises(InvalidError, match="The range of valid ports is 30000-32767"):
        await create(registry, "b", type="NodePort", ports=[{"port": 80, "nodePort": 80}])
    changed = await update(registry, "a", type="ClusterIP", ports=wanted)
    assert "nodePort" not in changed["ports"][0]
    assert (await create(registry, "b", type="NodePort", ports=wanted))["ports"][0]["nodePort"] == number


async def test_one_number_of_two_protocols_gets_one_port_of_the_nodes(store: Store) -> None:
    registry = await served(store)
    ports = [{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}, {"name": "c", "port": 54}]
    made = [port["nodePort"] for port in (await create(registry, "dns", type="NodePort", ports=ports))["ports"]]
    assert made[0] == made[1] != made[2]


async def test_a_load_balancer_may_do_without_ports_of_nodes(store: Store) -> None:
    registry = await served(store)
    assert "nodePort" in (await create(registry, "a", type="LoadBalancer"))["ports"][0]
    bare = await create(registry, "b", type="LoadBalancer", allocateLoadBalancerNodePorts=False)
    assert "nodePort" not in bare["ports"][0]
    local = await create(registry, "c", type="LoadBalancer", externalTrafficPolicy="Local")
    assert 30_000 <= local["healthCheckNodePort"] <= 32_767


async def test_an_update_keeps_what_was_allocated_and_may_not_change_it(store: Store) -> None:
    registry = await served(store)
    first = await create(registry, "a", type="NodePort")
    changed = await update(registry, "a", type="NodePort", selector={"app": "x"})
    assert changed["clusterIP"] == first["clusterIP"]
    assert changed["ports"] == first["ports"]
    with pytest.raises(
        InvalidError, match=r'spec.clusterIPs\[0\]: Invalid value: \["10.96.9.9"\]: may not change once'
    ):
        await update(registry, "a", type="NodePort", clusterIP="10.96.9.9")
    named = await update(registry, "a", type="ExternalName", externalName="a.example", clusterIP=first["clusterIP"])
    assert "clusterIP" not in named
    back = await update(registry, "a", type="ClusterIP")
    assert back["clusterIP"]


async def test_the_platform_has_its_own_two_services(store: Store) -> None:
    registry = await served(store)
    for _ in range(2):
        await system_objects.ensure(registry, "https://192.0.2.1:6443", dns=True)
    api = registry.of(KIND).get("default", "kubernetes")
    dns = registry.of(KIND).get("kube-system", "kube-dns")
    assert api is not None and dns is not None
    assert api.object()["spec"]["ports"] == [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}]
    assert (api.object()["spec"]["clusterIP"], dns.object()["spec"]["clusterIP"]) == ("10.96.0.1", "10.96.0.10")
    await system_objects.ensure(registry, "https://192.0.2.2:6444", dns=True)
    endpoints = kinds.builtin("Endpoints")
    found = registry.entry(endpoints, "default", "kubernetes").object()
    assert endpoints.cells(found, 0.0)[:2] == ["kubernetes", "192.0.2.2:6444"]


async def test_what_is_deleted_of_the_platform_comes_back(store: Store) -> None:
    registry = await served(store)
    await system_objects.ensure(registry, "https://192.0.2.1:6443", dns=True)
    await registry.delete(KIND, "default", "kubernetes", DeleteOptions())
    keeping = asyncio.create_task(system_objects.keep(registry, "https://192.0.2.1:6443", dns=True, every=0.01))
    try:
        async with asyncio.timeout(10):
            while registry.of(KIND).get("default", "kubernetes") is None:
                await asyncio.sleep(0.01)
    finally:
        keeping.cancel()
    assert registry.entry(KIND, "default", "kubernetes").object()["spec"]["clusterIP"] == "10.96.0.1"


@pytest.mark.parametrize("seed", range(4))
async def test_on_any_walk_no_two_services_share_and_nothing_stays_taken(store: Store, seed: int) -> None:
    """Made, changed and deleted several at a time, in a range that is often full; some are refused."""
    pick = random.Random(seed)
    registry = await served(store, "10.96.0.0/28")
    plugin = ServiceAddresses(registry, subnet="10.96.0.0/28", pick=pick)
    registry.admission = Chain(plugin)
    for _ in range(40):
        await asyncio.gather(*(step(registry, pick) for _ in range(6)))
        specs = [entry.object()["spec"] for entry in registry.of(KIND)]
        for taken in ([ip for s in specs for ip in addresses_of(s)], [p for s in specs for p in set(node_ports_of(s))]):
            assert len(taken) == len(set(taken))
        assert plugin.taken == (
            {int(ipaddress.ip_address(ip)) for s in specs for ip in addresses_of(s)},
            {port for s in specs for port in node_ports_of(s)},
        )
    for entry in list(registry.of(KIND)):
        await registry.delete(KIND, "default", entry.key.name, DeleteOptions())
    assert plugin.taken == (set(), set())


async def step(registry: Registry, pick: random.Random) -> None:
    name, kind = f"s{pick.randrange(16)}", pick.choice(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"])
    ports: list[dict[str, Any]] = [{"name": f"p{i}", "port": 80 + i} for i in range(pick.randrange(1, 3))]
    spec: dict[str, Any] = {"type": kind, "ports": ports}
    if kind == "ExternalName":
        spec["externalName"] = "a.example"
    elif pick.random() < 0.3:
        spec["clusterIP"] = pick.choice(["None", f"10.96.0.{pick.randrange(1, 15)}"])
    if kind == "NodePort" and pick.random() < 0.5:
        ports[0]["nodePort"] = 30_000 + pick.randrange(4)
    with contextlib.suppress(CuboidError):
        match pick.randrange(4):
            case 0:
                await registry.delete(KIND, "default", name, DeleteOptions())
            case 1:
                await create(registry, name, dry=pick.random() < 0.3, **spec)
            case _:
                await update(registry, name, **spec)


@pytest.mark.parametrize("subnet", ["10.96.0.0", "10.96.0.1/16", "fd00::/112", "x", "10.0.0.0/31"])
def test_a_range_that_is_none_is_said(subnet: str) -> None:
    with pytest.raises(InvalidError, match="service_subnet"):
        address_pool(subnet)


def test_the_lower_part_of_a_range_is_left_to_those_who_choose() -> None:
    pick = random.Random(2)
    chosen = {PORT_POOL.choose(lambda _: False, pick) for _ in range(200)}
    assert not chosen & set(range(30_000, 30_085))
    pool = Pool(range(10), 4)
    taken: set[int] = set()
    for _ in range(10):
        taken.add(pool.choose(taken.__contains__, pick) or 0)
    assert taken == set(range(10))
    assert pool.choose(taken.__contains__, pick) is None


# --- printing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "cells"),
    [
        ({"clusterIP": "10.96.0.5"}, ["ClusterIP", "10.96.0.5", "<none>", "80/TCP", "<none>"]),
        ({"clusterIP": "None", "selector": {"b": "c", "a": "b"}}, ["ClusterIP", "None", "<none>", "80/TCP", "a=b,b=c"]),
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}], "externalIPs": ["192.0.2.1"]}, ["NodePort", "<none>", "192.0.2.1", "80:30080/TCP,53/UDP", "<none>"]),
        ({"type": "LoadBalancer"}, ["LoadBalancer", "<none>", "<pending>", "80/TCP", "<none>"]),
        ({"type": "ExternalName", "externalName": "a.example", "ports": []}, ["ExternalName", "<none>", "a.example", "<none>", "<none>"]),
    ],
)  # fmt: skip
def test_services_are_printed_as_kubectl_does(spec: dict[str, Any], cells: list[str]) -> None:
    found = KIND.cells(service(**spec), 0.0)
    assert [*found[1:5], found[6]] == cells

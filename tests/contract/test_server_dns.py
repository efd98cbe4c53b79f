"""The resolver over real sockets, asked with dnspython: names of services, the way to others, and hostile questions."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from cuboid.kube import namespaces
from cuboid.kube.cache import Cache
from cuboid.kube.client import ENDPOINT_SLICES, NAMESPACES, PODS, SERVICES
from cuboid.kube.kinds import Kinds
from cuboid.kube.local import LocalClient
from cuboid.kube.registry import Registry
from cuboid.kube.store import Store
from cuboid.server.dns import resolver as resolving
from cuboid.server.dns.serve import OPEN_EACH, serving_names, upstreams

Object = dict[str, Any]
LOOPBACK = "127.0.0.1"
POD = "127.0.0.2"  # a pod's address that a test can ask from
OTHER = "127.0.0.3"


class Upstream(asyncio.DatagramProtocol):
    """A resolver of the host that knows one name; the others do not exist."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.silent = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text()
        self.asked.append(name)
        if self.silent:
            return
        response = dns.message.make_response(query)
        if name == "example.com.":
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "A", "93.184.216.34"))
        else:
            response.set_rcode(dns.rcode.NXDOMAIN)
        self.transport.sendto(response.to_wire(), addr)


@asynccontextmanager
async def names(folder: Path) -> AsyncIterator[tuple[LocalClient, int, Upstream]]:
    store = Store(folder / "store.db")
    loop = asyncio.get_running_loop()
    transport, upstream = await loop.create_datagram_endpoint(Upstream, local_addr=(LOOPBACK, 0))
    try:
        kinds = Kinds()
        cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in kinds.stored()})
        registry = Registry(store, cache, kinds)
        await namespaces.ensure_permanent(registry)
        port = transport.get_extra_info("sockname")[1]
        async with serving_names(registry, LOOPBACK, 0, "cluster.local", [LOOPBACK], port) as chosen:
            yield LocalClient(registry), chosen, upstream
    finally:
        transport.close()
        store.close()


async def ask(
    port: int, name: str, kind: str = "A", source: str = LOOPBACK, *, tcp: bool = False
) -> dns.message.Message:
    query = dns.message.make_query(name, kind)
    call = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await call(query, LOOPBACK, timeout=8, port=port, source=source)


def data(message: dns.message.Message) -> list[str]:
    return [item.to_text() for section in message.answer for item in section]


async def service(client: LocalClient, name: str, namespace: str = "default", address: str = "10.96.0.20") -> None:
    spec = {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}], "selector": {"a": "b"}}
    await client.create(SERVICES, {"metadata": {"name": name}, "spec": spec}, namespace)


async def pod(client: LocalClient, name: str, namespace: str, address: str) -> None:
    containers = [{"name": "c", "image": "registry.example/a:1"}]
    await client.create(PODS, {"metadata": {"name": name}, "spec": {"containers": containers}}, namespace)
    await client.patch(PODS, name, {"status": {"podIP": address, "podIPs": [{"ip": address}]}}, namespace, sub="status")


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_service_is_found_by_its_name_and_by_its_address(tmp_path: Path, tcp: bool) -> None:
    async with names(tmp_path) as (client, port, upstream):
        await service(client, "web")
        found = await ask(port, "WEB.default.svc.cluster.local", tcp=tcp)
        assert data(found) == ["10.96.0.20"]
        assert found.flags & dns.flags.AA
        assert data(await ask(port, "20.0.96.10.in-addr.arpa", "PTR", tcp=tcp)) == ["web.default.svc.cluster.local."]
        assert upstream.asked == []


async def test_a_name_that_is_not_there_may_be_believed_for_seconds_only(tmp_path: Path) -> None:
    async with names(tmp_path) as (client, port, _):
        missing = await ask(port, "web.default.svc.cluster.local")
        assert missing.rcode() == dns.rcode.NXDOMAIN
        assert missing.authority[0].ttl == 5
        await service(client, "web")
        assert data(await ask(port, "web.default.svc.cluster.local")) == ["10.96.0.20"]


async def test_a_headless_service_has_the_addresses_of_its_pods(tmp_path: Path) -> None:
    async with names(tmp_path) as (client, port, _):
        await service(client, "redis", address="None")
        rows = [{"addresses": [f"10.77.1.{n}"], "hostname": f"redis-{n}"} for n in range(3)]
        body = {
            "metadata": {"name": "redis-1", "labels": {"kubernetes.io/service-name": "redis"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "port": 6379, "protocol": "TCP"}],
            "endpoints": rows,
        }
        await client.create(ENDPOINT_SLICES, body, "default")
        assert sorted(data(await ask(port, "redis.default.svc.cluster.local"))) == [f"10.77.1.{n}" for n in range(3)]
        assert data(await ask(port, "redis-2.redis.default.svc.cluster.local")) == ["10.77.1.2"]


async def test_other_names_are_asked_of_the_hosts_resolver(tmp_path: Path) -> None:
    async with names(tmp_path) as (_, port, upstream):
        assert data(await ask(port, "example.com")) == ["93.184.216.34"]
        assert (await ask(port, "nothing.example.com")).rcode() == dns.rcode.NXDOMAIN
        assert upstream.asked == ["example.com.", "nothing.example.com."]


async def test_a_resolver_that_is_silent_is_a_failure_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "UPSTREAM_SECONDS", 0.2)
    async with names(tmp_path) as (_, port, upstream):
        upstream.silent = True
        assert (await ask(port, "example.com")).rcode() == dns.rcode.SERVFAIL


async def test_a_tenants_pod_learns_nothing_of_other_tenants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with names(tmp_path) as (client, port, _):
        for name in ("red", "blue"):
            labels = {"cuboid.dev/tenant": name}
            await client.create(NAMESPACES, {"metadata": {"name": name, "labels": labels}})
            await service(client, "web", name, f"10.96.0.{len(name) + 40}")
        await pod(client, "p", "red", POD)
        await pod(client, "q", "default", OTHER)
        assert data(await ask(port, "web.red.svc.cluster.local", source=POD)) == ["10.96.0.43"]
        hidden = await ask(port, "web.blue.svc.cluster.local", source=POD)
        missing = await ask(port, "none.blue.svc.cluster.local", source=POD)
        assert hidden.rcode() == missing.rcode() == dns.rcode.NXDOMAIN
        assert data(await ask(port, "web.blue.svc.cluster.local", source=OTHER)) == ["10.96.0.44"]
        reverse = await ask(port, "44.0.96.10.in-addr.arpa", "PTR", source=POD)
        assert not data(reverse)


async def test_a_pod_that_has_just_started_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "_bindable", lambda address: False)
    async with names(tmp_path) as (client, port, _):
        await service(client, "web")
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(ask(port, "web.default.svc.cluster.local", source=POD))
            await asyncio.sleep(0.2)
            await pod(client, "p", "default", POD)
        assert data(asked.result()) == ["10.96.0.20"]


async def test_who_is_nobody_gets_no_name_of_the_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "_bindable", lambda address: False)
    monkeypatch.setattr(resolving, "KNOW_SECONDS", 0.1)
    async with names(tmp_path) as (client, port, _):
        await service(client, "web")
        assert (await ask(port, "web.default.svc.cluster.local")).rcode() == dns.rcode.SERVFAIL


async def test_garbage_gets_no_answer_and_harms_nobody(tmp_path: Path) -> None:
    random.seed(7)
    valid = dns.message.make_query("web.default.svc.cluster.local", "A").to_wire()
    async with names(tmp_path) as (client, port, _):
        await service(client, "web")
        transport, _protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=(LOOPBACK, port)
        )
        for _ in range(300):
            broken = bytearray(valid)
            for _ in range(random.randint(1, 6)):
                broken[random.randrange(len(broken))] = random.randrange(256)
            transport.sendto(bytes(broken[: random.randint(0, len(broken))]))
        transport.sendto(struct.pack("!HHHHHH", 1, 0x0100, 65535, 0, 0, 0) + b"\xc0\x0c" * 200)
        transport.close()
        await asyncio.sleep(0.2)
        assert data(await ask(port, "web.default.svc.cluster.local")) == ["10.96.0.20"]


async def test_one_askers_flood_leaves_room_for_others(tmp_path: Path) -> None:
    async with names(tmp_path) as (client, port, upstream):
        await service(client, "web")
        upstream.silent = True
        transport, _protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            asyncio.DatagramProtocol, local_addr=(POD, 0), remote_addr=(LOOPBACK, port)
        )
        with closing(transport):
            for number in range(OPEN_EACH * 4):
                transport.sendto(dns.message.make_query(f"n{number}.example.com", "A").to_wire())
            await asyncio.sleep(0.2)  # the socket's buffer is emptied
            assert data(await ask(port, "web.default.svc.cluster.local", source=OTHER)) == ["10.96.0.20"]
        assert len(upstream.asked) <= OPEN_EACH


def test_the_hosts_resolvers_are_read(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("# x\nsearch a.b\nnameserver 10.0.0.1\nnameserver nonsense\nnameserver fe80::1\n")
    assert upstreams((tmp_path / "none", file)) == ["10.0.0.1", "fe80::1"]

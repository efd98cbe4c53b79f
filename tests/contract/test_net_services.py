"""Addresses of services: pods, the host and nobody else reach the targets, and changes cut nothing off."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cuboid.lib.errors import InvalidError
from cuboid.lib.linux import netns
from cuboid.net.services import Forward, Front, ServiceRules, changes, checked, table_name
from cuboid.net.settings import NetSettings
from tests.harness.network import (
    OUTSIDE_IP,
    Guest,
    HostNet,
    configure,
    connection,
    guest_of,
    host_net,
    inside,
    listener,
    missing,
    udp,
)

pytestmark = [pytest.mark.net, pytest.mark.skipif(bool(missing()), reason=missing())]
WEB = Front("10.96.0.20", "tcp", 80)
API = Front("10.96.0.1", "tcp", 443)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[HostNet]:
    async with host_net(tmp_path) as made:
        yield made


def rules(host: HostNet) -> ServiceRules:
    return ServiceRules(NetSettings(config_folder=str(host.root / "cni.d")), host.netns)


@contextlib.asynccontextmanager
async def pods(host: HostNet, folder: Path, *names: str) -> AsyncIterator[list[Guest]]:
    network = host.network()
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                guest_of(await network.attach(f"pod-{name}", namespace="default", name=name), folder)
            )
            for name in names
        ]


def served(server: socket.socket, word: bytes) -> None:
    accepted, _ = server.accept()
    with accepted:
        accepted.sendall(word)


async def test_a_pod_reaches_a_service_and_the_host_does(host: HostNet, tmp_path: Path) -> None:
    async with pods(host, tmp_path, "a", "b") as (one, other):
        await rules(host).apply([Forward(WEB, ((other.ip, 8080),))])
        server = await other.socket(listener(8080))
        with server:
            with await one.socket(connection(WEB.address, 80)) as client:
                served(server, b"hello")
                assert client.recv(16) == b"hello"
            with await netns.run_in(host.netns, connection(WEB.address, 80)) as client:
                served(server, b"host")
                assert client.recv(16) == b"host"


async def test_a_service_is_reached_by_a_host_that_has_a_way_to_everywhere(host: HostNet, tmp_path: Path) -> None:
    configure(host.netns, f"route add default via {OUTSIDE_IP}")
    async with pods(host, tmp_path, "a") as (one,):
        await rules(host).apply([Forward(WEB, ((one.ip, 8080),)), Forward(API, (("127.0.0.1", 6443),))])
        for front, namespace in ((WEB, one), (API, None)):
            server = await (one.socket(listener(8080)) if namespace else netns.run_in(host.netns, listener(6443)))
            with server, await netns.run_in(host.netns, connection(front.address, front.port)) as client:
                served(server, b"host")
                assert client.recv(16) == b"host"


async def test_a_pod_reaches_itself_through_its_service(host: HostNet, tmp_path: Path) -> None:
    async with pods(host, tmp_path, "a") as (one,):
        await rules(host).apply([Forward(WEB, ((one.ip, 8080),))])
        with await one.socket(listener(8080)) as server, await one.socket(connection(WEB.address, 80)) as client:
            served(server, b"me")
            assert client.recv(16) == b"me"


async def test_connections_are_spread_over_the_targets(host: HostNet, tmp_path: Path) -> None:
    async with pods(host, tmp_path, "a", "b", "c") as (one, other, third):
        await rules(host).apply([Forward(WEB, ((other.ip, 80), (third.ip, 80)))])
        counts: Counter[str] = Counter()
        with await other.socket(listener(80)) as first, await third.socket(listener(80)) as second:
            for _ in range(40):
                with await one.socket(connection(WEB.address, 80)) as client:
                    counts[_peer(client, first, second)] += 1
        assert set(counts) == {"first", "second"}


def _peer(client: socket.socket, first: socket.socket, second: socket.socket) -> str:
    for name, server in (("first", first), ("second", second)):
        server.settimeout(0.05)
        try:
            accepted, _ = server.accept()
        except TimeoutError:
            continue
        accepted.close()
        return name
    raise AssertionError("nobody was connected")


async def test_a_sticky_service_keeps_a_client_where_it_is(host: HostNet, tmp_path: Path) -> None:
    async with pods(host, tmp_path, "a", "b", "c") as (one, other, third):
        await rules(host).apply([Forward(WEB, ((other.ip, 80), (third.ip, 80)), sticky=True)])
        with await other.socket(listener(80)) as first, await third.socket(listener(80)) as second:
            seen = set()
            for _ in range(10):
                with await one.socket(connection(WEB.address, 80)) as client:
                    seen.add(_peer(client, first, second))
        assert len(seen) == 1


async def test_without_a_target_the_answer_is_a_refusal_at_once(host: HostNet, tmp_path: Path) -> None:
    async with pods(host, tmp_path, "a") as (one,):
        await rules(host).apply([Forward(WEB, ())])
        with pytest.raises(ConnectionRefusedError):
            await one.socket(connection(WEB.address, 80))
        with pytest.raises(ConnectionRefusedError):
            await netns.run_in(host.netns, connection(WEB.address, 80))


async def test_a_change_leaves_open_connections_alone_and_leads_new_ones_elsewhere(
    host: HostNet, tmp_path: Path
) -> None:
    async with pods(host, tmp_path, "a", "b", "c") as (one, other, third):
        made = rules(host)
        await made.apply([Forward(WEB, ((other.ip, 80),))])
        with await other.socket(listener(80)) as old, await third.socket(listener(80)) as new:
            with await one.socket(connection(WEB.address, 80)) as before:
                accepted, _ = old.accept()
                await made.apply([Forward(WEB, ((third.ip, 80),))])
                with accepted:
                    before.sendall(b"still")
                    assert accepted.recv(16) == b"still"
            with await one.socket(connection(WEB.address, 80)) as after:
                served(new, b"new")
                assert after.recv(16) == b"new"


async def test_udp_follows_a_change(host: HostNet, tmp_path: Path) -> None:
    front = Front("10.96.0.21", "udp", 53)
    async with pods(host, tmp_path, "a", "b", "c") as (one, other, third):
        made = rules(host)
        with (
            await other.socket(udp(53)) as old,
            await third.socket(udp(53)) as new,
            await one.socket(udp(9999)) as client,
        ):
            for target, server in ((other, old), (third, new)):
                await made.apply([Forward(front, ((target.ip, 53),))])
                client.sendto(b"ask", (front.address, 53))
                server.settimeout(5)
                data, peer = server.recvfrom(16)
                server.sendto(b"answer", peer)
                client.settimeout(5)
                assert (data, client.recv(16)) == (b"ask", b"answer")


async def test_a_node_port_is_on_every_address_of_the_host(host: HostNet, tmp_path: Path) -> None:
    async with pods(host, tmp_path, "b") as (other,):
        await rules(host).apply([Forward(Front("", "tcp", 30080), ((other.ip, 80),))])
        server = await other.socket(listener(80))
        with server, await netns.run_in(host.outside, connection("10.99.0.2", 30080)) as client:
            served(server, b"out")
            assert client.recv(16) == b"out"


async def test_a_service_of_the_host_itself_is_reached_on_loopback(host: HostNet, tmp_path: Path) -> None:
    """The API and the resolver listen on 127.0.0.1, which pods reach by the address of the service alone."""
    front = API
    async with pods(host, tmp_path, "a") as (one,):
        await rules(host).apply([Forward(front, (("127.0.0.1", 6443),))])
        server = await netns.run_in(host.netns, listener(6443, address="127.0.0.1"))
        with server, await one.socket(connection(front.address, 443)) as client:
            accepted, peer = server.accept()
            with accepted:
                accepted.sendall(b"api")
                assert (client.recv(16), peer[0]) == (b"api", one.ip)
        with pytest.raises(OSError):
            await one.socket(connection("127.0.0.1", 6443, timeout=1))


async def test_rules_that_somebody_removed_are_made_again(host: HostNet, tmp_path: Path) -> None:
    made = rules(host)
    wanted = [Forward(WEB, (("10.77.0.9", 80),))]
    await made.apply(wanted)
    inside(host.netns, "nft", "flush", "ruleset")
    await made.apply(wanted)
    assert "10.77.0.9:80" in inside(host.netns, "nft", "list", "ruleset")
    await made.remove()
    await made.remove()
    assert table_name("cuboid0") not in inside(host.netns, "nft", "list", "tables")


async def test_a_service_that_is_gone_leaves_nothing(host: HostNet) -> None:
    made = rules(host)
    await made.apply([Forward(WEB, (("10.77.0.9", 80),)), Forward(Front("", "tcp", 30080), (("10.77.0.9", 80),))])
    await made.apply([])
    left = inside(host.netns, "nft", "list", "table", "inet", table_name("cuboid0"))
    assert "10.77.0.9" not in left
    assert "elements" not in left


def test_only_what_changed_is_written() -> None:
    other = Front("10.96.0.30", "tcp", 80)
    old = {WEB: Forward(WEB, (("10.77.0.9", 80),)), other: Forward(other, (("10.77.0.8", 80),))}
    new = {**old, WEB: Forward(WEB, (("10.77.0.7", 80),))}
    text = changes("b", old, new)
    assert "10.77.0.7" in text
    assert "10.77.0.8" not in text
    assert changes("b", new, new) == ""


@pytest.mark.parametrize(
    "forward",
    [
        Forward(Front("10.96.0.1; flush ruleset", "tcp", 80), ()),
        Forward(Front("10.96.0.1", "tcp; drop", 80), ()),
        Forward(Front("10.96.0.1", "tcp", 0), ()),
        Forward(WEB, (("10.77.0.9 } ; delete", 80),)),
        Forward(WEB, (("10.77.0.9", 70000),)),
    ],
)
def test_what_is_no_address_never_reaches_the_rules(forward: Forward) -> None:
    with pytest.raises(InvalidError):
        checked(forward)

"""Packets over real plugins: what pods, the host and the outside can and cannot reach."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cuboid.lib.errors import ConflictError
from cuboid.lib.linux import netns, tap
from cuboid.net.base import PortMapping
from tests.harness.network import (
    HOST_IP,
    OUTSIDE_IP,
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


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[HostNet]:
    async with host_net(tmp_path) as made:
        yield made


def answered(server: socket.socket, client: socket.socket) -> tuple[bytes, str]:
    """Send both ways over a new connection; what arrived at the client, and who the server thinks that is."""
    accepted, peer = server.accept()
    with accepted, client:
        client.sendall(b"ping")
        accepted.sendall(accepted.recv(16) + b"-pong")
        return client.recv(16), str(peer[0])


async def test_two_pods_reach_each_other_by_their_own_addresses(host: HostNet, tmp_path: Path) -> None:
    network = host.network()
    a = await network.attach("pod-a", namespace="default", name="a")
    b = await network.attach("pod-b", namespace="default", name="b")
    async with guest_of(a, tmp_path) as one, guest_of(b, tmp_path) as other:
        server = await other.socket(listener(80))
        client = await one.socket(connection(other.ip, 80))
        with server:
            assert answered(server, client) == (b"ping-pong", one.ip)


async def test_a_large_transfer_comes_through_whole(host: HostNet, tmp_path: Path) -> None:
    network = host.network()
    a = await network.attach("pod-a", namespace="default", name="a")
    payload = bytes(range(256)) * 1000
    async with guest_of(a, tmp_path) as guest:
        server = await netns.run_in(host.outside, listener(80))
        client = await guest.socket(connection(OUTSIDE_IP, 80))
        accepted, _ = server.accept()
        with server, client, accepted:
            client.sendall(payload)
            client.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: accepted.recv(65536), b""))
    assert received == payload


async def test_the_outside_sees_the_hosts_address(host: HostNet, tmp_path: Path) -> None:
    attachment = await host.network().attach("pod-a", namespace="default", name="a")
    async with guest_of(attachment, tmp_path) as guest:
        server = await netns.run_in(host.outside, listener(80))
        client = await guest.socket(connection(OUTSIDE_IP, 80))
        with server:
            assert answered(server, client) == (b"ping-pong", HOST_IP)


@pytest.mark.parametrize("by", ["the next pod", "a restart"])
async def test_after_all_rules_were_flushed_the_next_pod_brings_back_those_that_all_pods_need(
    host: HostNet, tmp_path: Path, by: str
) -> None:
    network = host.network()
    attachment = await network.attach("pod-a", namespace="default", name="a")
    table = inside(host.netns, "nft", "list", "table", "inet", "cuboid-cuboid0")
    inside(host.netns, "nft", "flush", "ruleset")
    if by == "a restart":
        await host.network().clean({"pod-a"})
    else:
        await network.prepare("slot")
    assert inside(host.netns, "nft", "list", "table", "inet", "cuboid-cuboid0") == table
    async with guest_of(attachment, tmp_path) as guest:
        server = await netns.run_in(host.outside, listener(80))
        client = await guest.socket(connection(OUTSIDE_IP, 80))
        with server:
            assert answered(server, client) == (b"ping-pong", HOST_IP)


async def test_a_published_port_answers_outside_on_loopback_and_to_the_pod_itself(
    host: HostNet, tmp_path: Path
) -> None:
    ports = (PortMapping(8080, 80),)
    attachment = await host.network().attach("pod-a", namespace="default", name="a", ports=ports)
    async with guest_of(attachment, tmp_path) as guest:
        server = await guest.socket(listener(80))
        with server:
            outside = await netns.run_in(host.outside, connection(HOST_IP, 8080))
            assert answered(server, outside) == (b"ping-pong", OUTSIDE_IP)
            loopback = await netns.run_in(host.netns, connection("127.0.0.1", 8080))
            assert answered(server, loopback)[0] == b"ping-pong"
            itself = await guest.socket(connection(HOST_IP, 8080))
            assert answered(server, itself)[0] == b"ping-pong"


async def test_a_host_that_drops_what_it_forwards_lets_published_ports_and_pods_through(
    host: HostNet, tmp_path: Path
) -> None:
    """As Docker leaves it on a host that has it too."""
    inside(host.netns, "iptables", "-P", "FORWARD", "DROP")
    ports = (PortMapping(8080, 80),)
    attachment = await host.network().attach("pod-a", namespace="default", name="a", ports=ports)
    async with guest_of(attachment, tmp_path) as guest:
        with await guest.socket(listener(80)) as server:
            client = await netns.run_in(host.outside, connection(HOST_IP, 8080))
            assert answered(server, client) == (b"ping-pong", OUTSIDE_IP)
        with await netns.run_in(host.outside, listener(80)) as server:
            client = await guest.socket(connection(OUTSIDE_IP, 80))
            assert answered(server, client) == (b"ping-pong", HOST_IP)
        configure(host.outside, f"route add {guest.ip} via {HOST_IP}")
        with await guest.socket(listener(81)), pytest.raises(TimeoutError):
            await netns.run_in(host.outside, connection(guest.ip, 81, timeout=0.5))


async def test_the_hosts_rules_can_be_taken_away_again(host: HostNet) -> None:
    network = host.network()
    await network.attach("pod-a", namespace="default", name="a")
    await network.detach("pod-a")
    assert "CUBOID-cuboid0" in inside(host.netns, "iptables-save")
    for _ in range(2):
        await network.remove_host_rules()
        assert "CUBOID" not in inside(host.netns, "iptables-save")
        assert "cuboid" not in inside(host.netns, "nft", "list", "tables")


async def test_a_port_published_on_one_address_answers_only_there(host: HostNet, tmp_path: Path) -> None:
    ports = (PortMapping(8080, 80, "tcp", "127.0.0.1"),)
    attachment = await host.network().attach("pod-a", namespace="default", name="a", ports=ports)
    async with guest_of(attachment, tmp_path) as guest:
        server = await guest.socket(listener(80))
        with server:
            client = await netns.run_in(host.netns, connection("127.0.0.1", 8080))
            assert answered(server, client)[0] == b"ping-pong"
            with pytest.raises(ConnectionRefusedError):
                await netns.run_in(host.outside, connection(HOST_IP, 8080))


async def test_a_published_udp_port_answers(host: HostNet, tmp_path: Path) -> None:
    ports = (PortMapping(5353, 53, "udp"),)
    attachment = await host.network().attach("pod-a", namespace="default", name="a", ports=ports)
    async with guest_of(attachment, tmp_path) as guest:
        with await guest.socket(udp(53)) as server, await netns.run_in(host.outside, udp()) as client:
            client.sendto(b"question", (HOST_IP, 5353))
            data, peer = server.recvfrom(64)
            server.sendto(data + b"-answer", peer)
            assert client.recvfrom(64)[0] == b"question-answer"


async def test_a_client_that_kept_sending_reaches_each_new_owner_of_a_udp_port(host: HostNet, tmp_path: Path) -> None:
    """The kernel goes on sending a flow of UDP to where it went before, unless it is told."""
    ports, network = (PortMapping(5353, 53, "udp"),), host.network()
    await network.prepare("pod-a")
    with await netns.run_in(host.outside, udp()) as client:
        client.connect((HOST_IP, 5353))
        client.send(b"too early")
        with pytest.raises(ConnectionRefusedError):
            client.recv(64)
        for uid in ("pod-a", "pod-b"):
            await network.prepare(uid)
            attachment = await network.adopt(uid, namespace="default", name=uid, ports=ports)
            async with guest_of(attachment, tmp_path) as guest:
                with await guest.socket(udp(53)) as server:
                    client.send(b"to " + uid.encode())
                    assert server.recvfrom(64)[0] == b"to " + uid.encode()
            await network.detach(uid)


async def test_published_ports_are_back_after_all_rules_were_flushed_and_the_node_agent_restarted(
    host: HostNet, tmp_path: Path
) -> None:
    ports = (PortMapping(8080, 80),)
    attachment = await host.network().attach("pod-a", namespace="default", name="a", ports=ports)
    known = host.published()
    inside(host.netns, "nft", "flush", "ruleset")
    again = host.network()
    await again.clean({"pod-a"})
    assert host.published() == known
    await again.check("pod-a")
    async with guest_of(attachment, tmp_path) as guest:
        with await guest.socket(listener(80)) as server:
            client = await netns.run_in(host.outside, connection(HOST_IP, 8080))
            assert answered(server, client) == (b"ping-pong", OUTSIDE_IP)


async def test_published_ports_stay_while_a_restarted_node_agent_puts_its_rules_in_place(
    host: HostNet, tmp_path: Path
) -> None:
    ports = (PortMapping(8080, 80),)
    attachment = await host.network().attach("pod-a", namespace="default", name="a", ports=ports)
    async with guest_of(attachment, tmp_path) as guest:
        with await guest.socket(listener(80)) as server:
            client = await netns.run_in(host.outside, connection(HOST_IP, 8080))
            accepted, _ = server.accept()
            await host.network().clean({"pod-a"})
            with client, accepted:
                client.sendall(b"still there")
                assert accepted.recv(64) == b"still there"
            assert answered(server, await netns.run_in(host.outside, connection(HOST_IP, 8080)))[0] == b"ping-pong"


async def test_one_pod_reaches_another_by_its_published_port(host: HostNet, tmp_path: Path) -> None:
    network = host.network()
    a = await network.attach("pod-a", namespace="default", name="a", ports=(PortMapping(8080, 80),))
    b = await network.attach("pod-b", namespace="default", name="b")
    async with guest_of(a, tmp_path) as one, guest_of(b, tmp_path) as other:
        with await one.socket(listener(80)) as server:
            assert answered(server, await other.socket(connection(HOST_IP, 8080)))[0] == b"ping-pong"


async def test_a_configured_network_publishes_ports_by_its_own_plugin(host: HostNet, tmp_path: Path) -> None:
    folder = host.root / "cni.d"
    folder.mkdir()
    ranges = {"type": "host-local", "dataDir": str(host.root / "a/state/net/ipam"), "subnet": "10.77.0.0/24"}
    bridge = {"type": "bridge", "bridge": "br-own", "isGateway": True, "ipMasq": True, "ipam": ranges}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}
    content = {"cniVersion": "1.0.0", "name": "cuboid", "plugins": [bridge, portmap]}
    (folder / "1.conflist").write_text(json.dumps(content))
    network = host.network()
    attachment = await network.attach("pod-a", namespace="default", name="a", ports=(PortMapping(8080, 80),))
    await network.check("pod-a")
    assert "CNI-DN-" in host.rules()
    assert host.published() == []
    assert attachment.ip.startswith("10.77.0.")
    await network.detach("pod-a")
    assert host.leftovers() == []


async def test_after_detach_a_published_port_is_closed_and_nothing_is_left(host: HostNet) -> None:
    network = host.network()
    await network.attach("pod-a", namespace="default", name="a", ports=(PortMapping(8080, 80),))
    assert host.rules()
    assert host.veths()
    await network.detach("pod-a")
    assert host.leftovers() == []
    with pytest.raises(ConnectionRefusedError):
        await netns.run_in(host.outside, connection(HOST_IP, 8080))


async def test_the_hosts_own_ports_are_closed_to_pods_unless_a_setting_opens_them(
    host: HostNet, tmp_path: Path
) -> None:
    attachment = await host.network(host_ports=("tcp/6443",)).attach("pod-a", namespace="default", name="a")
    closed, opened = [await netns.run_in(host.netns, listener(port)) for port in (9000, 6443)]
    with closed, opened:
        async with guest_of(attachment, tmp_path) as guest:
            for address in ("10.77.0.1", HOST_IP):
                with pytest.raises(OSError, match=r"No route|prohibited|unreachable|refused"):
                    await guest.socket(connection(address, 9000))
                assert answered(opened, await guest.socket(connection(address, 6443)))[0] == b"ping-pong"


async def test_a_guest_that_routes_loopback_to_the_host_reaches_no_service_there(host: HostNet, tmp_path: Path) -> None:
    """The portmap plugin turns `route_localnet` on for the bridge; this is what that must not open."""
    ports = (PortMapping(8080, 80),)
    attachment = await host.network().attach("pod-a", namespace="default", name="a", ports=ports)
    server = await netns.run_in(host.netns, listener(9000, address="127.0.0.1"))
    with server:
        async with guest_of(attachment, tmp_path) as guest:
            configure(guest.netns, "addr del 127.0.0.1/8 dev lo", "route add 127.0.0.1 via 10.77.0.1 onlink dev eth0")
            inside(guest.netns, "sysctl", "-qw", "net.ipv4.conf.all.route_localnet=1")
            with pytest.raises(OSError, match=r"timed out|No route|refused|unreachable"):
                await guest.socket(connection("127.0.0.1", 9000, timeout=0.5))


async def test_the_metadata_network_is_closed_to_pods(host: HostNet, tmp_path: Path) -> None:
    configure(host.outside, "addr add 169.254.169.254/32 dev host")
    configure(host.netns, "route add 169.254.169.254 via 10.99.0.1")
    server = await netns.run_in(host.outside, listener(80))
    attachment = await host.network().attach("pod-a", namespace="default", name="a")
    with server, await netns.run_in(host.netns, connection("169.254.169.254", 80)):
        async with guest_of(attachment, tmp_path) as guest:
            with pytest.raises(OSError, match=r"No route|prohibited|unreachable|refused"):
                await guest.socket(connection("169.254.169.254", 80))


async def test_a_guest_cannot_send_with_anothers_ip_or_mac(host: HostNet, tmp_path: Path) -> None:
    network = host.network()
    a = await network.attach("pod-a", namespace="default", name="a")
    b = await network.attach("pod-b", namespace="default", name="b")
    async with guest_of(a, tmp_path) as one, guest_of(b, tmp_path) as other:
        with await other.socket(udp(7)) as server, await one.socket(udp()) as client:
            client.sendto(b"honest", (other.ip, 7))
            assert server.recvfrom(64) == (b"honest", (one.ip, client.getsockname()[1]))
            server.settimeout(0.3)
            configure(one.netns, "addr add 10.77.0.200/16 dev eth0")
            with await one.socket(lambda: _bound("10.77.0.200")) as liar:
                liar.sendto(b"spoofed", (other.ip, 7))
            with pytest.raises(TimeoutError):
                server.recvfrom(64)
            configure(one.netns, "link set eth0 address 02:00:00:00:00:99")
            client.sendto(b"spoofed", (other.ip, 7))
            with pytest.raises(TimeoutError):
                server.recvfrom(64)


def _bound(address: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, 0))
    return made


async def test_nothing_answers_for_a_pod_whose_guest_is_not_there(host: HostNet) -> None:
    """The host's kernel holds the pod's address in the pod's namespace, but no frame gets to its IP stack."""
    attachment = await host.network().attach("pod-a", namespace="default", name="a")
    with pytest.raises(OSError, match=r"timed out|No route"):
        await netns.run_in(host.netns, connection(attachment.ip, 80, timeout=0.5))
    neighbours = inside(host.netns, "ip", "neigh", "show", attachment.ip)
    assert attachment.mac not in neighbours


async def test_an_unprivileged_vmm_opens_its_own_tap_and_no_other_user_does(host: HostNet) -> None:
    attachment = await host.network().attach("pod-a", namespace="default", name="a", tap_uid=61234)

    def opened_as(uid: int) -> bool:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        child = os.fork()
        if child == 0:
            try:
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                tap.bind_tap(device, attachment.tap)
                os._exit(0)
            except OSError:
                os._exit(1)
        os.close(device)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert await netns.run_in(attachment.netns, lambda: opened_as(61234))
    assert not await netns.run_in(attachment.netns, lambda: opened_as(61235))


async def test_a_port_on_which_a_process_of_the_host_listens_is_refused_by_its_name(host: HostNet) -> None:
    with await netns.run_in(host.netns, listener(8080, address="127.0.0.1")):
        with pytest.raises(ConflictError, match=r"8080/tcp is taken by .+ \(pid \d+\)"):
            await host.network().attach("pod-a", namespace="default", name="a", ports=(PortMapping(8080, 80),))
        assert host.leftovers() == []


async def test_two_platforms_on_a_host_see_each_others_ports(host: HostNet) -> None:
    one, other = host.network("a"), host.network("b", subnet="10.78.0.0/16", bridge="cuboid1")
    await one.attach("pod-a", namespace="default", name="a", ports=(PortMapping(8080, 80),))
    with pytest.raises(ConflictError, match="taken by the pod default/a"):
        await other.attach("pod-b", namespace="default", name="b", ports=(PortMapping(8080, 80),))
    await one.detach("pod-a")
    await other.attach("pod-b", namespace="default", name="b", ports=(PortMapping(8080, 80),))


async def test_check_notices_a_missing_tap_and_a_missing_rule(host: HostNet) -> None:
    network = host.network()
    attachment = await network.attach("pod-a", namespace="default", name="a", ports=(PortMapping(8080, 80),))
    await network.check("pod-a")
    inside(host.netns, "nft", "flush", "map", "inet", "cuboid-cuboid0-ports", "any4")
    with pytest.raises(Exception, match="8080/tcp"):
        await network.check("pod-a")
    inside(attachment.netns, "ip", "link", "del", attachment.tap)
    with pytest.raises(Exception, match="tap"):
        await network.check("pod-a")


async def test_a_dual_stack_network_carries_ipv6(host: HostNet, tmp_path: Path) -> None:
    network = host.network(subnet_v6="fd77::/64")
    a = await network.attach("pod-a", namespace="default", name="a")
    b = await network.attach("pod-b", namespace="default", name="b")
    assert [":" in address for address in a.addresses] == [False, True]
    address = b.addresses[1].partition("/")[0]
    async with guest_of(a, tmp_path) as one, guest_of(b, tmp_path) as other:
        server = await other.socket(lambda: socket.create_server(("::", 80), family=socket.AF_INET6))
        with server:
            server.settimeout(10)
            client = await one.socket(connection(address, 80))
            assert answered(server, client)[0] == b"ping-pong"
    await network.detach("pod-a")
    await network.detach("pod-b")
    assert host.leftovers() == []


async def test_a_dual_stack_pod_publishes_its_port_by_both_families(host: HostNet, tmp_path: Path) -> None:
    configure(host.netns, "addr add fd99::2/64 dev uplink nodad")
    configure(host.outside, "addr add fd99::1/64 dev host nodad")
    network = host.network(subnet_v6="fd77::/64")
    ports = (PortMapping(8080, 80), PortMapping(8081, 80, "tcp", "fd99::2"))
    attachment = await network.attach("pod-a", namespace="default", name="a", ports=ports)
    await network.check("pod-a")
    async with guest_of(attachment, tmp_path) as guest:
        made = await guest.socket(lambda: socket.create_server(("::", 80), family=socket.AF_INET6, dualstack_ipv6=True))
        with made as server:
            server.settimeout(10)
            for address, port in ((HOST_IP, 8080), ("fd99::2", 8080), ("fd99::2", 8081)):
                client = await netns.run_in(host.outside, connection(address, port))
                assert answered(server, client)[0] == b"ping-pong", (address, port)
            with pytest.raises(ConnectionRefusedError):
                await netns.run_in(host.outside, connection(HOST_IP, 8081))
    await network.detach("pod-a")
    assert host.leftovers() == []

"""The minimal kernel at work: how little memory it takes, and that what pods need is in it and the rest is not."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.assets import LEAST_MIB, MINIMAL, OVERHEAD_MIB
from cuboid.guest.client import AgentClient
from tests.harness.guest_rig import Rig, real_guest
from tests.harness.vms import needs_vms

pytestmark = [pytest.mark.vm, pytest.mark.timeout(180), needs_vms]
MIB = 1 << 20
MOST_USED_MIB = 24  # of what the kernel manages, by a booted guest with the agent and no pod
PLUGINS = Path("/usr/lib/x86_64-linux-gnu/xtables")
TOOLS = ("ip", "tc", "nft", "xtables-nft-multi", "xtables-legacy-multi", "mount", "mkdir", "ln", "unshare", "ls")
FILE_SYSTEMS = {
    "erofs",
    "ext4",
    "overlay",
    "tmpfs",
    "fuse",
    "virtiofs",
    "nfs",
    "nfs4",
    "hugetlbfs",
    "cgroup2",
    "mqueue",
}


async def connected(rig: Rig, stack: AsyncExitStack) -> AgentClient:
    client = AgentClient(rig.path, _ignore)
    await client.connect(timeout=rig.boot_seconds)
    stack.push_async_callback(client.close)
    return client


async def _ignore(_: pb.Event) -> None:
    pass


async def output(client: AgentClient, script: str) -> str:
    """stdout and stderr of a script in the container `app`; the script must succeed."""
    call = pb.Exec(container="app", args=["sh", "-c", f"set -e; {script}"])
    data = b""
    async with await client.exec(call) as stream:
        async for _, part in stream.received():
            data += part
        assert (await stream.reply()).exit.code == 0, data.decode(errors="replace")
    return data.decode(errors="replace")


def app(script: str = "sleep 1000") -> pb.StartContainer:
    return pb.StartContainer(
        name="app", image="image", args=["sh", "-c", script], env=["PATH=/bin"], cwd="/",
        security=pb.Security(privileged=True),
    )  # fmt: skip


async def test_a_booted_guest_with_its_agent_takes_little_memory(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        rig = await real_guest(tmp_path, stack, memory_mib=128, kind=MINIMAL)
        client = await connected(rig, stack)
        await client.setup(pb.Setup(hostname="pod"))
        stats = await client.stats()
        used = (stats.memory_total_bytes - stats.memory_available_bytes) / MIB
        whole, agent = 128 - stats.memory_available_bytes / MIB, stats.agent_memory_bytes / MIB
        print(f"used {used:.1f} MiB, with the kernel's own image {whole:.1f}; agent {agent:.1f} MiB resident")
        assert used <= MOST_USED_MIB
        assert whole <= OVERHEAD_MIB[MINIMAL]


async def test_the_smallest_vm_runs_a_container(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        rig = await real_guest(tmp_path, stack, memory_mib=LEAST_MIB[MINIMAL], kind=MINIMAL)
        client = await connected(rig, stack)
        await client.setup(rig.setup)
        await client.start_container(app())
        assert await output(client, "echo here") == "here\n"
        stats = await client.stats()
        left = stats.memory_available_bytes / MIB
        print(f"of {LEAST_MIB[MINIMAL]} MiB: {left:.1f} MiB available beside a sleeping container")
        assert left >= LEAST_MIB[MINIMAL] - OVERHEAD_MIB[MINIMAL]


@pytest.fixture
async def privileged(tmp_path: Path) -> AsyncIterator[AgentClient]:
    """A guest with a privileged container of this machine's network tools."""
    async with AsyncExitStack() as stack:
        plugins = [str(path) for path in PLUGINS.glob("*.so")]
        rig = await real_guest(tmp_path, stack, memory_mib=192, kind=MINIMAL, programs=(*TOOLS, *plugins))
        client = await connected(rig, stack)
        await client.setup(rig.setup)
        await client.start_container(app())
        yield client


IPTABLES = """
mkdir -p /run
t() { XTABLES_LIBDIR=/bin $family iptables "$@"; }
t -t nat -N DOCKER; t -N DOCKER-USER
t -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
t -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
t -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
t -t nat -A OUTPUT -p tcp -m multiport --dports 1,2 -j REDIRECT --to-ports 3
t -t mangle -A PREROUTING -m comment --comment "a mark" -j MARK --set-mark 1
t -t raw -A PREROUTING -p udp -j NOTRACK
t -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
t -A FORWARD -m state --state INVALID -j DROP
t -A FORWARD -m statistic --mode random --probability 0.5 -m limit --limit 1/s -j LOG
t -A OUTPUT -m owner --uid-owner 1 -j REJECT
t -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
XTABLES_LIBDIR=/bin $family ip6tables -t nat -A POSTROUTING -s fd00::/64 -j MASQUERADE
t -t nat -S DOCKER
"""


@pytest.mark.parametrize("family", ["xtables-nft-multi", "xtables-legacy-multi"])
async def test_docker_s_rules_are_taken(privileged: AgentClient, family: str) -> None:
    rules = await output(privileged, f"family={family}; {IPTABLES}")
    assert "DNAT --to-destination 172.17.0.2:80" in rules


async def test_networks_inside_the_pod_can_be_made(privileged: AgentClient) -> None:
    script = """
    ip link set lo up; ip link add br0 type bridge vlan_filtering 1; ip link add d0 type dummy
    ip link add v0 type veth peer name v1; ip link set v0 master br0; ip link set br0 up; ip link set d0 up
    ip link add link d0 name mac0 type macvlan mode bridge; ip link add link br0 name ipv0 type ipvlan mode l3
    ip link add link d0 name vlan0 type vlan id 5; ip link add vx0 type vxlan id 7 dev d0 dstport 4789
    ip tuntap add mode tun name tun0; ip rule add fwmark 1 table 100; ip -6 rule add fwmark 1 table 100
    tc qdisc add dev d0 root handle 1: htb default 1; tc class add dev d0 parent 1: classid 1:1 htb rate 1mbit
    tc qdisc add dev v0 clsact; tc qdisc add dev v1 root netem delay 10ms; tc qdisc add dev br0 root fq_codel
    tc filter add dev v0 ingress protocol ip u32 match u32 0 0 action mirred egress redirect dev d0
    nft add table inet t; nft 'add chain inet t c { type nat hook postrouting priority 100; }'
    nft add rule inet t c oif d0 masquerade; nft 'add set inet t s { type ipv4_addr; flags interval; }'
    nft 'add chain inet t f { type filter hook forward priority 0; }'
    nft add rule inet t f ip saddr @s ct state established,related counter accept
    nft add rule inet t f limit rate 1/second log prefix '"x"' reject; nft add rule inet t f fib daddr type local accept
    ls /sys/class/net
    """
    made = (await output(privileged, script)).split()
    assert {"br0", "d0", "v0", "v1", "mac0", "ipv0", "vlan0", "vx0", "tun0"} <= set(made)


async def test_what_pods_need_is_there_and_what_they_must_not_find_is_not(privileged: AgentClient) -> None:
    known = {line.split()[-1] for line in (await output(privileged, "cat /proc/filesystems")).splitlines()}
    assert known >= FILE_SYSTEMS
    assert not known & {"vfat", "xfs", "btrfs", "9p", "squashfs", "iso9660", "nfsd", "debugfs"}
    controllers = set((await output(privileged, "cat /sys/fs/cgroup/cgroup.controllers")).split())
    assert controllers >= {"cpuset", "cpu", "io", "memory", "pids"}
    script = "unshare -Urmpiun --fork --mount-proc echo spaces; unshare -T true; ls /sys/kernel/security"
    assert "spaces" in await output(privileged, "mount -t securityfs none /sys/kernel/security; " + script)
    assert "landlock,yama" in await output(privileged, "cat /sys/kernel/security/lsm")
    assert "kprobe_events" in await output(
        privileged, "mount -t tracefs none /sys/kernel/tracing; ls /sys/kernel/tracing"
    )
    absent = ("/dev/mem", "/dev/port", "/dev/kmem", "/dev/cpu", "/proc/modules", "/proc/kcore", "/sys/bus/pci")
    script = "; ".join(f"if [ -e {path} ]; then echo {path}; fi" for path in absent)
    assert await output(privileged, script) == ""
    assert await output(privileged, "cat /proc/sys/kernel/unprivileged_bpf_disabled") in ("1\n", "2\n")


async def test_a_guest_tells_how_its_kernel_was_built(privileged: AgentClient) -> None:
    call = pb.Exec(container="app", args=["cat", "/proc/config.gz"])
    data = b""
    async with await privileged.exec(call) as stream:
        async for _, part in stream.received():
            data += part
        await stream.reply()
    assert 'CONFIG_LOCALVERSION="-cuboid"' in gzip.decompress(data).decode()

"""CNI plugins that are missing, lie, hang or are interrupted: each leaves one clear error and nothing else."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.lib import proc
from cuboid.lib.errors import (
    CuboidError,
    DeadlineError,
    ExhaustedError,
    HostileError,
    InvalidError,
    ProcessError,
    UnavailableError,
    UnsupportedError,
)
from cuboid.lib.linux import netns
from cuboid.net.base import PortMapping
from cuboid.net.network import CniNetwork
from tests.harness.network import PASS_ON, HostNet, Who, calls, host_net, inside, kill_when, missing, plugin

pytestmark = [pytest.mark.net, pytest.mark.skipif(bool(missing()), reason=missing())]
WHO: Who = {"namespace": "default", "name": "web"}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[HostNet]:
    async with host_net(tmp_path) as made:
        yield made


def with_plugins(
    host: HostNet, *extra: str, version: str = "1.0.0", masquerade: bool = False, **settings: Any
) -> CniNetwork:
    """A bridge, then the plugins named."""
    bridge = {
        "type": "bridge", "bridge": "br-test", "isGateway": True, "ipMasq": masquerade,
        "ipam": {"type": "host-local", "dataDir": str(host.root / "a/state/net/ipam"),
                 "ranges": [[{"subnet": "10.77.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }  # fmt: skip
    chain = [bridge, *({"type": name} for name in extra)]
    folder = host.root / "cni.d"
    folder.mkdir(exist_ok=True)
    content = {"cniVersion": version, "name": "cuboid", "plugins": chain}
    (folder / "10-test.conflist").write_text(json.dumps(content))
    return host.network(plugin_folders=("/usr/lib/cni", str(host.root / "plugins")), **settings)


async def test_a_plugin_after_the_bridge_gets_its_result_and_del_runs_in_reverse(host: HostNet) -> None:
    plugin(host, "second", add=PASS_ON)
    network = with_plugins(host, "second")
    attachment = await network.attach("pod-1", **WHO)
    given = json.loads((host.root / "plugins" / "second.stdin").read_text())
    assert given["prevResult"]["ips"][0]["address"] == attachment.addresses[0]
    await network.detach("pod-1")
    assert calls(host, "second") == ["ADD", "DEL"]
    assert host.leftovers() == []


@pytest.mark.parametrize(
    ("add", "error", "words"),
    [
        ("echo hello", HostileError, "not JSON"),
        ("head -c 2000000 /dev/zero", ProcessError, "more than"),
        ('echo \'{"cniVersion": "9.9.9"}\'', HostileError, "9.9.9"),
        ('echo \'{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1"}]}\'', HostileError, "prefix length"),
        ('echo \'{"code": 7, "msg": "no such vlan"}\'; exit 1', InvalidError, "no such vlan"),
        ('echo \'{"code": 11, "msg": "later"}\'; exit 1', UnavailableError, "later"),
        ('echo \'{"code": 999, "msg": "no IP addresses available in range"}\'; exit 1', ExhaustedError, "no IP"),
        ("echo oops >&2; exit 3", UnavailableError, "oops"),
        ("kill -9 $$", ProcessError, "SIGKILL"),
    ],
)
async def test_a_failing_plugin_is_named_and_the_chain_is_undone(
    host: HostNet, add: str, error: type[CuboidError], words: str
) -> None:
    plugin(host, "bad", add=add)
    with pytest.raises(error, match=words):
        await with_plugins(host, "bad").attach("pod-1", **WHO)
    assert calls(host, "bad") == ["ADD", "DEL"]
    assert host.leftovers() == []


async def test_a_hanging_plugin_is_ended_at_its_deadline(host: HostNet) -> None:
    plugin(host, "slow", add="exec sleep 60")
    started = time.monotonic()
    with pytest.raises(DeadlineError, match="took longer than 1 s"):
        await with_plugins(host, "slow", plugin_deadline=1.0).attach("pod-1", **WHO)
    assert time.monotonic() - started < 10
    assert host.leftovers() == []


async def test_a_missing_plugin_names_the_package_and_leaves_nothing(host: HostNet) -> None:
    network = with_plugins(host, "absent")
    with pytest.raises(UnsupportedError, match=r"absent is in none of .*containernetworking-plugins"):
        await network.status()
    with pytest.raises(UnsupportedError):
        await network.attach("pod-1", **WHO)
    # The missing plugin could not undo anything either, so the pod stays on record until it can.
    assert network.attachments() == {}
    plugin(host, "absent", add=PASS_ON)
    assert await network.clean(set()) == ["pod-1"]
    assert host.leftovers() == []


async def test_a_wrong_configuration_is_refused_by_file_and_fault(host: HostNet) -> None:
    (host.root / "cni.d").mkdir()
    file = host.root / "cni.d" / "10-x.conflist"
    for content, words in (("{", "not JSON"), ('{"name": "x", "cniVersion": "1.0.0", "plugins": []}', "no plugins")):
        file.write_text(content)
        with pytest.raises(InvalidError, match=words) as caught:
            await host.network().attach("pod-1", **WHO)
        assert str(file) in str(caught.value)
    assert host.leftovers() == []


async def test_a_cancelled_attach_leaves_nothing(host: HostNet) -> None:
    plugin(host, "slow", add="exec sleep 60")
    network = with_plugins(host, "slow", plugin_deadline=0.5)
    task = asyncio.create_task(network.attach("pod-1", **WHO))
    while not calls(host, "slow"):
        await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert host.leftovers() == []


async def test_many_first_attaches_at_once_all_succeed(host: HostNet) -> None:
    """Each of the first ones wants to make the chains that all pods share."""
    network = host.network(parallel=8)
    wanted = [network.attach(f"pod-{n}", **WHO, ports=(PortMapping(8000 + n, 80),)) for n in range(8)]
    attachments = await asyncio.gather(*wanted)
    assert len({attachment.ip for attachment in attachments}) == 8
    await network.clean(set())
    assert host.leftovers() == []


async def test_an_attach_cancelled_at_any_moment_leaves_nothing(host: HostNet) -> None:
    network = host.network()
    await network.attach("first", **WHO)
    await network.detach("first")
    for number, delay in enumerate((0.0, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.05, 0.08, 0.11)):
        task = asyncio.create_task(network.attach(f"pod-{number}", **WHO, ports=(PortMapping(8080, 80),)))
        await asyncio.sleep(delay)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await network.detach(f"pod-{number}")
        assert host.leftovers() == [], f"cancelled after {delay} s"


KILLED = """
import asyncio, sys
from pathlib import Path
from typing import Any
from cuboid.net.base import PortMapping
from tests.harness.network import HostNet
root = Path(sys.argv[1])
host = HostNet(root, root / "host-ns" / "host", root / "host-ns" / "outside")
network = host.network(plugin_folders=("/usr/lib/cni", str(root / "plugins")), plugin_deadline=float(sys.argv[2]))
asyncio.run(network.attach("pod-1", namespace="default", name="web", ports=(PortMapping(8080, 80),)))
print("attached", flush=True)
asyncio.run(network.detach("pod-1"))
"""


async def killed_when(host: HostNet, marker: str, *, plugin_name: str, deadline: float = 10.0) -> None:
    await kill_when(host, marker, plugin_name, KILLED, str(host.root), str(deadline))


@pytest.mark.parametrize("known", [True, False])
async def test_an_attach_whose_process_was_killed_is_completed_or_undone(host: HostNet, known: bool) -> None:
    """The plugin outlives its parent: nothing is undone before it has ended."""
    plugin(host, "slow", add=f"sleep 0.7; echo done >>{host.root}/ended; {PASS_ON}")
    network = with_plugins(host, "slow")
    await killed_when(host, "ADD", plugin_name="slow")
    assert network.attachments() == {}
    if known:
        assert await network.clean({"pod-1"}) == []
        await network.attach("pod-1", **WHO, ports=(PortMapping(8080, 80),))
        await network.check("pod-1")
        assert len(host.addresses()) == 1
        await network.detach("pod-1")
    else:
        assert await network.clean(set()) == ["pod-1"]
    assert (host.root / "ended").exists()
    assert host.leftovers() == []


async def test_a_plugin_that_hangs_on_after_its_parent_was_killed_is_killed_too(host: HostNet) -> None:
    plugin(host, "stuck", add=f"echo $$ >{host.root}/pid; exec sleep 60")
    network = with_plugins(host, "stuck", plugin_deadline=1.0)
    await killed_when(host, "ADD", plugin_name="stuck")
    assert await network.clean(set()) == ["pod-1"]
    assert proc.start_time(int((host.root / "pid").read_text())) is None
    assert host.leftovers() == []


async def test_a_detach_whose_process_was_killed_is_finished_by_clean(host: HostNet) -> None:
    plugin(host, "last", add=PASS_ON, delete="sleep 0.5")
    network = with_plugins(host, "last")
    await killed_when(host, "DEL", plugin_name="last")
    assert network.attachments() == {}
    assert await network.clean(set()) == ["pod-1"]
    assert host.leftovers() == []


async def test_rules_of_a_pod_whose_namespace_is_gone_before_its_detach_are_removed(host: HostNet) -> None:
    """Of plugins that make rules for each pod; the built-in network has none."""
    network = with_plugins(host, "portmap", masquerade=True)
    attachment = await network.attach("pod-1", **WHO, ports=(PortMapping(8080, 80),))
    await network.attach("pod-2", **WHO)
    netns.remove(attachment.netns)
    await network.detach("pod-1")
    assert "pod-1" not in host.rules()
    assert "pod-2" in inside(host.netns, "iptables-save", "-t", "nat")
    await network.detach("pod-2")
    assert host.leftovers() == []


async def test_the_bridge_stays_while_another_platforms_pods_are_on_it(host: HostNet) -> None:
    network = host.network()
    attachment = await network.attach("pod-1", **WHO)
    await host.network().remove_host_rules()
    await network.check("pod-1")
    assert "cuboid-" in inside(host.netns, "nft", "list", "tables")
    await network.detach(attachment.pod_uid)
    await network.remove_host_rules()
    assert "cuboid-" not in inside(host.netns, "nft", "list", "tables")


async def test_rules_of_a_chain_that_was_interrupted_after_the_firewall_plugin_are_removed(host: HostNet) -> None:
    plugin(host, "slow", add="exec sleep 60")
    network = with_plugins(host, "firewall", "slow", plugin_deadline=1.0)
    await killed_when(host, "ADD", plugin_name="slow")
    assert "CNI-FORWARD" in host.rules()
    await network.clean(set())
    assert host.leftovers() == []


async def test_after_a_reboot_a_known_pod_is_attached_anew_and_an_unknown_one_forgotten(host: HostNet) -> None:
    network = host.network()
    attachment = await network.attach("pod-1", **WHO)
    await network.attach("pod-2", **WHO)
    await reboot(host)
    again = host.network()
    assert again.attachments() == {}
    assert len(host.addresses()) == 2
    await again.clean({"pod-1"})
    assert host.addresses() == []
    assert (await again.attach("pod-1", **WHO)).netns == attachment.netns
    await again.check("pod-1")
    await again.detach("pod-1")
    assert host.leftovers() == []


async def test_after_a_reboot_pods_of_configured_plugins_are_undone_by_them(host: HostNet) -> None:
    plugin(host, "second", add=PASS_ON)
    network = with_plugins(host, "second")
    await network.attach("pod-1", **WHO)
    await network.attach("pod-2", **WHO)
    await reboot(host)
    again = with_plugins(host, "second")
    assert await again.clean({"pod-1"}) == ["pod-2"]
    await again.attach("pod-1", **WHO)
    await again.check("pod-1")
    await again.detach("pod-1")
    assert calls(host, "second").count("DEL") == 3
    assert host.leftovers() == []


async def reboot(host: HostNet) -> None:
    """What is in memory is gone: namespaces, rules, the run folder; the state folder is as it was."""
    for namespace in (host.root / "a" / "run" / "netns").iterdir():
        netns.remove(namespace)
    for path in (host.root / "a" / "run" / "net-records").iterdir():
        path.unlink()
    inside(host.netns, "nft", "flush", "ruleset")


async def test_a_plugin_too_old_for_the_networks_version_is_named(host: HostNet) -> None:
    await host.network().status()
    with pytest.raises(UnsupportedError, match=r"bridge knows no version 1\.1\.0"):
        await with_plugins(host, version="1.1.0").status()


async def test_a_failing_del_keeps_the_pod_on_record_until_it_works(host: HostNet) -> None:
    plugin(host, "moody", add=PASS_ON, delete=f"test -e {host.root}/calm || exit 1")
    network = with_plugins(host, "moody")
    await network.attach("pod-1", **WHO)
    with pytest.raises(UnavailableError, match="moody failed in DEL"):
        await network.detach("pod-1")
    assert await network.clean(set()) == []
    (host.root / "calm").touch()
    assert await network.clean(set()) == ["pod-1"]
    assert host.leftovers() == []


async def test_from_version_1_1_on_plugins_are_told_which_attachments_are_valid(host: HostNet) -> None:
    folder = host.root / "cni.d"
    folder.mkdir()
    content = {"cniVersion": "1.1.0", "name": "n", "plugins": [{"type": "modern"}]}
    (folder / "1.conflist").write_text(json.dumps(content))
    plugin(host, "modern", add="exit 1")
    network = host.network(plugin_folders=(str(host.root / "plugins"),))
    await network.status()
    await network.clean(set())
    assert calls(host, "modern") == ["VERSION", "STATUS", "GC"]
    given = json.loads((host.root / "plugins" / "modern.stdin").read_text())
    assert given["cni.dev/valid-attachments"] == []

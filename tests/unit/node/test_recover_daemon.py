"""A node agent that ends at any moment and starts again: pods run on, half-made ones are finished, nothing leaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cuboid.guest.fake import Script
from cuboid.node.daemon import NodeDaemon
from cuboid.node.steps.work import vm_id
from tests.harness.node_world import SETTINGS, Host, container, ready


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.end()


async def killed(host: Host, seconds: float) -> None:
    """A node agent that is killed (its tasks end without any goodbye) after so many seconds."""
    daemon = NodeDaemon(host.tools(SETTINGS), host.folder / "state", host.claims, boot_id=host.boot_id)
    task = asyncio.ensure_future(daemon.run(asyncio.Event()))
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.wait([task])
    for view in daemon.pods():
        guest = view.work.guest  # type: ignore[attr-defined]
        if guest is not None:  # the kernel closes a dead process's sockets
            await guest.close()


async def test_running_pods_do_not_notice_and_are_found_again_within_a_second(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        pid = host.agent().containers["app"].pid
    vm, begun = host.vm(), time.monotonic()
    async with host.agent_running() as daemon:
        view = daemon.find("default", "demo")
        while view is None or not view.running("app") or not _reachable(daemon):
            await asyncio.sleep(0.01)
            view = daemon.find("default", "demo")
        assert time.monotonic() - begun < 1.0
        assert host.vm() == vm and host.agent().containers["app"].pid == pid
        assert container(host.api.status("demo"))["restartCount"] == 0
        host.api.delete("demo")
        await host.api.until(lambda: host.leftovers() == [])


async def test_an_agent_that_calls_itself_ready_reaches_the_guests_that_it_found(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
    beats = host.api.leases
    async with host.agent_running() as daemon:
        await host.api.until(lambda: host.api.leases > beats)
        assert _reachable(daemon)


def _reachable(daemon: NodeDaemon) -> bool:
    view = daemon.find("default", "demo")
    return view is not None and view.work.guest is not None and view.work.guest.connected  # type: ignore[attr-defined]


async def test_an_exit_while_no_agent_ran_is_not_missed(host: Host) -> None:
    host.api.put(host.pod(restartPolicy="Never"))
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
    host.agent().end("app", code=7)
    async with host.agent_running():
        await host.api.until(lambda: host.api.status("demo")["phase"] == "Failed")
        assert container(host.api.status("demo"))["state"]["terminated"]["exitCode"] == 7


async def test_lines_written_while_no_agent_ran_are_in_the_log_once(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        await host.agent().write("app", b"one")
        await asyncio.sleep(0.1)
    await host.agent().write("app", b"two")
    async with host.agent_running() as daemon:
        await host.api.until(daemon.pods)
        view = daemon.pods()[0]
        log = view.log_folder("app") / "0.log"
        await host.api.until(lambda: b"two" in log.read_bytes())
        assert log.read_bytes().count(b"one") == log.read_bytes().count(b"two") == 1


async def test_a_vm_that_died_while_no_agent_ran_is_made_again(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
    await host.driver.vmm_die(host.vm())
    async with host.agent_running():
        await host.api.until(lambda: container(host.api.status("demo"))["restartCount"] == 1)
        await host.api.until(lambda: ready(host.api.status("demo")))


async def test_after_a_reboot_of_the_host_pods_start_again(host: Host) -> None:
    host.api.put(host.pod())
    host.api.put(host.pod("once", restartPolicy="Never"))
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")) and ready(host.api.status("once")))
    await host.end()
    host.watchers.clear()
    host.boot_id = "boot-2"
    async with host.agent_running():
        await host.api.until(lambda: host.api.status("once")["phase"] == "Failed")
        assert host.api.status("once")["reason"] == "HostRebooted"
        await host.api.until(lambda: ready(host.api.status("demo")))


async def test_a_pod_deleted_while_no_agent_ran_is_torn_down(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
    host.api.pods.clear()
    async with host.agent_running():
        await host.api.until(lambda: host.leftovers() == [])


async def test_what_no_pod_owns_is_removed_at_start(host: Host) -> None:
    await host.network.attach("stray", namespace="x", name="y")
    await host.disks.create_writable("stray", 1 << 30)
    host.images.held.add("stray")
    host.vms.debris.add("stray-0")
    async with host.agent_running():
        await host.api.until(lambda: host.leftovers() == [] and not host.vms.debris)


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.15])
async def test_killed_at_any_moment_of_a_start_the_pod_still_comes_up_once(host: Host, moment: float) -> None:
    host.scripts["app"] = Script(output=[(1, b"begun")])
    host.api.put(host.pod())
    await killed(host, moment)
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        assert len(host.vms.machines) == 1
        host.api.delete("demo", grace=1)
        await host.api.until(lambda: host.leftovers() == [])
        assert not host.api.pods


@pytest.mark.parametrize("moment", [0.0, 0.005, 0.01, 0.02, 0.04, 0.08])
async def test_killed_at_any_moment_of_an_end_the_pod_still_goes(host: Host, moment: float) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
    host.api.delete("demo", grace=1)
    await killed(host, moment)
    async with host.agent_running():
        await host.api.until(lambda: host.leftovers() == [] and not host.api.pods)


def test_vm_ids_are_valid_and_new_with_each_attempt() -> None:
    uid = "6e4f3c1a-0b5d-4f57-9a39-0f0f64c1c5aa"
    assert vm_id(uid, 3) == "6e4f3c1a0b5d4f579a390f0f64c1c5aa-3"
    assert len(vm_id(uid * 3, 9_999_999)) <= 40

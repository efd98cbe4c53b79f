"""Pausing through the whole node agent, against fakes: the guest's silence is no fault, and who asks is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.fake import Script
from cuboid.kube.types import config_map
from cuboid.lib.errors import ConflictError, UnavailableError
from cuboid.node.daemon import NodeDaemon
from cuboid.node.objects import ObjectKey
from cuboid.vmm.base import State
from tests.harness.node_world import SETTINGS, Host, ready

PAUSE = {"metadata": {"annotations": {"cuboid.dev/state": "paused"}}}
RESUME = {"metadata": {"annotations": {"cuboid.dev/state": None}}}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.end()


def reason(host: Host) -> str:
    return str(host.api.status("demo").get("reason", ""))


def machine(host: Host) -> State:
    return host.vms.machines[host.vm()].state


async def paused(host: Host) -> None:
    await host.api.until(lambda: ready(host.api.status("demo")))
    host.api.change("demo", PAUSE)
    await host.api.until(lambda: reason(host) == "Paused")


async def resumed(host: Host) -> None:
    host.api.change("demo", RESUME)
    await host.api.until(lambda: ready(host.api.status("demo")))


async def test_a_paused_machine_stands_still_and_goes_on_with_the_right_time(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await paused(host)
        assert host.network.held == set(host.network.attachments())
        assert machine(host) is State.PAUSED and host.api.status("demo")["phase"] == "Running"
        pid = host.agent().containers["app"].pid
        await resumed(host)
        assert not host.network.held
        assert machine(host) is State.RUNNING and host.agent().containers["app"].pid == pid
        await host.api.until(lambda: host.agent().times)
        assert abs(host.agent().times[-1].now_unix_ns / 1e9 - time.time()) < 60
        assert host.agent().times[-1].entropy
        assert {"Paused", "Resumed"} <= {reason for reason, _ in host.recorder.events}


async def test_logs_go_on_where_they_were_after_a_pause(host: Host) -> None:
    host.scripts["app"] = Script(output=[(1, b"before")])
    host.api.put(host.pod())
    async with host.agent_running() as daemon:
        await paused(host)
        view = daemon.find("default", "demo")
        assert view is not None
        log, pump = view.log_folder("app") / "0.log", view.work.pumps["app"]  # type: ignore[attr-defined]
        await resumed(host)
        await host.agent().write("app", b"after", 1)
        await host.api.until(lambda: b"after" in log.read_bytes())
        assert view.work.pumps["app"] is pump  # type: ignore[attr-defined]


async def test_the_guest_of_a_paused_pod_is_refused_with_what_to_do(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running() as daemon:
        await paused(host)
        view = daemon.find("default", "demo")
        assert view is not None
        with pytest.raises(ConflictError, match="pod demo is paused") as caught:
            view.guest()
        assert caught.value.hint == "cuboid resume demo"
        await resumed(host)
        assert (await view.guest().list()).containers[0].name == "app"


async def test_a_paused_guest_that_says_nothing_is_not_lost(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cuboid.node.daemon.LOOK_SECONDS", 0.02)
    host.api.put(host.pod())
    async with host.agent_running() as daemon:
        await paused(host)
        view = daemon.find("default", "demo")
        assert view is not None
        await view.work.guest.close()  # type: ignore[attr-defined]
        await asyncio.sleep(SETTINGS.lost_seconds + 0.3)
        assert reason(host) == "Paused" and machine(host) is State.PAUSED


async def test_a_restart_of_the_node_agent_finds_a_paused_pod_and_leaves_it_so(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await paused(host)
        vm, pid = host.vm(), host.agent().containers["app"].pid
    async with host.agent_running() as daemon:
        beats = host.api.leases
        await host.api.until(lambda: host.api.leases > beats)
        view = daemon.find("default", "demo")
        assert view is not None and machine(host) is State.PAUSED
        with pytest.raises((ConflictError, UnavailableError)):
            view.guest()
        await resumed(host)
        assert (host.vm(), host.agent().containers["app"].pid) == (vm, pid)
        await host.api.until(lambda: host.agent().times)


async def test_a_paused_pod_is_deleted_in_order(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await paused(host)
        agent = host.agent()
        host.api.delete("demo")
        await host.api.until(lambda: not host.api.pods)
        assert agent.signals == [("app", 15)]
        await host.api.until(lambda: host.leftovers() == [])


async def test_a_paused_pod_is_deleted_at_once_without_being_asked(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await paused(host)
        agent = host.agent()
        host.api.delete("demo", grace=0)
        await host.api.until(lambda: host.leftovers() == [])
        assert agent.signals == []


async def test_a_vmm_that_cannot_pause_is_told_and_the_pod_runs_on(host: Host) -> None:
    host.driver.fail_next("pause", UnavailableError("the VMM does not answer"))
    host.api.put(host.pod())
    async with host.agent_running() as daemon:
        await host.api.until(lambda: ready(host.api.status("demo")))
        host.api.change("demo", PAUSE)
        await host.api.until(lambda: any(reason == "FailedPause" for reason, _ in host.recorder.events))
        await host.api.until(lambda: reason(host) == "Paused")
        await resumed(host)
        view = daemon.find("default", "demo")
        assert view is not None and isinstance(await view.guest().list(), pb.State)


async def test_a_paused_machine_that_the_host_ends_for_memory_says_so(host: Host) -> None:
    host.api.put(host.pod(restartPolicy="Never"))
    async with host.agent_running():
        await paused(host)
        await host.driver.host_oom(host.vm())
        await host.api.until(lambda: host.api.status("demo").get("phase") == "Failed")
        assert reason(host) == "HostOutOfMemory"
        await host.api.until(lambda: host.api.status("demo").get("message", "").endswith("memory limit"))


def configure(host: Host, value: str, daemon: NodeDaemon | None = None) -> None:
    host.objects.config_maps["conf"] = config_map({"metadata": {"name": "conf"}, "data": {"key": value}})
    if daemon is not None:
        daemon._tools.refresher.changed(ObjectKey("ConfigMap", "default", "conf"))


async def test_what_changes_in_a_volume_during_a_pause_is_in_the_pod_after_it(host: Host) -> None:
    configure(host, "old")
    host.api.put(host.pod(volumes=[{"name": "c", "configMap": {"name": "conf"}}]))
    async with host.agent_running() as daemon:
        await paused(host)
        configure(host, "new", daemon)
        host.api.change("demo", {"metadata": {"labels": {"any": "change"}}})
        await asyncio.sleep(0.2)
        assert host.agent().volumes["c"] == {"key": b"old"}
        await resumed(host)
        await host.api.until(lambda: host.agent().volumes["c"] == {"key": b"new"})


async def test_volumes_are_refreshed_after_a_restart_of_the_node_agent(host: Host) -> None:
    configure(host, "old")
    host.api.put(host.pod(volumes=[{"name": "c", "configMap": {"name": "conf"}}]))
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
    configure(host, "meanwhile")
    async with host.agent_running() as daemon:
        await host.api.until(lambda: host.agent().volumes["c"] == {"key": b"meanwhile"})
        configure(host, "later", daemon)
        await host.api.until(lambda: host.agent().volumes["c"] == {"key": b"later"})

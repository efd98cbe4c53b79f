"""The node agent end to end against fakes: a pod object in the API becomes a VM with running containers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.guest.fake import Script
from cuboid.kube.types import config_map
from cuboid.lib.errors import NotFoundError, UnavailableError
from cuboid.net.base import PortMapping
from cuboid.node.steps import host as steps_host
from tests.harness.node_world import Host, container, ready


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.end()


async def test_a_pod_becomes_ready_with_address_and_receipt(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        status = host.api.status("demo")
        assert (status["phase"], status["podIP"], status["hostIP"]) == ("Running", "10.77.0.2", "192.0.2.1")
        assert status["containerStatuses"][0]["state"]["running"]
        await host.api.until(lambda: host.api.pods["default", "demo"]["metadata"]["annotations"])
        receipt = json.loads(host.api.pods["default", "demo"]["metadata"]["annotations"]["cuboid.dev/receipt"])
        names = [phase["name"] for phase in receipt["phases"]]
        assert {"network", "image", "disk", "vmm", "kernel", "setup", "container"} <= set(names)
        assert host.agent().containers["app"].call.args == ["/app"]


async def test_deleting_a_pod_ends_it_in_order_and_leaves_nothing(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        agent = host.agent()
        host.api.delete("demo")
        await host.api.until(lambda: not host.api.pods)
        assert agent.signals == [("app", 15)]
        await host.api.until(lambda: host.leftovers() == [])


async def test_starts_and_failures_are_counted(host: Host) -> None:
    host.api.put(host.pod(restartPolicy="Never"))
    async with host.agent_running() as daemon:
        await host.api.until(lambda: ready(host.api.status("demo")))
        metrics = daemon.metrics
        await host.api.until(lambda: b'cuboid_pod_starts_total{driver="fake",start="cold"} 1.0' in metrics.text([]))
        await host.driver.vmm_die(host.vm())
        await host.api.until(lambda: host.api.status("demo").get("phase") == "Failed")
        await host.api.until(lambda: b'cuboid_pod_failures_total{reason="VMMDied"} 1.0' in metrics.text([]))


async def test_a_pod_that_ends_is_succeeded_and_its_logs_are_on_the_host(host: Host) -> None:
    host.scripts["app"] = Script(output=[(1, b"hello")], exit_after=0.05)
    host.api.put(host.pod(restartPolicy="Never"))
    async with host.agent_running() as daemon:
        await host.api.until(lambda: host.api.status("demo").get("phase") == "Succeeded")
        view = daemon.find("default", "demo")
        assert view is not None
        await host.api.until(lambda: not host.vms.machines)
        assert b"hello" in (view.log_folder("app") / "0.log").read_bytes()
        end = container(host.api.status("demo"))["state"]["terminated"]
        assert (end["exitCode"], end["reason"]) == (0, "Completed")
        await host.api.until(lambda: not host.network.attachments() and not host.disks.writable_pods())


async def test_a_vm_that_dies_is_told_within_a_second_and_made_again(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        await host.driver.vmm_die(host.vm())
        await host.api.until(lambda: container(host.api.status("demo"))["lastState"], seconds=1.0)
        last = container(host.api.status("demo"))["lastState"]["terminated"]
        assert (last["reason"], last["exitCode"]) == ("VMMDied", 137)
        await host.api.until(lambda: ready(host.api.status("demo")))
        assert container(host.api.status("demo"))["restartCount"] == 1


async def test_a_panic_fails_a_pod_that_never_restarts_with_the_consoles_words(host: Host) -> None:
    host.api.put(host.pod(restartPolicy="Never"))
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        await host.driver.guest_panic(host.vm(), "Kernel panic: no init")
        await host.api.until(lambda: host.api.status("demo")["phase"] == "Failed", seconds=1.0)
        status = host.api.status("demo")
        assert status["reason"] == "GuestPanic" and "no init" in status["message"]


async def test_an_unknown_image_is_told_and_tried_again(host: Host) -> None:
    host.images.broken["demo:1"] = NotFoundError("demo:1 does not exist in the registry")
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(
            lambda: container(host.api.status("demo")).get("state", {}).get("waiting", {}).get("message")
        )
        waiting = container(host.api.status("demo"))["state"]["waiting"]
        assert waiting["reason"] == "ErrImagePull" and "does not exist" in waiting["message"]
        host.images.broken.clear()
        await host.api.until(lambda: ready(host.api.status("demo")))


async def test_a_taken_port_fails_the_pod_with_one_sentence_and_leaves_nothing(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_host, "LET_GO_SECONDS", 0.2)
    async with host.agent_running():
        await take_port(host, 80)
        host.api.put(with_port(host, 80))
        await host.api.until(lambda: host.api.status("demo").get("phase") == "Failed")
        status = host.api.status("demo")
        assert status["reason"] == "PortTaken"
        assert "nginx" in status["message"]
        await host.api.until(lambda: not host.disks.writable_pods() and not host.images.holders())


async def test_a_port_that_another_pod_is_about_to_let_go_of_is_waited_for(host: Host) -> None:
    async with host.agent_running():
        await take_port(host, 80)
        host.api.put(with_port(host, 80))
        await host.api.until(lambda: len([call for call in host.network.calls if call[0] == "attach"]) > 2)
        await host.network.detach("other")
        await host.api.until(lambda: ready(host.api.status("demo")))


async def take_port(host: Host, port: int) -> None:
    """Another pod has the port (once the agent has removed what it does not know)."""
    await host.api.until(lambda: "clean" in [call[0] for call in host.network.calls])
    await host.network.attach("other", namespace="default", name="nginx", ports=(PortMapping(port, port),))


def with_port(host: Host, port: int) -> dict[str, Any]:
    pod = host.pod()
    pod["spec"]["containers"][0]["ports"] = [{"containerPort": port, "hostPort": port, "protocol": "TCP"}]
    return pod


async def test_a_container_that_fails_restarts_and_shows_its_last_end(host: Host) -> None:
    host.scripts["app"] = Script(exit_after=0.01, exit_code=3)
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: container(host.api.status("demo")).get("restartCount", 0) >= 2)
        shown = container(host.api.status("demo"))
        assert shown["lastState"]["terminated"]["exitCode"] == 3


async def test_stop_powers_off_and_start_goes_on_with_the_same_address(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        address = host.api.status("demo")["podIP"]
        host.api.change("demo", {"metadata": {"annotations": {"cuboid.dev/state": "stopped"}}})
        await host.api.until(lambda: not host.vms.machines)
        await host.api.until(lambda: container(host.api.status("demo"))["state"].get("waiting"))
        assert container(host.api.status("demo"))["state"]["waiting"]["reason"] == "Stopped"
        host.api.change("demo", {"metadata": {"annotations": {"cuboid.dev/state": None}}})
        await host.api.until(lambda: ready(host.api.status("demo")))
        assert host.api.status("demo")["podIP"] == address
        assert host.agent().containers["app"].call.keep_root


async def test_restart_stops_and_starts_in_the_same_vm(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        vm = host.vm()
        host.api.change("demo", {"metadata": {"annotations": {"cuboid.dev/restartedAt": "now"}}})
        await host.api.until(lambda: container(host.api.status("demo"))["restartCount"] == 1)
        await host.api.until(lambda: ready(host.api.status("demo")))
        assert host.vm() == vm


async def test_a_pod_removed_by_force_is_torn_down(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        host.api.vanish("demo")
        await host.api.until(lambda: host.leftovers() == [])
        assert host.api.deleted == []


async def test_an_api_that_is_away_is_told_later_and_never_leaves_a_pod_terminating(host: Host) -> None:
    host.api.fail("patch_pod_status", UnavailableError("away"), times=3)
    host.api.fail("delete_pod", UnavailableError("away"))
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        host.api.delete("demo", grace=0)
        await host.api.until(lambda: not host.api.pods)
        await host.api.until(lambda: host.leftovers() == [])


async def test_many_pods_at_once_all_start(host: Host) -> None:
    for number in range(20):
        host.api.put(host.pod(f"p{number}"))
    async with host.agent_running():
        await host.api.until(lambda: all(ready(host.api.status(f"p{n}")) for n in range(20)), seconds=30)
        assert len(host.vms.machines) == 20


async def test_the_node_object_and_its_lease_are_kept(host: Host) -> None:
    async with host.agent_running():
        await host.api.until(lambda: host.api.leases >= 2)
        status = host.api.node["status"]
        assert status["nodeInfo"]["kubeletVersion"].endswith("+fake.none")
        assert {c["type"]: c["status"] for c in status["conditions"]}["Ready"] == "True"
        assert int(status["capacity"]["pods"]) == 110


async def test_a_pod_that_ended_before_is_not_run_again(host: Host) -> None:
    old = host.pod()
    old["status"] = {"phase": "Succeeded"}
    host.api.put(old)
    async with host.agent_running() as daemon:
        await host.api.until(lambda: host.api.leases)
        assert daemon.pods() == []


async def test_a_missing_config_map_is_waited_for(host: Host) -> None:
    host.api.put(host.pod(volumes=[{"name": "c", "configMap": {"name": "conf"}}]))
    async with host.agent_running():
        await host.api.until(lambda: any(reason == "FailedMount" for reason, _ in host.recorder.events))
        host.objects.config_maps["conf"] = config_map({"metadata": {"name": "conf"}, "data": {"key": "value"}})
        await host.api.until(lambda: ready(host.api.status("demo")))
        assert host.agent().volumes["c"] == {"key": b"value"}


async def test_a_guest_that_falls_silent_is_ended_and_replaced(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running() as daemon:
        await host.api.until(lambda: ready(host.api.status("demo")))
        view = daemon.find("default", "demo")
        assert view is not None
        await view.guest().close()
        await host.api.until(lambda: container(host.api.status("demo"))["lastState"])
        assert container(host.api.status("demo"))["lastState"]["terminated"]["reason"] == "GuestUnreachable"
        await host.api.until(lambda: ready(host.api.status("demo")))


async def test_an_agent_that_ends_in_order_says_so_of_its_node(host: Host) -> None:
    async with host.agent_running():
        await host.api.until(lambda: host.api.leases)
    (condition,) = [c for c in host.api.node["status"]["conditions"] if c["type"] == "Ready"]
    assert (condition["status"], condition["reason"]) == ("False", "NodeAgentStopped")


async def test_a_readiness_gate_holds_a_pod_back_until_somebody_opens_it(host: Host) -> None:
    host.api.put(host.pod(readinessGates=[{"conditionType": "example.com/gate"}]))
    async with host.agent_running():
        await host.api.until(lambda: container(host.api.status("demo")).get("ready"))
        assert not ready(host.api.status("demo"))
        conditions = [*host.api.status("demo")["conditions"], {"type": "example.com/gate", "status": "True"}]
        host.api.change("demo", {"status": {"conditions": conditions}})
        await host.api.until(lambda: ready(host.api.status("demo")))


async def test_of_two_pods_of_one_name_the_living_one_is_found(host: Host) -> None:
    host.scripts["app"] = Script(ignores=frozenset({15}))
    host.api.put(host.pod())
    async with host.agent_running() as daemon:
        await host.api.until(lambda: ready(host.api.status("demo")))
        host.api.delete("demo", grace=30)
        young = host.pod()
        host.api.put(young)
        await host.api.until(lambda: len(daemon.pods()) == 2)
        found = daemon.find("default", "demo")
        assert found is not None and found.uid == young["metadata"]["uid"]

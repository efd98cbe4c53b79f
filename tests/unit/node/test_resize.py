"""Other resources for a pod that runs: whether its machine can give them, and what guest and VMM are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.kube.types import Pod, pod
from cuboid.node.resize import refusal
from cuboid.node.sizing import Size, size_of
from tests.harness.node_world import SETTINGS, Host, container, ready

HAS = Size(vcpus=1, memory_mib=128, cpu_millis=0, disk_bytes=0)


def asking(**limits: str) -> Pod:
    return pod({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "resources": {"limits": limits}}]}})


def needed(asked: Pod) -> Size:
    return size_of(asked, SETTINGS, host_cpus=4, overhead_mib=32)


@pytest.mark.parametrize(
    ("limits", "reason", "text"),
    [
        ({"memory": "96Mi"}, "", ""),
        ({"memory": "64Mi", "cpu": "1"}, "", ""),
        ({"memory": "200Mi"}, "Deferred", "the pod's machine has 128 MiB and 1 CPU, and 256 MiB and 1 CPU are needed"),
        ({"memory": "64Mi", "cpu": "2"}, "Deferred", "96 MiB and 2 CPUs are needed"),
        ({"memory": "64Gi"}, "Infeasible", "Node didn't have enough capacity: memory"),
        ({"memory": "1Mi"}, "Infeasible", "memory smaller than the guest needs"),
    ],
)
def test_what_a_machine_of_128_mib_can_give(limits: dict[str, str], reason: str, text: str) -> None:
    found = refusal(asking(**limits), HAS, needed, host_mib=1024) or ("", "")
    assert found[0] == reason
    assert text in found[1]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.end()


def resources(memory: str, cpu: str) -> dict[str, Any]:
    return {"limits": {"memory": memory, "cpu": cpu}, "requests": {"memory": memory, "cpu": cpu}}


def with_resources(memory: str, cpu: str) -> list[dict[str, Any]]:
    return [{"name": "app", "image": "demo:1", "resources": resources(memory, cpu)}]


def condition(host: Host, kind: str) -> dict[str, Any]:
    return next((c for c in host.api.status("demo").get("conditions", []) if c["type"] == kind), {})


def has(host: Host, memory: str) -> bool:
    row = container(host.api.status("demo"))
    found: dict[str, Any] = row.get("resources", {})
    return bool(found.get("limits", {}).get("memory") == memory)


async def test_guest_and_vmm_get_the_new_limits(host: Host) -> None:
    host.api.put(host.pod(containers=with_resources("96Mi", "500m")))
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        host.api.change("demo", {"spec": {"containers": with_resources("64Mi", "250m")}})
        await host.api.until(lambda: has(host, "64Mi"))
        told = host.agent().containers["app"].call.resources
        assert (told.memory_bytes, told.cpu_millis) == (64 << 20, 250)
        assert host.vms.machines[host.vm()].limits.cpu_millis == 350


async def test_more_than_the_machine_has_is_put_off_also_over_a_restart_of_the_agent(host: Host) -> None:
    host.api.put(host.pod(containers=with_resources("96Mi", "500m")))
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        host.api.change("demo", {"spec": {"containers": with_resources("1Gi", "500m")}})
        await host.api.until(lambda: condition(host, "PodResizePending").get("reason") == "Deferred")
    async with host.agent_running():
        host.api.change("demo", {"metadata": {"labels": {"any": "change"}}})
        await host.api.until(lambda: ready(host.api.status("demo")))
        assert condition(host, "PodResizePending").get("reason") == "Deferred"
        assert has(host, "96Mi")
        await host.driver.vmm_die(host.vm())
        await host.api.until(lambda: has(host, "1Gi") and ready(host.api.status("demo")))
        assert condition(host, "PodResizePending") == {}


async def test_memory_that_is_in_use_is_not_taken_away(host: Host) -> None:
    host.api.put(host.pod(containers=with_resources("96Mi", "500m")))
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        host.agent().memory_used = 80 << 20
        host.api.change("demo", {"spec": {"containers": with_resources("64Mi", "500m")}})
        await host.api.until(lambda: condition(host, "PodResizeInProgress").get("reason") == "Error")
        assert "in use" in condition(host, "PodResizeInProgress")["message"]
        host.agent().memory_used = 0
        await host.api.until(lambda: has(host, "64Mi"))

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import Guest
from cuboid.kube.types import Pod, pod
from cuboid.lib.errors import DeadlineError, UnavailableError
from cuboid.node import usage
from cuboid.node.access import PodView
from cuboid.node.metrics import NodeMetrics
from cuboid.node.summary import rows, summary
from cuboid.node.usage import StatsBook
from cuboid.node.vmm_usage import vmm_usage
from cuboid.vmm.base import VmStats


class FakeGuest:
    connected = True

    def __init__(self) -> None:
        self.cpu = 0
        self.asked = 0
        self.failure: Exception | None = None

    async def stats(self, *, timeout: float = 5.0) -> pb.Stats:
        self.asked += 1
        if self.failure:
            raise self.failure
        names = ("main", "ghost")
        containers = [pb.ContainerStats(name=n, cpu_ns=self.cpu, memory_bytes=1 << 20, pids=3) for n in names]
        interface = pb.InterfaceStats(name="eth0", rx_bytes=10, tx_bytes=20)
        return pb.Stats(containers=containers, cpu_ns=2 * self.cpu, memory_total_bytes=100, memory_available_bytes=40,
                        interfaces=[interface])  # fmt: skip


class View:
    def __init__(self, name: str, guest: FakeGuest) -> None:
        status = {"containerStatuses": [{"name": "main", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}
        metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
        self.pod: Pod = pod({"metadata": metadata, "spec": {"containers": [{"name": "main"}]}, "status": status})
        self._guest = guest
        self.up = True
        self.vmm: VmStats | None = None

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid

    containers = ["main"]  # noqa: RUF012

    def guest(self) -> Guest:
        if not self.up:
            raise UnavailableError("not up")
        return cast(Guest, self._guest)

    def running(self, container: str) -> bool:
        return True

    def begun(self, container: str) -> bool:
        return True

    def tty(self, container: str) -> bool:
        return False

    async def vmm_stats(self) -> VmStats | None:
        return self.vmm

    def log_folder(self, container: str) -> Path:
        return Path("/nowhere")


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.guest = FakeGuest()
        self.views = [View("web", self.guest)]
        self.book = StatsBook(self, monotonic=lambda: self.now)

    def machines(self) -> list[dict[str, Any]]:
        return []

    async def news(self, namespace: str, name: str) -> None:
        raise AssertionError("metrics wait for nothing")

    def find(self, namespace: str, name: str) -> PodView | None:
        return None

    def pods(self) -> list[PodView]:
        return cast(list[PodView], self.views)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()

    async def sleep(seconds: float) -> None:
        world.now += seconds
        world.guest.cpu += int(seconds * 250_000_000)  # a quarter of a core

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return world


async def test_the_first_question_takes_two_samples_and_later_ones_the_time_between(world: World) -> None:
    [first] = await world.book.usage()
    assert first.container_rates["main"] == 250_000_000
    assert first.pod_rate == 500_000_000
    world.now += 10
    world.guest.cpu += 10_000_000_000
    [second] = await world.book.usage()
    assert second.container_rates["main"] == 1_000_000_000
    assert world.guest.asked == 3


async def test_a_fresh_sample_answers_again(world: World) -> None:
    await world.book.usage()
    asked = world.guest.asked
    await world.book.usage()
    assert world.guest.asked == asked


async def test_a_counter_that_goes_back_or_is_impossible_has_no_rate(world: World) -> None:
    await world.book.usage()
    world.now += 1
    world.guest.cpu = 0
    assert (await world.book.usage())[0].container_rates["main"] == 0
    world.now += 1
    world.guest.cpu = 1 << 62
    assert (await world.book.usage())[0].container_rates["main"] == 0


async def test_a_guest_that_does_not_answer_is_left_out_and_the_others_are_not(world: World) -> None:
    away = View("away", FakeGuest())
    away.up = False
    slow = View("slow", FakeGuest())
    slow._guest.failure = DeadlineError("slow")
    world.views += [away, slow]
    assert [u.view.pod.metadata.name for u in await world.book.usage()] == ["web"]
    assert await world.book.usage("elsewhere") == []


async def test_a_pod_that_is_gone_is_forgotten(world: World) -> None:
    await world.book.usage()
    world.views.clear()
    assert await world.book.usage() == []
    assert not world.book._samples and not world.book._rates


async def test_containers_that_the_pod_does_not_have_are_not_believed(world: World) -> None:
    found = await world.book.usage()
    assert [c.name for c in found[0].stats.containers] == ["main"]
    assert [row["container"] for row in rows(found)] == ["main"]
    assert "ghost" not in NodeMetrics().text(found).decode()


async def test_one_guest_cannot_swell_an_answer_about_all_pods() -> None:
    containers = [pb.ContainerStats(name="main", pids=number) for number in range(1000)]
    interfaces = [pb.InterfaceStats(name=f"if{number % 500}") for number in range(1000)]
    interfaces.append(pb.InterfaceStats(name="i" * 100_000))
    volumes = [pb.VolumeStats(name=f"v{number}" * 9) for number in range(1000)]
    volumes.append(pb.VolumeStats(name="v" * 100_000))
    kept = usage._known(pb.Stats(containers=containers, interfaces=interfaces, volumes=volumes), ["main"])
    assert [c.pids for c in kept.containers] == [999]
    assert len(kept.interfaces) == len(kept.volumes) == len({i.name for i in kept.interfaces}) == usage.MOST_ITEMS
    assert len(kept.SerializeToString()) < 10_000


async def test_machines_are_told_by_part_also_of_paused_pods(world: World) -> None:
    quiet, away = View("quiet", world.guest), View("away", world.guest)
    quiet.up, quiet.vmm = False, VmStats(1.5, 80 << 20, 60 << 20, 30 << 20, 12 << 20)
    world.views += [quiet, away]
    world.views[0].vmm = VmStats(1.0, 80 << 20, 60 << 20)
    first, second = [machine.row() for machine in await vmm_usage(world, "default")]
    assert (first["pod"], second["pod"]) == ("quiet", "web")
    assert (first["guestBytes"], first["translationBytes"], first["vmmBytes"]) == (30 << 20, 12 << 20, 18 << 20)
    assert second["privateBytes"] == 60 << 20 and "guestBytes" not in second, "a driver that does not tell"
    assert await vmm_usage(world, "elsewhere") == []


async def test_a_vmm_that_has_just_ended_is_left_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(_: View) -> VmStats | None:
        raise UnavailableError("the VM has ended")

    monkeypatch.setattr(View, "vmm_stats", gone)
    assert await vmm_usage(world) == []


async def test_the_three_forms_agree(world: World) -> None:
    found = await world.book.usage()
    told = summary(found, "node-1", 0.0)["pods"][0]
    assert told["podRef"]["name"] == "web"
    assert told["containers"][0]["cpu"]["usageNanoCores"] == 250_000_000
    assert told["containers"][0]["startTime"] == "2026-01-01T00:00:00Z"
    assert told["memory"]["workingSetBytes"] == 60
    assert told["network"]["rxBytes"] == 10
    assert rows(found)[0]["cpuMillicores"] == 250.0
    metrics = NodeMetrics()
    metrics.starts.labels("qemu", "cold").inc()
    text = metrics.text(found).decode()
    assert 'cuboid_pod_starts_total{driver="qemu",start="cold"} 1.0' in text
    assert 'container_network_receive_bytes_total{interface="eth0",namespace="default",pod="web"} 10.0' in text


def test_the_host_itself_is_measured() -> None:
    node = summary([], "node-1", 0.0)["node"]
    assert node["memory"]["workingSetBytes"] > 0
    assert 0 <= node["cpu"]["usageNanoCores"] < usage.MOST_CORES * 10**9

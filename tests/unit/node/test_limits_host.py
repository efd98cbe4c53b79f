"""What a pod may take of its host."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cuboid.lib.errors import InvalidError
from cuboid.node import limits, spec
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox.plan import plan
from cuboid.node.sizing import Size
from cuboid.vmm.base import Disk, HostLimits
from tests.harness.node import World, make_pod
from tests.harness.node_world import Host

SIZE = Size(vcpus=1, memory_mib=96, cpu_millis=50, disk_bytes=0)
HOST = 16 << 30


def asks(name: str = "app", *, requests: dict[str, str] | None = None, **limited: str) -> dict[str, Any]:
    return {"name": name, "image": "i", "resources": {"limits": limited, "requests": requests or {}}}


def annotated(**values: str) -> Any:
    return make_pod(annotations={f"cuboid.dev/{key.replace('_', '-')}": value for key, value in values.items()})


def both(*containers: dict[str, Any], size: Size = SIZE) -> tuple[HostLimits, HostLimits]:
    pod = make_pod(*containers)
    first = limits.at_start(pod, size, overhead_mib=40, host_memory=HOST)
    return first, limits.started(pod, size, overhead_mib=40, host_memory=HOST)


# --- CPU -------------------------------------------------------------------------------------------------------------


def test_a_small_pod_starts_with_a_whole_cpu_and_has_its_limit_then() -> None:
    first, then = both(asks(cpu="50m"))
    assert (first.cpu_millis, then.cpu_millis) == (1100, 150)
    assert (first.cpu_weight, then.cpu_weight) == (limits.cpu_weight(1000), limits.cpu_weight(50))


def test_a_pod_of_which_one_container_has_no_limit_may_use_its_machine_whole() -> None:
    first, then = both(asks(cpu="50m"), asks("b"))
    assert first.cpu_millis == then.cpu_millis == 1100


def test_the_limits_of_containers_add_up_and_are_never_more_than_the_machine_has() -> None:
    _, then = both(asks(cpu="700m"), asks("b", cpu="600m"), size=Size(2, 96, 1300, 0))
    assert then.cpu_millis == 1400
    _, then = both(asks(cpu="64"), size=Size(4, 96, 64_000, 0))
    assert then.cpu_millis == 4100


def test_memory_has_room_for_the_vmm_and_processes_are_bounded() -> None:
    first, then = both(asks(memory="64Mi"))
    assert first.memory_mib == then.memory_mib == 136 and first.pids == 256


@pytest.mark.parametrize(("millis", "weight"), [(0, 1), (50, 2), (250, 10), (1000, 39), (2560, 100), (10**9, 10_000)])
def test_weights_are_kubernetes_own(millis: int, weight: int) -> None:
    assert limits.cpu_weight(millis) == weight


@given(some.integers(0, 1 << 40), some.integers(0, 1 << 40))
def test_who_asks_for_more_has_no_less_weight(one: int, other: int) -> None:
    assert 1 <= limits.cpu_weight(min(one, other)) <= limits.cpu_weight(max(one, other)) <= 10_000


def test_requests_count_before_limits_and_a_limit_is_a_request() -> None:
    assert limits.requested_millis(make_pod(asks(requests={"cpu": "2"}, cpu="4"), asks("b", cpu="500m"))) == 2500
    init = asks("init", cpu="3")
    assert limits.requested_millis(make_pod(asks(cpu="1"), inits=(init,))) == 3000


def test_a_vmm_is_limited_once_when_its_containers_have_started() -> None:
    world = World(make_pod(asks(cpu="50m")))
    world.mute.add("StartContainer")
    world.admit()
    assert not world.counts["Confine"]
    world.send(ev.Started(at=world.now, name="app", attempt=0, started_at=world.now))
    assert world.settle().advance(100).counts["Confine"] == 1


def test_a_start_that_takes_long_is_limited_as_well() -> None:
    init = asks("init")
    world = World(make_pod(asks(cpu="50m"), inits=(init,))).admit().advance(29)
    assert not world.counts["Confine"]
    assert world.advance(2).counts["Confine"] == 1


def test_a_new_machine_starts_with_its_cpus_whole_again() -> None:
    world = World(make_pod(asks(cpu="50m"))).admit().vm_dies()
    assert (world.counts["CreateVm"], world.counts["Confine"]) == (2, 2)


def test_limits_are_set_again_after_an_interruption_as_they_may_have_been_lost() -> None:
    assert World(make_pod(asks(cpu="50m"))).admit().interrupt().counts["Confine"] == 2


async def test_the_vmm_has_the_pods_limits_and_its_disks_theirs(tmp_path: Path) -> None:
    host = Host(tmp_path)
    annotations = {"cuboid.dev/disk-iops": "500", "cuboid.dev/disk-bandwidth": "20Mi"}
    host.api.put(host.pod(containers=[asks(cpu="50m", memory="64Mi")], annotations=annotations))
    async with host.agent_running():
        await host.api.until(lambda: host.vms.machines and host.vms.machines[host.vm()].limits.cpu_millis == 150)
        machine = host.vms.machines[host.vm()]
        assert machine.spec.limits.cpu_millis == 1100 and machine.spec.limits.oom_score == -997
        rates = {disk.read_only: (disk.iops, disk.bytes_per_second) for disk in machine.spec.disks}
        assert rates == {True: (0, 0), False: (500, 20 << 20)}
    await host.end()


# --- who goes first --------------------------------------------------------------------------------------------------


def test_the_kubelets_scores_by_quality_of_service() -> None:
    def score(*containers: dict[str, Any]) -> int:
        return limits.oom_score(make_pod(*containers), HOST)

    assert score(asks(cpu="1", memory="1Gi")) == -997
    assert score(asks()) == 1000
    assert score(asks(requests={"memory": "4Gi"})) == 750
    assert score(asks(requests={"memory": "64Gi"})) == 3
    assert score(asks(requests={"cpu": "1"})) == 999, "it asks for something"
    assert score(asks(requests={"memory": "1Gi"}, cpu="1", memory="2Gi")) == 938
    assert score(asks(cpu="1", memory="1Gi"), asks("b")) == 938


def test_what_the_pod_says_of_itself_as_a_whole_counts_for_its_containers() -> None:
    whole = {"limits": {"cpu": "1", "memory": "1Gi"}}
    assert limits.oom_score(make_pod(asks(), resources=whole), HOST) == -997
    assert limits.oom_score(make_pod(asks(), resources={"requests": {"memory": "4Gi"}}), HOST) == 750
    assert limits.requested_millis(make_pod(asks(), resources=whole)) == limits.cpu_limit(
        make_pod(asks(), resources=whole)
    )


# --- disks -----------------------------------------------------------------------------------------------------------


def test_limits_of_disks_are_of_the_writable_ones() -> None:
    found = limits.disk_limits(annotated(disk_iops="500", disk_bandwidth="20Mi"))
    assert found == limits.DiskLimits(500, 20 << 20)
    assert found.on(Disk("rw0", Path("/d"), read_only=False)) == Disk("rw0", Path("/d"), False, 500, 20 << 20)
    image = Disk("ro0", Path("/i"), read_only=True)
    assert found.on(image) == image
    assert limits.disk_limits(make_pod()) == limits.DiskLimits(0, 0)


@pytest.mark.parametrize("value", ["", "fast", "0", "-5", "0.5", "2e15", "1" * 200, "5 0"])
def test_a_limit_that_cannot_be_fails_the_pod_with_one_sentence(value: str) -> None:
    pod = annotated(disk_iops=value)
    with pytest.raises(InvalidError, match=r"cuboid\.dev/disk-iops"):
        limits.disk_limits(pod)
    world = World(pod).admit()
    assert world.state.phase == "Failed" and world.nothing_left() and not world.counts["AttachNetwork"]
    assert "cuboid.dev/disk-iops" in world.state.message and len(world.state.message) < 200


@given(some.text(max_size=60))
def test_any_text_is_a_rate_or_an_error_that_names_its_annotation(text: str) -> None:
    try:
        found = limits.disk_limits(annotated(disk_bandwidth=text))
    except InvalidError as error:
        assert "disk-bandwidth" in error.message
    else:
        assert 4096 <= found.bytes_per_second <= 10**12


def test_a_bandwidth_that_cannot_be_fails_the_pod() -> None:
    refusal = plan(make_pod(annotations={"kubernetes.io/egress-bandwidth": "much"})).refusal
    assert refusal is not None and "kubernetes.io/egress-bandwidth" in refusal[1]


def test_a_running_pod_is_not_ended_for_an_annotation() -> None:
    world = World(make_pod()).admit().update(annotated(disk_iops="fast"))
    assert world.state.phase == "" and world.processes["app"].running


# --- kernel ----------------------------------------------------------------------------------------------------------


def test_a_pod_chooses_its_kernel_and_adds_arguments() -> None:
    pod = annotated(kernel="general", kernel_args="  mitigations=off   nokaslr systemd.unified_cgroup_hierarchy=1 ")
    assert spec.kernel_choice(pod) == "general"
    assert spec.kernel_args(pod) == "mitigations=off nokaslr systemd.unified_cgroup_hierarchy=1"
    assert (spec.kernel_choice(make_pod()), spec.kernel_args(make_pod())) == ("", "")


@pytest.mark.parametrize("kernel", ["minimal", "General", "../vmlinuz"])
def test_a_kernel_that_is_not_there_is_refused(kernel: str) -> None:
    with pytest.raises(InvalidError, match=r"cuboid\.dev/kernel"):
        spec.kernel_choice(annotated(kernel=kernel))


@pytest.mark.parametrize(
    "text", ["init=/bin/sh", "quiet rdinit=/x", "panic=0", "console=ttyS1", "a\x00b", 'a="b c"', "--", "x" * 513, "ü=1"]
)
def test_arguments_that_would_take_the_agent_or_the_console_away_are_refused(text: str) -> None:
    pod = annotated(kernel_args=text)
    with pytest.raises(InvalidError, match=r"cuboid\.dev/kernel-args"):
        spec.kernel_args(pod)
    assert plan(pod).refusal is not None


@given(some.text(max_size=80))
def test_any_text_is_words_of_plain_characters_or_an_error(text: str) -> None:
    try:
        words = spec.kernel_args(annotated(kernel_args=text)).split(" ")
    except InvalidError:
        return
    assert all(word.isascii() and word.isprintable() and '"' not in word for word in words)

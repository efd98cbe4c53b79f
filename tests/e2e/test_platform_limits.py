"""What a pod may take: small sizes, its VMM's limits on the host, rates of its disks, and who goes when memory ends."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import image
from tests.harness.platform import Object, Platform
from tests.harness.pods import apply, ended, manifest, ready, shell, terminated, until

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
SLEEP = ["sleep", "3600"]
MIB = 1 << 20


def vmm(place: Platform, name: str) -> int:
    (pid,) = place.vmms(place.pod(name)["metadata"]["uid"])
    return pid


def group_files(pid: int, name: str) -> list[Path]:
    """Files of this name in the control groups of a process, in either hierarchy."""
    found = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        below = ("unified", "") if not controllers else (controllers, controllers.removeprefix("name="))
        found += [Path("/sys/fs/cgroup", part, group.lstrip("/"), name) for part in below]
    return [path for path in dict.fromkeys(found) if path.exists()]


def cpu_limit(pid: int) -> int:
    """Thousandths of a core that a process' group may use; 0: no limit."""
    for path in group_files(pid, "cpu.max"):
        most, each = path.read_text().split()
        return 0 if most == "max" else int(most) * 1000 // int(each)
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    quota, period = (int(group_files(pid, name)[0].read_text()) for name in names)
    return quota * 1000 // period if quota > 0 else 0


def receipt(pod: Object) -> Object:
    found: Object = json.loads(pod["metadata"].get("annotations", {}).get("cuboid.dev/receipt", "{}"))
    return found


def test_a_small_pod_runs_with_its_limits_inside_and_on_the_host(pods: Platform) -> None:
    limits = {"cpu": "50m", "memory": "16Mi"}
    apply(pods, manifest("small", {"image": image("busybox"), "command": SLEEP, "resources": {"limits": limits}}))
    pods.wait("small", ready)
    pid = vmm(pods, "small")
    until(lambda: cpu_limit(pid) == 150, "the VMM has the pod's limit and 0.1 for the machine itself")
    assert int(Path(f"/proc/{pid}/oom_score_adj").read_text()) <= 0, "a guaranteed pod goes last"
    inside = shell(pods, "small", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max; free -m")
    assert inside.split()[0] == str(16 * MIB)
    quota, period = inside.split()[1:3]
    assert int(quota) * 1000 // int(period) == 50
    total = re.search(r"Mem:\s+(\d+)", inside)
    assert total and int(total[1]) < 160, "the machine is of one of the smallest classes"


def test_disks_are_as_fast_as_the_pod_may_have_them(pods: Platform) -> None:
    slow = manifest("slow", {"image": image("busybox"), "command": SLEEP})
    slow["metadata"]["annotations"] = {"cuboid.dev/disk-bandwidth": "1Mi"}
    apply(pods, slow)
    pods.wait("slow", ready)
    begun = time.monotonic()
    shell(pods, "slow", "dd if=/dev/zero of=/file bs=1M count=8 conv=fsync")
    assert time.monotonic() - begun > 4, "8 MiB at 1 MiB/s"


def test_a_limit_that_is_none_fails_the_pod_with_one_sentence(pods: Platform) -> None:
    bad = manifest("bad", {"image": image("busybox"), "command": SLEEP})
    bad["metadata"]["annotations"] = {"cuboid.dev/disk-iops": "many"}
    apply(pods, bad)
    status = pods.wait("bad", ended)["status"]
    assert status["phase"] == "Failed" and "cuboid.dev/disk-iops" in status["message"]
    assert "cuboid.dev/disk-iops" in pods.cuboid("why", "bad").stdout


def test_a_machine_that_the_host_ends_for_memory_says_so(pods: Platform) -> None:
    apply(pods, manifest("big", {"image": image("busybox"), "command": SLEEP}, restartPolicy="Never"))
    pods.wait("big", ready)
    pid = vmm(pods, "big")
    used = int((group_files(pid, "memory.current") or group_files(pid, "memory.usage_in_bytes"))[0].read_text())
    limit = (group_files(pid, "memory.max") or group_files(pid, "memory.limit_in_bytes"))[0]
    limit.write_text(str(used + 4 * MIB))  # as if the host had no more
    shell(pods, "big", "dd if=/dev/zero of=/dev/shm/fill bs=1M count=60", check=False)
    pod = pods.wait("big", ended)
    assert pod["status"]["reason"] == "HostOutOfMemory" == terminated(pod)["reason"]
    told = pods.cuboid("why", "big").stdout
    assert "HostOutOfMemory" in told and "memory" in told


def test_a_pod_may_have_the_general_kernel_and_arguments_and_boots_for_it(pods: Platform) -> None:
    run = pods.cuboid(
        "run", "--name", "own", "--kernel", "general", "--kernel-arg", "audit=0", image("busybox"),
        "sh", "-c", "uname -r; cat /proc/cmdline", timeout=150,
    )  # fmt: skip
    release, line = run.stdout.splitlines()
    assert "audit=0" in line.split() and ("amd64" in release or "arm64" in release)
    found = receipt(pods.wait("own", ended))
    assert found["start"] == "cold" and any("kernel" in note for note in found["notes"])
    told = pods.cuboid("why", "own").stdout
    assert "start: cold" in told and "kernel of its own choice" in told

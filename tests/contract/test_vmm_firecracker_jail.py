"""What a jailed Firecracker has and can do, looked at from outside; what it is given, and by whom it is believed."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from cuboid.lib.errors import ConflictError, HostileError, InvalidError, UnsupportedError
from cuboid.lib.linux import cgroup, netns, tap
from cuboid.vmm.base import Disk, EndCause, HostLimits, Nic
from cuboid.vmm.firecracker import launch
from cuboid.vmm.firecracker.driver import OVERHEAD_MIB
from cuboid.vmm.firecracker.launch import ROOM_BYTES
from cuboid.vmm.firecracker.vm import FirecrackerVm
from cuboid.vmm.qemu.jail import Jails
from tests.harness.firecracker.bench import FirecrackerBench
from tests.harness.firecracker.needs import needs_protocol

pytestmark = [needs_protocol]

MAC = "02:00:00:00:00:01"


@pytest.fixture
async def bench() -> AsyncIterator[FirecrackerBench]:
    made = FirecrackerBench(call_seconds=2.0)
    try:
        yield made
    finally:
        await made.close()


async def running(bench: FirecrackerBench, **changes: object) -> FirecrackerVm:
    vm = await bench.running(**changes)
    assert isinstance(vm, FirecrackerVm)
    return vm


def status(pid: int) -> dict[str, str]:
    rows = (line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {key: value.strip() for key, value in rows}


def disk(folder: Path, name: str, text: bytes, mode: int = 0o600) -> Path:
    path = folder / name
    path.write_bytes(text.ljust(4096, b"\0"))
    path.chmod(mode)
    return path


# -- the process


async def test_each_vmm_has_a_user_of_its_own_and_no_privilege(bench: FirecrackerBench) -> None:
    users = set()
    for vm in (await running(bench, id="vm-1"), await running(bench, id="vm-2")):
        rows = status(vm.pid)
        (user,) = set(rows["Uid"].split())
        users.add(int(user))
        assert rows["Gid"].split() == rows["Uid"].split()
        assert rows["Groups"] == ""
        assert {rows[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Amb")} == {"0" * 16}
        assert rows["NoNewPrivs"] == "1"
        assert rows["NSpid"].split()[-1] == "1"
    assert len(users) == 2
    assert users < set(range(bench.settings.uid_base, bench.settings.uid_base + bench.settings.uid_count))


async def test_namespaces_are_its_own(bench: FirecrackerBench) -> None:
    first, second = await running(bench, id="vm-1"), await running(bench, id="vm-2")
    for kind in ("mnt", "pid", "ipc", "uts", "net"):
        links = {Path(f"/proc/{pid}/ns/{kind}").readlink() for pid in (os.getpid(), first.pid, second.pid)}
        assert len(links) == 3, kind


async def test_it_is_the_only_process_and_is_in_its_group_with_its_limits(bench: FirecrackerBench) -> None:
    hierarchy = cgroup.find(bench.settings.cgroup_parent)
    if not hierarchy.usable:
        pytest.skip("control groups cannot be made here")
    await bench.driver.probe()
    least = 128 + OVERHEAD_MIB
    vm = await running(bench, limits=HostLimits(cpu_millis=1500, memory_mib=least, pids=64, oom_score=300))
    assert [int(file.read_text()) for file in hierarchy.group(vm.id).join_files] == [vm.pid] * len(
        hierarchy.folders(vm.id)
    )
    folders = hierarchy.folders(vm.id)
    limit = (folders["memory"] / "memory.limit_in_bytes") if "memory" in folders else folders[""] / "memory.max"
    assert int(limit.read_text()) == least << 20
    assert Path(f"/proc/{vm.pid}/oom_score_adj").read_text().strip() == "300"
    await vm.set_limits(HostLimits(memory_mib=256, oom_score=400))
    assert int(limit.read_text()) == 256 << 20
    assert Path(f"/proc/{vm.pid}/oom_score_adj").read_text().strip() == "400"


async def test_on_the_unified_hierarchy_the_jailer_joins_the_group_that_is_there(bench: FirecrackerBench) -> None:
    root, _ = cgroup.mounted(Path("/proc/mounts").read_text().splitlines())
    if root is None:
        pytest.skip("there is no unified hierarchy here")
    hierarchy = cgroup.Hierarchy(bench.settings.cgroup_parent, v2=root)
    hierarchy.prepare()
    jails = Jails(bench.folder / "run", bench.folder / "state/vmm", bench.settings, hierarchy)
    jail = jails.jail("vm-1")
    try:
        uid = jail.make(HostLimits())  # beside v1 this hierarchy may have no controllers: limits are warned of
        installed = await launch.find(bench.settings)
        started = await launch.start(bench.spec(), jail, uid, installed, hierarchy, bench.settings)
        started.output.close()
        groups = Path(f"/proc/{started.pid}/cgroup").read_text().splitlines()
        assert f"0::/{bench.settings.cgroup_parent}/vm-1" in groups
    finally:
        jail.remove()
        (root / bench.settings.cgroup_parent).rmdir()


async def test_a_vmm_over_its_memory_limit_is_told_as_ended_for_memory(bench: FirecrackerBench) -> None:
    if not cgroup.find(bench.settings.cgroup_parent).usable:
        pytest.skip("control groups cannot be made here")
    await bench.driver.probe()
    vm = await running(bench, limits=HostLimits(memory_mib=128 + OVERHEAD_MIB))
    assert await bench.echo(vm, "fill") == ""
    ended = await asyncio.wait_for(vm.wait(), 10)
    assert ended.cause == EndCause.HOST_OOM
    assert "memory limit" in ended.detail


async def test_memory_is_told_by_part(bench: FirecrackerBench) -> None:
    vm = await running(bench)
    await bench.echo(vm, "fill")
    stats = await vm.stats()
    assert 128 << 20 <= stats.guest_bytes <= stats.anonymous_bytes <= stats.memory_bytes
    assert stats.translation_bytes == 0


async def test_limits_of_the_process_are_low(bench: FirecrackerBench) -> None:
    vm = await running(bench)
    rows = {
        line[:26].strip(): line[26:].split()[:2] for line in Path(f"/proc/{vm.pid}/limits").read_text().splitlines()
    }
    assert rows["Max open files"] == ["512", "512"]
    assert rows["Max core file size"] == ["0", "0"]
    assert rows["Max processes"] == ["256", "256"]


# -- its root


async def test_its_root_is_small_and_the_hosts_mount_table_does_not_know_it(bench: FirecrackerBench) -> None:
    vm = await running(bench)
    root = Path(f"/proc/{vm.pid}/root")
    held = {entry.name for entry in root.iterdir()}
    assert held == {"firecracker", "firecracker.pid", "run", "dev", "boot", "disks", "snapshot"}
    room = os.statvfs(root)
    assert room.f_blocks * room.f_frsize <= ROOM_BYTES + 65536
    assert str(bench.folder) not in Path("/proc/self/mounts").read_text()
    for line in Path(f"/proc/{vm.pid}/mountinfo").read_text().splitlines():
        assert "nosuid" in line.split()[5].split(","), line


async def test_what_is_mounted_over_cannot_be_moved_away_by_the_vmm(bench: FirecrackerBench) -> None:
    vm = await running(bench, disks=(Disk("data", None, False),))
    root = Path(f"/proc/{vm.pid}/root")
    for name in (".", "boot", "disks", "snapshot"):
        found = (root / name).stat()
        assert (found.st_uid, found.st_mode & 0o777) == (0, 0o755)


async def test_files_stay_roots_on_the_host_and_are_its_own_in_the_jail(
    bench: FirecrackerBench, tmp_path: Path
) -> None:
    image, data = disk(tmp_path, "image.img", b"image", 0o400), disk(tmp_path, "data.img", b"data")
    vm = await running(bench, disks=(Disk("image", image, True), Disk("data", data, False)))
    assert await bench.echo(vm, "disks") == "disk0=image disk1=data"
    user = int(status(vm.pid)["Uid"].split()[0])
    for path, name, mode in ((image, "image", 0o400), (data, "data", 0o600)):
        assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, mode)
        assert Path(f"/proc/{vm.pid}/root/disks/{name}").stat().st_uid == user
    rows = Path(f"/proc/{vm.pid}/mountinfo").read_text().splitlines()
    (row,) = [line.split() for line in rows if line.split()[4] == "/disks/image"]
    assert {"ro", "nosuid", "nodev", "noexec", "idmapped"} <= set(row[5].split(","))


async def test_one_image_serves_many_vms(bench: FirecrackerBench, tmp_path: Path) -> None:
    image = disk(tmp_path, "image.img", b"shared", 0o400)
    for name in ("vm-1", "vm-2"):
        vm = await running(bench, id=name, disks=(Disk("image", image, True),))
        assert await bench.echo(vm, "disks") == "disk0=shared"


async def test_a_late_disk_is_read_where_zeros_were_and_zeros_again(bench: FirecrackerBench, tmp_path: Path) -> None:
    data = disk(tmp_path, "data.img", b"late")
    vm = await running(bench, disks=(Disk("data", None, False),))
    assert await bench.echo(vm, "disks") == "disk0=-"
    await vm.attach_disk(Disk("data", data, False))
    assert await bench.echo(vm, "disks") == "disk0=late"
    await vm.detach_disk("data")
    assert await bench.echo(vm, "disks") == "disk0=-"


async def test_a_disk_behind_a_link_is_the_disk(bench: FirecrackerBench, tmp_path: Path) -> None:
    disk(tmp_path, "data.img", b"behind")
    (tmp_path / "link").symlink_to("data.img")
    vm = await running(bench, disks=(Disk("data", tmp_path / "link", False),))
    assert await bench.echo(vm, "disks") == "disk0=behind"


async def test_what_is_no_file_is_refused(bench: FirecrackerBench, tmp_path: Path) -> None:
    await bench.driver.probe()
    with pytest.raises(InvalidError, match="neither a file nor a socket"):
        await bench.driver.create(bench.spec(disks=(Disk("data", tmp_path, False),)))
    with pytest.raises(UnsupportedError, match="file system"):
        await bench.driver.create(bench.spec(disks=(Disk("data", Path("/sys/kernel/uevent_seqnum"), True),)))
    assert await bench.driver.leftovers(set()) == []


# -- disks served by others


async def vhost_backend(folder: Path) -> tuple[asyncio.Server, Path]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    path = folder / "vhost.sock"
    server = await asyncio.start_unix_server(serve, str(path))
    path.chmod(0o600)
    return server, path


async def test_a_vhost_user_disk_is_the_socket_of_its_backend(bench: FirecrackerBench, tmp_path: Path) -> None:
    server, path = await vhost_backend(tmp_path)
    async with server:
        fast = Disk("fast", path, False)
        with pytest.raises(InvalidError, match="shared memory"):
            await bench.driver.create(bench.spec(disks=(fast,)))
        vm = await running(bench, disks=(fast,), shared_memory=True)
        await vm.pause()
        for refused in (vm.snapshot(tmp_path / "snapshot"), vm.detach_disk("fast")):
            with pytest.raises(UnsupportedError):
                await refused
        with pytest.raises(ConflictError, match="taken"):
            await vm.attach_disk(Disk("fast", disk(tmp_path, "x", b"x"), False))
        await vm.kill()


# -- networks


async def test_a_tap_is_opened_by_the_vms_own_user(bench: FirecrackerBench, tmp_path: Path) -> None:
    place = tmp_path / "ns"
    await netns.create(place)
    try:
        await netns.run_in(place, lambda: tap.create_tap("tap0", owner=12345, mtu=1400))
        vm = await running(bench, netns=place, nics=(Nic("tap0", MAC, 1400),))
        assert Path(f"/proc/{vm.pid}/ns/net").stat().st_ino == place.stat().st_ino
        assert await netns.run_in(place, lambda: tap.present("tap0"))
        await vm.kill()
    finally:
        netns.remove(place)


async def test_a_template_has_a_tap_in_a_namespace_of_its_own_and_its_clone_one_in_the_pods(
    bench: FirecrackerBench, tmp_path: Path
) -> None:
    vm = await running(bench, id="template", template=True, nics=(Nic("tap0", MAC),))
    await vm.pause()
    await vm.snapshot(tmp_path / "snapshot")
    await vm.kill()
    place = tmp_path / "ns"
    await netns.create(place)
    try:
        spec = bench.spec(netns=place, nics=(Nic("pod0", MAC),))
        clone = await bench.driver.restore(spec, tmp_path / "snapshot")
        assert await netns.run_in(place, lambda: tap.present("pod0"))
        await clone.kill()
    finally:
        netns.remove(place)


# -- what a VMM in its guest's hands could try


async def test_a_socket_that_leads_elsewhere_is_sent_nothing(bench: FirecrackerBench, tmp_path: Path) -> None:
    vm = await running(bench)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as elsewhere:
        elsewhere.bind(str(tmp_path / "elsewhere"))
        elsewhere.listen()
        elsewhere.setblocking(False)
        for name in ("api.sock", "agent.sock"):
            inside = Path(f"/proc/{vm.pid}/root/run/{name}")
            inside.unlink()
            inside.symlink_to(tmp_path / "elsewhere")
        for attempt in (vm.pause(), vm.open_channel()):
            with pytest.raises(HostileError, match="another process"):
                await attempt
            with elsewhere.accept()[0] as connection:
                assert connection.recv(100) == b""


async def test_a_log_that_is_a_link_is_not_followed_and_its_vmm_is_not_taken_over(
    bench: FirecrackerBench, tmp_path: Path
) -> None:
    vm = await running(bench)
    inside = Path(f"/proc/{vm.pid}/root/run/log")
    inside.unlink()
    inside.symlink_to(disk(tmp_path, "secret", b"secret"))
    await bench.restart()
    assert await bench.driver.recover(vm.handle()) is None
    assert await bench.driver.leftovers(set()) == []


async def test_a_log_that_is_no_file_is_not_read(bench: FirecrackerBench) -> None:
    vm = await running(bench)
    inside = Path(f"/proc/{vm.pid}/root/run/log")
    inside.unlink()
    os.mkfifo(inside)
    await bench.restart()
    again = await bench.driver.recover(vm.handle())
    assert isinstance(again, FirecrackerVm)
    assert again.vmm_log == ""
    assert await bench.echo(again, "hello") == "hello"


async def test_a_log_without_end_stays_bounded_and_its_end_is_kept(bench: FirecrackerBench) -> None:
    vm = await running(bench)
    with Path(f"/proc/{vm.pid}/root/run/log").open("ab") as log:
        for _ in range(40):
            log.write(b"x" * 16383 + b"\n")
            log.flush()
            await asyncio.sleep(0.06)
    assert Path(f"/proc/{vm.pid}/root/run/log").stat().st_size < 640 << 10
    await bench.power_off(vm)
    assert (await asyncio.wait_for(vm.wait(), 5)).cause == EndCause.POWEROFF


async def test_a_panic_without_a_console_is_told_as_one() -> None:
    bench = FirecrackerBench(firecracker_console=False)
    try:
        vm = await running(bench)
        await bench.panic(vm)
        ended = await asyncio.wait_for(vm.wait(), 5)
        assert ended.cause == EndCause.PANIC
        assert "firecracker_console" in ended.detail
    finally:
        await bench.close()


# -- what is installed


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"firecracker": "no-firecracker"}, "no-firecracker is not installed"),
        ({"jailer": "no-jailer"}, "no-jailer is not installed"),
        ({"accel": "tcg"}, "needs KVM"),
        ({"firecracker": "/bin/true"}, 'named "firecracker"'),
    ],
)
async def test_a_host_that_lacks_something_is_told_so_in_a_sentence(settings: dict[str, str], words: str) -> None:
    bench = FirecrackerBench(**settings)
    try:
        probe = await bench.driver.probe()
        assert not probe.usable
        assert words in probe.reason
        assert bench.driver.capabilities().accel == "unknown"
        with pytest.raises(UnsupportedError, match=words):
            await bench.driver.create(bench.spec())
    finally:
        await bench.close()


@pytest.mark.parametrize(
    ("said", "words"), [("Firecracker v1.16.1", "1.16 is too old"), ("something else", "which version")]
)
async def test_a_version_that_does_not_speak_the_api_is_not_used(
    bench: FirecrackerBench, said: str, words: str
) -> None:
    Path(bench.settings.firecracker).write_text(f"#!/bin/sh\necho {said}\n")
    probe = await bench.driver.probe()
    assert not probe.usable
    assert words in probe.reason


async def test_a_kernel_that_does_not_end_makes_the_host_unfit(bench: FirecrackerBench) -> None:
    bench.faults(**{"PUT_/actions": "400"})
    probe = await bench.driver.probe()
    assert not probe.usable
    assert "on request" in probe.reason or "/dev/kvm" in probe.reason
    bench.faults()
    assert (await bench.driver.probe()).usable


async def test_what_a_version_saved_another_does_not_load(bench: FirecrackerBench, tmp_path: Path) -> None:
    vm = await running(bench)
    await vm.pause()
    await vm.snapshot(tmp_path / "snapshot")
    await vm.kill()
    Path(bench.settings.firecracker).write_text("#!/bin/sh\necho Firecracker v1.18.0\n")
    await bench.restart()
    with pytest.raises(ConflictError, match=r"VMM Firecracker 1\.17\.0.*1\.18\.0") as caught:
        await bench.driver.restore(bench.spec(id="vm-2"), tmp_path / "snapshot")
    assert caught.value.reason == "SnapshotIncompatible"


async def test_two_restores_share_the_memory_file_and_go_their_own_ways(
    bench: FirecrackerBench, tmp_path: Path
) -> None:
    vm = await running(bench)
    assert await bench.echo(vm, "count") == "1"
    await vm.pause()
    await vm.snapshot(tmp_path / "snapshot")
    await vm.kill()
    memory = tmp_path / "snapshot/memory"
    assert (memory.stat().st_size, memory.stat().st_mode & 0o777) == (128 << 20, 0o400)
    assert memory.stat().st_blocks * 512 < 8 << 20  # sparse
    before = memory.stat().st_mtime_ns
    clones = [await bench.driver.restore(bench.spec(id=name), tmp_path / "snapshot") for name in ("one", "two")]
    for clone in clones:
        await clone.resume()
        await bench.echo(clone, "memory")
    assert [await bench.echo(clone, "count") for clone in (clones[0], clones[0], clones[1])] == ["2", "3", "2"]
    await bench.driver.verify(tmp_path / "snapshot")
    assert memory.stat().st_mtime_ns == before
    shutil.rmtree(tmp_path / "snapshot")

"""Two guests of one template, or of one snapshot, share no secret: what each draws, makes and starts differs."""

from __future__ import annotations

import itertools
import os
import subprocess
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.vmm.base import Disk
from tests.harness.clones import ADDRESS, Clone, Clones, start
from tests.harness.guest_rig import PROGRAMS, image
from tests.harness.vms import needs_vms

pytestmark = [pytest.mark.vm, pytest.mark.net, pytest.mark.timeout(240), needs_vms]

SOURCE = Path(__file__).parents[1] / "harness/unique.c"
# Kernel secrets behind these are mixed with the clock: the difference of two of them tells the secret from the time.
CLOCKED = ("sequence", "timestamp")
NEAR = 1 << 26  # of 2³²: a second is 15.6 million steps of a sequence number, 1,000 of a timestamp

Facts = dict[str, str]


@pytest.fixture
async def clones(tmp_path: Path) -> AsyncIterator[Clones]:
    program = tmp_path / "unique"
    subprocess.run(["gcc", "-O2", "-Wall", "-static-pie", "-o", program, SOURCE], check=True, timeout=60)
    async with Clones("unique", image(tmp_path, (*PROGRAMS, str(program), "openssl"))) as clones:
        yield clones


async def facts(clone: Clone) -> Facts:
    lines = (await clone.run("unique")).splitlines()
    found = dict(line.split(" ", 1) for line in lines)
    found["key"] = await clone.run("openssl", "genpkey", "-algorithm", "ed25519")
    return found


async def make_pod(clone: Clone) -> None:
    ids = {"machine_id": uuid.uuid4().hex, "boot_id": str(uuid.uuid4())}
    await clone.client.setup(clone.setup(**ids))
    await clone.client.start_container(start("app", "sleep", "1000"))


def shared(first: Facts, second: Facts) -> list[str]:
    """Names of what is the same in both, and of clocks with the same secret behind them."""
    assert first.keys() == second.keys()
    plain = [name for name in first if name.split("-")[0] not in CLOCKED]
    found = [name for name in plain if first[name] == second[name]]
    for clock in CLOCKED:
        names = sorted(name for name in first if name.startswith(clock))
        steps = [
            (int(first[a], 16) - int(first[b], 16)) - (int(second[a], 16) - int(second[b], 16))
            for a, b in itertools.pairwise(names)
        ]
        if all(min(step % 2**32, -step % 2**32) < NEAR for step in steps):
            found.append(clock)
    return found


def test_what_is_shared_is_found() -> None:
    one = {"a": "1", "sequence-0": "10", "sequence-1": "ffffff00", "timestamp-0": "0", "timestamp-1": "80000000"}
    later = one | {"sequence-0": "210", "sequence-1": "50"}  # the same secret, a moment later
    assert shared(one, later) == ["a", "sequence", "timestamp"]
    other = one | {"a": "2", "sequence-1": "12345678", "timestamp-1": "40000000"}
    assert shared(one, other) == []


async def test_two_clones_of_a_template_share_nothing_whether_they_rehearsed_or_not(clones: Clones) -> None:
    found = []
    for rehearses in (True, False, False):
        clone = await clones.clone()
        if rehearses:
            call = pb.Rehearse(setup=clone.setup(hostname="rehearsed"), start=start("rehearsed", "unique"))
            await clone.client.rehearse(call)
        await make_pod(clone)
        found += [await facts(clone)]
        if rehearses:  # and two processes of one guest differ as well, but for its ids and TCP's secrets
            again = await facts(clone)
            assert set(shared(found[0], again)) == {"boot-id", "machine-id", *CLOCKED}
        await clone.client.close()
        await clone.vm.kill()
    for first, second in itertools.combinations(found, 2):
        assert shared(first, second) == []


async def test_two_restores_of_one_running_pod_share_nothing_new_after_they_are_renewed(
    clones: Clones, tmp_path: Path
) -> None:
    clone = await clones.clone()
    await make_pod(clone)
    before = await facts(clone)
    await clone.vm.pause()
    folder = clones.vms.folder / "running"
    await clone.vm.snapshot(folder)
    await clone.client.close()
    await clone.vm.kill()
    found = []
    for number in range(2):
        (disk,) = folder.glob("*rw0*")
        (own := clones.vms.folder / f"own-{number}").write_bytes(disk.read_bytes())
        restored = await clones.clone(folder, disks=(clones.image, Disk("rw0", own, read_only=False)))
        await renew(restored, number)
        found.append(await facts(restored))
        assert [row.running for row in (await restored.client.list()).containers] == [True]
        text = await restored.run("cat", "/proc/sys/kernel/hostname", "/etc/hostname", "/sys/class/net/eth0/address")
        assert text.split() == [f"pod-{number}", f"pod-{number}", restored.mac]
        await restored.client.close()
        await restored.vm.kill()
    # What the kernel derived for TCP while the pod ran is part of what was snapshotted.
    for first, second in itertools.combinations([before, *found], 2):
        assert set(shared(first, second)) <= set(CLOCKED)


async def renew(restored: Clone, number: int) -> None:
    interface = restored.setup().interfaces[0]
    del interface.addresses[:]
    interface.addresses.extend([ADDRESS.replace(".2/", f".{number + 2}/")])
    call = pb.Renew(
        entropy=os.urandom(64), hostname=f"pod-{number}", interfaces=[interface], machine_id=uuid.uuid4().hex,
        boot_id=str(uuid.uuid4()), pod_ip=f"10.77.0.{number + 2}",
    )  # fmt: skip
    await restored.client.renew(call)
    table = await restored.run("cat", "/proc/net/fib_trie", "/proc/net/route")
    assert f"10.77.0.{number + 2}\n" in table
    assert f"10.77.0.{3 - number}\n" not in table
    assert "eth0\t00000000\t01004D0A" in table, "the default route leads over the new address"

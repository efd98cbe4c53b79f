"""Every request that the driver can make is one of Firecracker's API, and says what the VmSpec says."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.vmm.base import Boot, Disk, Nic, VmSpec
from cuboid.vmm.firecracker import requests
from cuboid.vmm.firecracker.requests import Request
from tests.harness.firecracker.needs import needs_specification
from tests.harness.firecracker.specification import specification

BOOT = Boot(Path("/k"), Path("/i"))
NIC = Nic("tap0", "02:00:00:00:00:01", 1450)

serials = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=20)
rates = st.integers(0, 1 << 40)
disks = st.builds(Disk, serials, st.none(), st.booleans(), rates, rates)
nics = st.builds(Nic, st.just("tap0"), st.just("02:00:00:00:00:01"), st.integers(68, 65535))
specs = st.builds(
    VmSpec, st.just("vm-1"), st.just(BOOT), st.integers(1, requests.MAX_VCPUS), st.integers(64, 1 << 16),
    st.lists(disks, max_size=16, unique_by=lambda disk: disk.serial).map(tuple), st.lists(nics, max_size=4).map(tuple),
)  # fmt: skip


def spec(**changes: Any) -> VmSpec:
    values: dict[str, Any] = {"id": "vm-1", "boot": BOOT, "vcpus": 2, "memory_mib": 256}
    return VmSpec(**(values | changes))


def body(made: list[Request], path: str) -> dict[str, Any]:
    (found,) = [request for request in made if request.path == path]
    assert found.body is not None
    return found.body


def assert_valid(*made: Request) -> None:
    for request in made:
        assert specification().request_errors(request.method, request.path, request.body) == [], request


@needs_specification
@given(specs, st.sampled_from(["", "a.b"]))
def test_the_configuration_of_any_vm_is_valid(given_spec: VmSpec, socket: str) -> None:
    assert_valid(*requests.configure(given_spec, "panic=-1", [socket]))


@needs_specification
@given(disks, st.integers(0, 15))
def test_another_medium_in_a_slot_is_valid(disk: Disk, number: int) -> None:
    assert_valid(requests.swap_medium(number, disk))


@needs_specification
def test_all_other_requests_are_valid() -> None:
    assert_valid(
        *requests.observe(), requests.start(), requests.pause(), requests.resume(), requests.describe(),
        requests.save(), requests.load([]), requests.load([NIC, NIC]),
    )  # fmt: skip


@needs_specification
def test_the_check_refuses_what_firecracker_would() -> None:
    check = specification().request_errors
    assert check("PUT", "/machine-config", {"vcpu_count": 33, "mem_size_mib": 128})
    assert check("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 128, "unheard_of": 1})
    assert check("PUT", "/drives/disk-0", {"drive_id": "disk-0", "is_root_device": False})
    assert check("GET", "/nowhere", None)
    assert check("PUT", "/actions", None)


def test_a_machine_is_what_the_spec_says_and_no_more() -> None:
    made = requests.configure(spec(), "quiet")
    assert body(made, "/machine-config") == {
        "vcpu_count": 2, "mem_size_mib": 256, "smt": False, "track_dirty_pages": False, "huge_pages": "None",
    }  # fmt: skip
    assert body(made, "/boot-source")["boot_args"] == "quiet"
    assert body(made, "/balloon")["free_page_reporting"] is True
    assert not [request for request in made if request.path.startswith("/mmds")]


def test_limits_of_a_disk_become_token_buckets_of_a_second() -> None:
    made = requests.configure(spec(disks=(Disk("root", None, False, iops=500, bytes_per_second=1 << 20),)), "")
    limiter = body(made, "/drives/disk0")["rate_limiter"]
    assert limiter == {
        "ops": {"size": 500, "refill_time": 1000}, "bandwidth": {"size": 1 << 20, "refill_time": 1000},
    }  # fmt: skip


def test_a_disk_without_limits_has_no_limiter_and_another_medium_takes_the_old_ones_away() -> None:
    disk = Disk("root", None, True)
    assert "rate_limiter" not in body(requests.configure(spec(disks=(disk,)), ""), "/drives/disk0")
    swapped = requests.swap_medium(0, disk).body
    assert swapped is not None
    assert swapped["rate_limiter"]["ops"] == {"size": 0, "refill_time": 0}


def test_a_vhost_user_disk_is_a_socket_without_what_its_backend_decides() -> None:
    made = requests.configure(spec(disks=(Disk("fast", None, False, iops=5),)), "", ["fast"])
    assert body(made, "/drives/disk0") == {"drive_id": "disk0", "is_root_device": False, "socket": "/disks/fast"}


def test_disks_are_put_in_their_order_which_is_how_the_guest_tells_them_apart() -> None:
    made = requests.configure(spec(disks=(Disk("b", None, True), Disk("a", None, False))), "")
    assert [request.path for request in made if request.path.startswith("/drives")] == [
        "/drives/disk0",
        "/drives/disk1",
    ]
    assert body(made, "/drives/disk0")["path_on_host"] == "/disks/b"


def test_a_restored_vm_gets_the_taps_and_the_channel_of_its_new_place() -> None:
    loaded = requests.load([NIC]).body
    assert loaded is not None
    assert loaded["network_overrides"] == [{"iface_id": "eth0", "host_dev_name": "tap0"}]
    assert loaded["vsock_override"] == {"uds_path": requests.CHANNEL_SOCKET}
    assert loaded["resume_vm"] is False


@pytest.mark.parametrize("limit", ["iops", "bytes_per_second"])
def test_one_limit_alone_leaves_the_other_out(limit: str) -> None:
    made = requests.configure(spec(disks=(Disk("root", None, False, **{limit: 7}),)), "")
    assert len(body(made, "/drives/disk0")["rate_limiter"]) == 1

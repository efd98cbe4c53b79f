"""Why a VM ended, from what Firecracker leaves behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.vmm.base import EndCause
from cuboid.vmm.firecracker.ends import complaint, conclude

STARTED = "2026-01-02T03:04:05.123456789 [vm-1:main:INFO] Successfully started microvm\n"
SUCCESS = "2026-01-02T03:04:06.123456789 [vm-1:main:INFO] Firecracker exiting successfully. exit_code=0\n"
FAILURE = "2026-01-02T03:04:06.123456789 [vm-1:main:ERROR] Firecracker exiting with error. exit_code=1\n"
FAULT = "2026-01-02T03:04:06.1 [vm-1:fc_vcpu 0:ERROR] Unexpected exit reason on vcpu run: Shutdown\n"
OLD_FAULT = "2026-01-02T03:04:06.1 [vm-1:fc_vcpu 0:INFO] Received KVM_EXIT_SHUTDOWN signal\n"


def test_a_reset_is_an_orderly_end() -> None:
    assert conclude(STARTED + SUCCESS, "", "", 0).cause == EndCause.POWEROFF


@pytest.mark.parametrize("log", [STARTED + FAULT + FAILURE, STARTED + OLD_FAULT + SUCCESS])
def test_a_triple_fault_is_a_panic_in_old_and_new_versions(log: str) -> None:
    ended = conclude(log, "2026-01-02T03:04:05.1 [vm-1:main] Running Firecracker v1.17.0\n", "", 0)
    assert ended.cause == EndCause.PANIC
    assert "firecracker_console" in ended.detail


def test_a_panic_is_told_with_the_consoles_last_words_where_there_is_a_console() -> None:
    ended = conclude(FAULT, "x\nKernel panic - not syncing: no init\n<registers>", "", 0)
    assert ended.detail == "x\nKernel panic - not syncing: no init"


def test_the_hosts_kill_for_memory_is_told_as_such_only_where_the_vmm_did_not_end_itself() -> None:
    ended = conclude(STARTED, "", "", 1, limit_hits=3)
    assert (ended.cause, ended.detail) == (EndCause.HOST_OOM, "the host ended the VMM: it reached its memory limit")
    assert "had no memory left" in conclude(STARTED, "", "", 1).detail
    assert conclude(STARTED + SUCCESS, "", "", 1).cause == EndCause.POWEROFF


def test_a_vmm_that_dies_is_told_with_its_last_words() -> None:
    assert conclude("bad seccomp call\n" + FAILURE, "", "", 0).detail == "bad seccomp call"
    assert conclude("", "", "Error: RunWithApi\n", 0).detail == "Error: RunWithApi"
    assert conclude("", "", "", 0).detail == "the VMM ended without a word"


def test_a_console_that_speaks_of_success_changes_nothing() -> None:
    assert conclude(STARTED, SUCCESS + FAULT, "", 0).cause == EndCause.VMM_DIED


@given(st.text(max_size=400), st.text(max_size=400), st.text(max_size=400))
def test_whatever_is_written_the_answer_is_printable_and_short(log: str, console: str, said: str) -> None:
    detail = conclude(log, console, said, 0).detail
    assert all(line.isprintable() for line in detail.split("\n"))
    assert len(detail) < 4000
    assert "\n" not in complaint(log)

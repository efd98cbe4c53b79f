"""What `doctor` says of the guest's kernel: which one is used, why, and how to get the minimal one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuboid.cli import doctor
from cuboid.guest import assets
from cuboid.guest.assets import GENERAL, LEAST_MIB, MINIMAL, OVERHEAD_MIB, GuestAssets, Kind
from cuboid.lib.errors import UnsupportedError
from cuboid.lib.paths import Paths


def found(kind: Kind) -> GuestAssets:
    file = Path("/nowhere")
    return GuestAssets(file, file, file, "1.2.3", "", kind, "6.12.9-x", OVERHEAD_MIB[kind], LEAST_MIB[kind])


def finding(monkeypatch: pytest.MonkeyPatch, kind: Kind, **settings: str) -> doctor.Finding:
    for name, value in settings.items():
        monkeypatch.setenv(f"CUBOID_NODE_{name.upper()}", value)
    monkeypatch.setattr(assets, "guest_assets", lambda **_: found(kind))
    (only,) = doctor._guest(Paths.default())
    return only


def test_the_minimal_kernel_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    told = finding(monkeypatch, MINIMAL)
    assert (told.level, told.fix) == (doctor.OK, "")
    assert "minimal kernel 6.12.9-x, as it has been built; agent 1.2.3" in told.text


def test_without_it_the_command_that_builds_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = finding(monkeypatch, GENERAL)
    assert told.level == doctor.WARN
    assert "general kernel 6.12.9-x" in told.text
    assert "make guest-kernel" in told.fix


def test_a_choice_in_the_settings_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    told = finding(monkeypatch, GENERAL, guest="general")
    assert (told.level, told.fix) == (doctor.OK, "")
    assert "as [node] guest says" in told.text


def test_a_kernel_of_one_s_own_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "/boot/mine, as [node] kernel says" in finding(monkeypatch, MINIMAL, kernel="/boot/mine").text


def test_a_kernel_that_is_chosen_and_not_there_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: str) -> GuestAssets:
        raise UnsupportedError("the minimal guest kernel has not been built", hint="make guest-kernel")

    monkeypatch.setattr(assets, "guest_assets", missing)
    (told,) = doctor._guest(Paths.default())
    assert (told.level, told.fix) == (doctor.FAIL, "make guest-kernel")

"""Which records must outlive the host: few, for each costs a start some milliseconds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cuboid.node.records import Record, Records
from tests.harness.node_world import Host


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each record that is written is made durable."""
    found: list[bool] = []
    save = Records.save

    def noted(self: Records, uid: str, record: Record, *, durable: bool = True) -> None:
        found.append(durable)
        save(self, uid, record, durable=durable)

    monkeypatch.setattr(Records, "save", noted)
    return found


async def _phase(host: Host, wanted: str) -> None:
    async with asyncio.timeout(10):
        while wanted not in host.api.phases:
            await asyncio.sleep(0.01)


async def test_a_start_waits_for_the_disk_once_before_its_container_starts(tmp_path: Path, saved: list[bool]) -> None:
    host = Host(tmp_path)
    async with host.agent_running():
        pod: dict[str, Any] = host.pod()
        host.api.put(pod)
        await _phase(host, "Running")
    assert saved.count(True) == 1
    assert len(saved) > 3
    await host.end()

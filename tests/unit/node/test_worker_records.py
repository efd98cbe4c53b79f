"""Which records must outlive the host: few, for each costs a start some milliseconds."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cuboid.kube.types import pod as parse_pod
from cuboid.node.records import Record, Records
from cuboid.node.sandbox.plan import plan
from cuboid.node.sandbox.state import new
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


def _record(host: Host, reason: str = "") -> Record:
    sandbox = new(plan(parse_pod(host.pod())))
    return Record(msgspec.structs.replace(sandbox, reason=reason), host.pod())


def test_the_newest_record_counts_whether_or_not_it_is_durable(tmp_path: Path) -> None:
    host, records = Host(tmp_path), Records(tmp_path / "state")
    record = _record(host)
    records.save("a", record)
    record.sandbox = msgspec.structs.replace(record.sandbox, reason="newer")
    records.save("a", record, durable=False)
    assert Records(tmp_path / "state").load()["a"].sandbox.reason == "newer"
    record.sandbox = msgspec.structs.replace(record.sandbox, reason="newest")
    records.save("a", record)
    assert Records(tmp_path / "state").load()["a"].sandbox.reason == "newest"


def test_a_record_that_the_host_s_end_tore_leaves_the_durable_one(tmp_path: Path) -> None:
    host, records = Host(tmp_path), Records(tmp_path / "state")
    record = _record(host, "durable")
    records.save("a", record)
    records.save("a", record, durable=False)
    (records.folder("a") / "latest.json").write_bytes(b"")
    assert Records(tmp_path / "state").load()["a"].sandbox.reason == "durable"


def test_a_pod_of_which_nothing_durable_was_written_is_begun_anew(tmp_path: Path) -> None:
    host, records = Host(tmp_path), Records(tmp_path / "state")
    records.save("a", _record(host), durable=False)
    (records.folder("a") / "latest.json").write_bytes(b'{"sandbox":')
    assert Records(tmp_path / "state").load() == {}
    assert not records.folder("a").exists()

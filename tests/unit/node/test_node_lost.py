"""A node agent that the API took for lost says what is the case, of its node and of its pods."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cuboid.node.settings import NodeSettings
from tests.harness.node_world import Host


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.end()


def ready(host: Host) -> str:
    conditions: list[dict[str, Any]] = host.api.status("demo").get("conditions", [])
    return next((c["status"] for c in conditions if c["type"] == "Ready"), "")


async def test_pods_that_were_called_unready_meanwhile_are_told_again(host: Host) -> None:
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host) == "True")
        conditions = [
            {**c, "status": "False"} if c["type"] == "Ready" else c for c in host.api.status("demo")["conditions"]
        ]
        host.api.change("demo", {"status": {"conditions": conditions}})
        host.api.lost = True
        await host.api.until(lambda: ready(host) == "True")


def test_three_renewals_may_fail_before_a_node_is_lost() -> None:
    settings = NodeSettings()
    assert settings.heartbeat_seconds * 4 <= settings.lease_seconds

"""The client and the informer against a real server, also one that dies and comes back."""

from __future__ import annotations

import asyncio
import stat
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from cuboid.kube.client import CONFIG_MAPS, JSON, MERGE, NODES, PODS, KubeClient
from cuboid.kube.informer import Informer
from cuboid.lib.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
)
from cuboid.lib.paths import Paths
from tests.harness.kube_server import ServerProcess, node, pod, serving

OWN = "metadata.name!=kube-root-ca.crt"
"""Without what every namespace has."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with serving(tmp_path_factory.mktemp("client")) as running:
        yield running


def client_of(server: ServerProcess) -> KubeClient:
    return KubeClient(server.url, server.token, server.ca_file)


async def test_the_local_socket_is_the_same_api_for_root_alone_and_asks_for_a_token(server: ServerProcess) -> None:
    path = Paths(server.root / "state", server.root / "run").api_socket
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    async with KubeClient(f"unix:{path}", server.token) as client:
        made = await client.create(PODS, pod("local", schedulerName="nobody"), "default")
        async with aclosing(client.watch(PODS, "default", since=made["metadata"]["resourceVersion"])) as changes:
            await client.delete(PODS, "local", "default", grace=0)
            assert (await anext(changes))[0] == "DELETED"
    async with KubeClient(f"unix:{path}") as stranger:
        with pytest.raises(UnauthorizedError):
            await stranger.get(PODS, "local", "default")


async def test_every_verb_and_its_errors(server: ServerProcess) -> None:
    async with client_of(server) as client:
        made = await client.create(PODS, pod("verbs", schedulerName="nobody"), "default")
        with pytest.raises(AlreadyExistsError):
            await client.create(PODS, pod("verbs"), "default")
        with pytest.raises(InvalidError) as invalid:
            await client.create(PODS, pod("BAD"), "default")
        assert invalid.value.details["causes"][0]["field"] == "metadata.name"
        with pytest.raises(NotFoundError):
            await client.get(PODS, "none", "default")
        patched = await client.patch(PODS, "verbs", {"metadata": {"labels": {"a": "1"}}}, "default")
        assert patched["metadata"]["labels"] == {"a": "1"}
        with pytest.raises(ConflictError):
            await client.update(PODS, {**made, "metadata": {**made["metadata"], "labels": {"a": "2"}}})
        merged = await client.patch(PODS, "verbs", {"metadata": {"labels": None}}, "default", form=MERGE)
        assert "labels" not in merged["metadata"]
        add = [{"op": "add", "path": "/metadata/annotations", "value": {"x": "y"}}]
        assert (await client.patch(PODS, "verbs", add, "default", form=JSON))["metadata"]["annotations"] == {"x": "y"}
        status = {**merged, "status": {"phase": "Running"}}
        status["metadata"].pop("resourceVersion")
        assert (await client.update(PODS, status, sub="status"))["status"]["phase"] == "Running"
        listed = await client.list(PODS, "default", fields="status.phase=Running")
        assert [item["kind"] for item in listed.items] == ["Pod"]
        with pytest.raises(ConflictError):
            await client.delete(PODS, "verbs", "default", uid="another")
        await client.delete(PODS, "verbs", "default", grace=0)


async def test_a_wrong_token_and_a_server_that_is_not_there_have_their_own_errors(server: ServerProcess) -> None:
    async with KubeClient(server.url, "wrong", server.ca_file) as client:
        with pytest.raises(UnauthorizedError):
            await client.list(NODES)
    async with KubeClient("https://127.0.0.1:1", "x", server.ca_file) as client:
        with pytest.raises(UnavailableError):
            await client.list(NODES)


async def test_an_informer_follows_through_a_server_that_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.settings["port"] = server.url.rpartition(":")[2]
        async with client_of(server) as client:
            informer = Informer(client, CONFIG_MAPS, "default", fields=OWN)
            async with aclosing(informer.events()) as events:
                await client.create(CONFIG_MAPS, {"metadata": {"name": "one"}}, "default")
                assert await named(events) == ("ADDED", "one")
                server.kill()
                server.start()
                await client.create(CONFIG_MAPS, {"metadata": {"name": "two"}}, "default")
                assert await named(events) == ("ADDED", "two")
                await client.delete(CONFIG_MAPS, "one", "default")
                assert await named(events) == ("DELETED", "one")
                assert list(informer.objects) == [("default", "two")]


async def test_an_informer_that_fell_behind_lists_again_and_names_the_differences(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with client_of(server) as client:
            informer = Informer(client, CONFIG_MAPS, "default", fields=OWN)
            for name in ("kept", "gone"):
                await client.create(CONFIG_MAPS, {"metadata": {"name": name}}, "default")
            async with aclosing(informer.events()) as events:
                assert {await named(events), await named(events)} == {("ADDED", "kept"), ("ADDED", "gone")}
            await client.delete(CONFIG_MAPS, "gone", "default")
            await client.patch(CONFIG_MAPS, "kept", {"data": {"a": "b"}}, "default")
            await client.create(CONFIG_MAPS, {"metadata": {"name": "new"}}, "default")
            informer._version = ""
            async with aclosing(informer.events()) as events:
                found = {await named(events) for _ in range(3)}
            assert found == {("DELETED", "gone"), ("MODIFIED", "kept"), ("ADDED", "new")}


async def named(events: object) -> tuple[str, str]:
    async with asyncio.timeout(15):
        kind, document = await anext(events)  # type: ignore[call-overload]
    return kind, document["metadata"]["name"]


async def test_a_get_takes_a_few_milliseconds(server: ServerProcess) -> None:
    async with client_of(server) as client:
        await client.create(NODES, node("timed"))
        await client.get(NODES, "timed")
        started = time.perf_counter()
        for _ in range(50):
            await client.get(NODES, "timed")
        assert (time.perf_counter() - started) / 50 < 0.05, "ten times what an idle machine needs"

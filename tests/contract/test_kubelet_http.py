"""The node agent's HTTPS API without WebSockets: logs, files, images, volumes, stats, and who may call it."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse

from cuboid.lib.errors import UnavailableError
from cuboid.lib.paths import Paths
from cuboid.lib.serving import listen_here
from cuboid.node.kubelet.serve import Keys, serve_kubelet, tls_context
from cuboid.server.tls import client_context
from cuboid.vmm.base import VmStats
from tests.harness.kubelet_rig import KubeletRig, kubelet

LOGS = "/containerLogs/default/web/main"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[KubeletRig]:
    async with kubelet(tmp_path) as rig:
        yield rig


async def wait_for_log(rig: KubeletRig, text: bytes) -> None:
    async with asyncio.timeout(5):
        while text not in (rig.view.log_folder("main") / "0.log").read_bytes():
            await asyncio.sleep(0.01)


async def test_a_client_without_a_certificate_of_the_ca_is_not_spoken_with(rig: KubeletRig) -> None:
    bare = client_context(rig.authority.ca_file)
    async with httpx.AsyncClient(verify=bare, base_url=f"https://127.0.0.1:{rig.port}") as client:
        with pytest.raises(httpx.HTTPError):
            await client.get("/healthz")
    serving = rig.authority.server("node", ["127.0.0.1", "localhost"])
    wrong = client_context(rig.authority.ca_file, serving)  # of the CA, but no client's certificate
    async with httpx.AsyncClient(verify=wrong, base_url=f"https://127.0.0.1:{rig.port}") as client:
        with pytest.raises(httpx.HTTPError):
            await client.get("/healthz")
    async with rig.http() as client:
        assert (await client.get("/healthz")).text == "ok"


async def test_the_local_socket_is_for_root_and_the_user_of_the_api_server(rig: KubeletRig, tmp_path: Path) -> None:
    paths = Paths(tmp_path / "state", tmp_path).make()
    with listen_here(paths.api_socket, 64_100):
        keys = Keys.of_folder(tmp_path / "pki")
        async with serve_kubelet(PlainTextResponse("ok"), "127.0.0.1", 0, keys, paths) as port:
            about = paths.node_socket(port).stat()
            assert (stat.S_IMODE(about.st_mode), about.st_uid) == (0o600, 64_100)
            transport = httpx.AsyncHTTPTransport(uds=str(paths.node_socket(port)))
            async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
                assert (await client.get("/healthz")).text == "ok"


async def test_missing_keys_and_a_taken_port_are_told(rig: KubeletRig, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="does not exist"):
        tls_context(Keys.of_folder(tmp_path / "nowhere"))
    with pytest.raises(UnavailableError, match="cannot listen"):
        async with serve_kubelet(lambda *_: asyncio.sleep(0), "127.0.0.1", rig.port, Keys.of_folder(tmp_path / "pki")):
            pass


async def test_logs_with_the_options_of_kubectl(rig: KubeletRig) -> None:
    for n in range(5):
        await rig.agent.write("main", b"line %d" % n, 2 if n == 3 else 1)
    await wait_for_log(rig, b"line 4")
    async with rig.http() as client:
        assert (await client.get(LOGS)).text == "".join(f"line {n}\n" for n in range(5))
        assert (await client.get(LOGS + "?tailLines=2")).text == "line 3\nline 4\n"
        assert (await client.get(LOGS + "?limitBytes=4")).text == "line"
        assert (await client.get(LOGS + "?stream=Stderr")).text == "line 3\n"
        assert (await client.get(LOGS + "?sinceSeconds=100")).text.count("\n") == 5
        assert (await client.get(LOGS + "?sinceTime=2199-01-01T00:00:00%2B02:00")).text == ""
        stamped = (await client.get(LOGS + "?timestamps=true&tailLines=1")).text
        assert stamped.endswith(" line 4\n") and stamped.startswith("20")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("tailLines=-1", "tailLines must be a whole number"),
        ("sinceTime=yesterday", "sinceTime must be a time"),
        ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", "at most one of"),
        ("stream=stdin", "stream must be"),
        ("previous=true", 'previous terminated container "main" in pod "web" not found'),
    ],
)
async def test_wrong_options_are_told(rig: KubeletRig, query: str, text: str) -> None:
    async with rig.http() as client:
        answer = await client.get(f"{LOGS}?{query}")
    assert answer.status_code == 400
    assert text in answer.json()["message"]


async def test_follow_comes_at_once_and_ends_with_the_container(rig: KubeletRig) -> None:
    async with rig.http() as client, client.stream("GET", LOGS + "?follow=true") as answer:
        lines = answer.aiter_lines()
        for n in range(3):
            await rig.agent.write("main", b"line %d" % n)
            assert await asyncio.wait_for(anext(lines), 2) == f"line {n}"
        await rig.agent.write("main", b"bye")
        rig.agent.end("main")
        assert [line async for line in lines] == ["bye"]


async def test_the_last_words_of_a_container_that_has_just_ended_are_in_its_log(rig: KubeletRig) -> None:
    async with rig.http() as client:
        for n in range(20):
            await rig.agent.write("main", b"word %d" % n)
            assert (await client.get(LOGS + "?tailLines=1")).text == f"word {n}\n"


async def test_a_follower_that_leaves_is_forgotten(rig: KubeletRig) -> None:
    from cuboid.node import logfiles

    async with rig.http() as client:
        async with client.stream("GET", LOGS + "?follow=true") as answer:
            await rig.agent.write("main", b"x")
            assert await asyncio.wait_for(anext(answer.aiter_lines()), 2) == "x"
            assert logfiles._watchers
        async with asyncio.timeout(5):
            while logfiles._watchers:
                await asyncio.sleep(0.01)


async def test_a_container_that_has_not_started_says_what_it_waits_for(rig: KubeletRig) -> None:
    rig.view.folder = rig.folder / "other"
    async with rig.http() as client:
        answer = await client.get(LOGS)
    assert answer.status_code == 400
    assert answer.json()["message"] == 'container "main" in pod "web" is waiting to start: ContainerCreating'


async def test_files_go_in_and_come_out(rig: KubeletRig) -> None:
    path = "/cuboid/v1/files/default/web/main?path=/data"
    content = bytes(range(256)) * 8192
    async with rig.http() as client:
        assert (await client.get(path)).status_code == 404
        assert (await client.put(path, content=content)).status_code == 200
        assert rig.agent.files["main", "/data"] == content
        assert (await client.get(path)).content == content
        assert (await client.put("/cuboid/v1/files/default/web/main", content=b"")).status_code == 400
        rig.view.up = False
        answer = await client.get(path)
    assert (answer.status_code, answer.json()["reason"]) == (503, "ServiceUnavailable")


async def test_a_pull_shows_its_progress_and_ends_with_the_image_or_the_error(rig: KubeletRig) -> None:
    async with rig.http() as client:
        body = {"reference": "demo:1", "credentials": {"username": "u", "password": "p"}}
        rows = [json.loads(line) for line in (await client.post("/cuboid/v1/images/pull", json=body)).text.splitlines()]
        assert rows[0] == {"phase": "download", "done": 10, "total": 100}
        assert rows[-1]["image"]["id"] == rig.images.image.id
        credentials = rig.images.pulled[0][1]
        assert credentials is not None and credentials.username == "u"
        missing = await client.post("/cuboid/v1/images/pull", json={"reference": "missing:1"})
        error = json.loads(missing.text.splitlines()[-1])["error"]
        assert error == {"reason": "NotFound", "message": "there is no image missing:1", "hint": "look at its name"}
        assert (await client.post("/cuboid/v1/images/pull", content=b"[1]")).status_code == 400
        assert (await client.post("/cuboid/v1/images/pull", json={"reference": 5})).status_code == 400


async def test_an_import_is_spooled_and_leaves_nothing_behind(rig: KubeletRig) -> None:
    archive = b"tar" * 100_000
    async with rig.http() as client:
        answer = await client.post("/cuboid/v1/images/import?name=x:1", content=archive)
    assert json.loads(answer.text.splitlines()[-1])["images"][0]["names"] == ["demo:1"]
    assert rig.images.imported == [(archive, "x:1")]
    assert list((rig.folder / "spool").iterdir()) == []


async def test_images_are_listed_inspected_and_removed(rig: KubeletRig) -> None:
    async with rig.http() as client:
        assert (await client.get("/cuboid/v1/images")).json()["items"][0]["size"] == 4096
        assert (await client.get("/cuboid/v1/images/inspect?reference=demo:1")).json()["architecture"] == "amd64"
        assert (await client.get("/cuboid/v1/images/inspect?reference=no:1")).status_code == 404
        assert (await client.delete("/cuboid/v1/images?reference=demo:1")).json() == {"removed": ["demo:1"]}
        assert (await client.delete("/cuboid/v1/images")).status_code == 400


async def test_volumes_are_listed_with_the_name_of_their_pod_and_removed_when_free(rig: KubeletRig) -> None:
    await rig.disks.acquire_volume("default", "data", "u-1", 16 << 20)
    async with rig.http() as client:
        row = (await client.get("/cuboid/v1/volumes")).json()["items"][0]
        assert (row["name"], row["holder"]) == ("data", "web")
        assert (await client.delete("/cuboid/v1/volumes/default/data")).status_code == 409
        await rig.disks.release_volumes("u-1")
        assert (await client.delete("/cuboid/v1/volumes/default/data")).json() == {"removed": ["data"]}


async def test_usage_in_its_three_forms(rig: KubeletRig) -> None:
    async with rig.http() as client:
        summary = (await client.get("/stats/summary")).json()
        rows = (await client.get("/cuboid/v1/stats/default")).json()["items"]
        text = (await client.get("/metrics")).text
        other = (await client.get("/cuboid/v1/stats/elsewhere")).json()["items"]
        rig.view.vmm = VmStats(1.0, 64 << 20, 48 << 20)
        machines = (await client.get("/cuboid/v1/stats/default?machines=true")).json()["machines"]
        pods = (await client.get("/pods")).json()["items"]
    assert summary["node"]["nodeName"] == "node-1"
    assert [c["name"] for c in summary["pods"][0]["containers"]] == ["main", "term"]
    assert {(row["pod"], row["container"]) for row in rows} == {("web", "main"), ("web", "term")}
    assert other == []
    assert [(row["pod"], row["privateBytes"]) for row in machines] == [("web", 48 << 20)]
    assert 'container_memory_working_set_bytes{container="main",namespace="default",pod="web"} 1.048576e+06' in text
    assert "cuboid_node_pods 1.0" in text
    assert pods[0]["metadata"]["name"] == "web"


async def test_a_pod_that_is_not_here_and_a_path_that_is_not_there_are_404(rig: KubeletRig) -> None:
    async with rig.http() as client:
        assert (await client.get("/containerLogs/default/nobody/main")).status_code == 404
        assert (await client.get("/nothing")).status_code == 404

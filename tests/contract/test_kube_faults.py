"""A real server that is killed while clients write, whose disk is full, whose store is damaged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cuboid.kube import backup
from cuboid.kube.client import CONFIG_MAPS, KubeClient
from cuboid.lib.errors import AlreadyExistsError, CuboidError, GoneError
from cuboid.server.backups import STORE_FILE
from tests.harness.kube_server import ServerProcess, serving

WRITERS = 6
MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, size: int = 2_000) -> dict[str, Any]:
    """Whole if all of its data is the name, over and over."""
    return {"metadata": {"name": name}, "data": {"text": (name * size)[:size]}}


def whole(document: dict[str, Any]) -> bool:
    return bool(document["data"] == config_map(document["metadata"]["name"])["data"])


# --- kill -9 in a burst of writes ------


class Writer:
    """Creates, changes and deletes until the server is gone; knows what was acknowledged and what is open."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.there: dict[str, int] = {}  # acknowledged: version by name
        self.gone: set[str] = set()  # acknowledged as deleted
        self.open = ""  # what was asked for when the server went away

    async def run(self, server: ServerProcess) -> None:
        async with KubeClient(server.url, server.token, server.ca_file) as client:
            with contextlib.suppress(CuboidError):
                for number in range(100_000):
                    self.open = name = f"{self.name}-{number}"
                    made = await client.create(CONFIG_MAPS, config_map(name), "default", seconds=5)
                    self.there[name] = int(made["metadata"]["resourceVersion"])
                    if number % 5 == 4:
                        self.open = old = random.choice(list(self.there))
                        await client.delete(CONFIG_MAPS, old, "default", seconds=5)
                        del self.there[old]
                        self.gone.add(old)


async def burst(server: ServerProcess, round_: int, seconds: float) -> list[Writer]:
    writers = [Writer(f"r{round_}w{index}") for index in range(WRITERS)]
    async with asyncio.TaskGroup() as tasks:
        for writer in writers:
            tasks.create_task(writer.run(server))
        await asyncio.sleep(seconds)
        await asyncio.to_thread(server.kill)
    return writers


async def replayed(client: KubeClient, since: int, until: int) -> dict[str, int]:
    """What a watch from `since` on tells, up to `until`: version by name, of what is there at the end."""
    believed: dict[str, int] = {}
    last = since
    async with asyncio.timeout(20):
        async for kind, document in client.watch(CONFIG_MAPS, "default", since=str(since)):
            version = int(document["metadata"]["resourceVersion"])
            assert version > last or kind == "BOOKMARK", "versions grow"
            last = max(last, version)
            name = document["metadata"].get("name", "")
            if kind == "DELETED":
                believed.pop(name, None)
            elif kind != "BOOKMARK":
                assert whole(document)
                believed[name] = version
            if version >= until:
                return believed
    raise AssertionError("the watch ended")


@pytest.mark.slow
async def test_kill_9_in_a_burst_of_writes_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    newest = 0
    all_there: dict[str, int] = {}
    for round_ in range(4):
        await asyncio.to_thread(server.start)
        before = newest
        writers = await burst(server, round_, random.uniform(0.3, 0.9))
        assert sum(len(writer.there) for writer in writers) > WRITERS
        await asyncio.to_thread(server.start)
        async with KubeClient(server.url, server.token, server.ca_file) as client:
            listed = await client.list(CONFIG_MAPS, "default")
            found = {item["metadata"]["name"]: item for item in listed.items}
            stored = {name: int(item["metadata"]["resourceVersion"]) for name, item in found.items()}
            assert all(whole(item) for name, item in found.items() if name.startswith("r")), "none half-done"
            for writer in writers:
                all_there |= writer.there
                for name in writer.gone:
                    assert name == writer.open or name not in stored, "a deletion stays"
                    all_there.pop(name, None)
                if writer.open not in stored:
                    all_there.pop(writer.open, None)
            missing = {name for name, version in all_there.items() if stored.get(name) != version}
            assert not missing, f"acknowledged and lost: {missing}"
            made = await client.create(CONFIG_MAPS, config_map(f"r{round_}-after"), "default")
            newest = int(made["metadata"]["resourceVersion"])
            assert newest > max(stored.values()), "versions go on"
            all_there[f"r{round_}-after"] = newest
            if before:
                told = await replayed(client, before, newest)
                expected = {name: version for name, version in stored.items() if version > before}
                assert {**told} == {**expected, f"r{round_}-after": newest}, "a watch goes on where it was"
        await asyncio.to_thread(server.kill)


async def test_a_watch_from_before_what_is_remembered_is_gone_after_a_restart(tmp_path: Path) -> None:
    with serving(tmp_path, history="10") as server:
        async with KubeClient(server.url, server.token, server.ca_file) as client:
            first = await client.create(CONFIG_MAPS, config_map("first"), "default")
            for start in range(0, 1_100, 50):
                names = (f"n{index}" for index in range(start, start + 50))
                await asyncio.gather(*(client.create(CONFIG_MAPS, config_map(name, 10), "default") for name in names))
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        async with KubeClient(server.url, server.token, server.ca_file) as client:
            with pytest.raises(GoneError):
                async for _ in client.watch(CONFIG_MAPS, "default", since=first["metadata"]["resourceVersion"]):
                    pass


# --- full disk ------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", place], check=True, timeout=10)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True, timeout=10)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_a_full_disk_is_said_reads_go_on_and_writes_come_back(small_disk: Path) -> None:
    filler = small_disk / "filler"
    with serving(small_disk, backup_hours="0", audit_mib="0") as server, server.http() as http:
        filler.write_bytes(b"x" * 4 * 2**20)
        made = []
        refused = None
        for number in range(60):
            answer = http.post(MAPS, json=config_map(f"m{number}", 400_000))
            if answer.status_code != 201:
                refused = answer
                break
            made.append(f"m{number}")
        assert refused is not None and refused.status_code == 507, refused
        said = refused.json()
        assert said["reason"] == "InsufficientStorage" and "no room left for the API's store" in said["message"]
        assert "free some space" in said["message"]
        assert http.get("/readyz").status_code == 200
        listed = http.get(MAPS).json()["items"]
        assert set(made) <= {item["metadata"]["name"] for item in listed}
        assert http.post(MAPS, json=config_map("again", 400_000)).status_code == 507
        filler.unlink()
        assert http.post(MAPS, json=config_map("after", 400_000)).status_code == 201
        server.kill()
        server.start()
        with server.http() as again:
            names = {item["metadata"]["name"] for item in again.get(MAPS).json()["items"]}
    assert {*made, "after"} <= names and "again" not in names


# --- a damaged store ------


def cuboid(server: ServerProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "CUBOID_STATE_DIR": str(server.root / "state"),
        "CUBOID_RUN_DIR": str(server.root / "run"),
    }
    command = [str(Path(sys.executable).with_name("cuboid")), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_backups_come_by_themselves_while_clients_write(tmp_path: Path) -> None:
    with serving(tmp_path, backup_hours="0.0002") as server, server.http() as http:
        folder = backup.folder_of(server.folder / STORE_FILE)
        end = time.monotonic() + 20
        number = 0
        while len(backup.found(folder)) < 2:
            assert time.monotonic() < end, server.log()
            assert http.post(MAPS, json=config_map(f"m{number}")).status_code == 201
            number += 1
            time.sleep(0.02)
        first, second = backup.found(folder)[:2]
        assert first.revision < second.revision
        assert "backed up" in server.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="the server's folder is root's")
def test_a_damaged_store_is_found_at_the_start_and_mended_as_the_message_says(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path)
    server.start()
    store = server.folder / STORE_FILE
    try:
        with server.http() as http:
            assert http.post(MAPS, json=config_map("kept")).status_code == 201
            done = cuboid(server, "backup")
            assert done.returncode == 0, done.stderr
            assert http.post(MAPS, json=config_map("victim")).status_code == 201
            version = http.get(MAPS).json()["metadata"]["resourceVersion"]
        assert cuboid(server, "restore", str(store)).returncode == 3, "not while it runs"
        assert server.kill(signal.SIGTERM) == 0
        store.write_bytes(store.read_bytes().replace(b"victimvictim", b"victimVictim"))
        with pytest.raises(AssertionError, match="configmaps default/victim is not as it was written"):
            server.start()
        [made] = backup.found(backup.folder_of(store))
        assert f"cuboid restore {made.path}" in server.log()
        done = cuboid(server, "restore", str(made.path))
        assert done.returncode == 0 and "what was there is kept as" in done.stdout, done.stderr
        server.start()
        with server.http() as http:
            assert http.get(f"{MAPS}/kept").status_code == 200 and http.get(f"{MAPS}/victim").status_code == 404
            old = http.get(MAPS, params={"watch": "1", "resourceVersion": version, "timeoutSeconds": "5"})
            assert '"code":410' in old.text
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()


def test_the_same_object_is_not_made_twice_by_writers_in_one_commit(tmp_path: Path) -> None:
    async def race(server: ServerProcess) -> list[object]:
        async with KubeClient(server.url, server.token, server.ca_file) as client:
            tries = (client.create(CONFIG_MAPS, config_map("one"), "default") for _ in range(20))
            return await asyncio.gather(*tries, return_exceptions=True)

    with serving(tmp_path) as server:
        results = asyncio.run(race(server))
    assert sum(isinstance(result, AlreadyExistsError) for result in results) == 19


def test_a_second_server_on_the_same_store_is_refused(tmp_path: Path) -> None:
    """The store's lock: a second server on the same folder says who is in the way."""
    with serving(tmp_path) as server:
        second = ServerProcess(tmp_path / "second")
        (tmp_path / "second").mkdir()
        (tmp_path / "second" / "state").symlink_to(server.root / "state")
        address = (server.folder / "data" / "address").read_text()
        with pytest.raises(AssertionError, match="in use by another process"):
            second.start()
        (server.folder / "data" / "address").write_text(address)
        assert httpx.get(f"{server.url}/healthz", verify=False, timeout=5).status_code == 200

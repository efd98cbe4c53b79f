"""A real server with more callers than it can serve: fair turns, 429, slow senders, watchers that read nothing."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cuboid.server import tokens
from tests.harness.kube_server import ServerProcess

MAPS = "/api/v1/namespaces/default/configmaps"
GREEDY, MODEST, NODE = "greedy", "modest", "system:node:n1"
_STATUS = re.compile(rb"HTTP/1\.1 (\d+)")


@contextmanager
def started(server: ServerProcess) -> Iterator[ServerProcess]:
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.kill()


@contextmanager
def server_with_users(root: Path, **settings: str) -> Iterator[tuple[ServerProcess, dict[str, str]]]:
    """Two users with all rights and no special place, and a node; their tokens by name."""
    server = ServerProcess(root)
    folder = server.folder
    folder.mkdir(parents=True, mode=0o711)
    tokens.Tokens.open(folder)
    table = folder / "tokens.json"
    rows = json.loads(table.read_bytes())
    made = {name: secrets.token_urlsafe(32) for name in (GREEDY, MODEST, NODE)}
    for name, token in made.items():
        groups = ["system:authenticated", *(["system:nodes"] if name == NODE else [])]
        rows.append({"sha256": tokens.digest(token), "name": name, "groups": groups})
    table.write_text(json.dumps(rows))
    server.settings.update(settings)
    with started(server) as running, running.http() as http:
        subjects = [{"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"} for name in made]
        role = {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}
        binding = {"metadata": {"name": "all"}, "roleRef": role, "subjects": subjects}
        path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
        assert http.post(path, json=binding).status_code == 201
        yield running, made


def request(token: str, method: str, path: str, body: Any = None, *, cut: int = 0) -> bytes:
    """`cut` leaves out so many bytes of the end."""
    data = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    whole = head.encode() + data
    return whole[:-cut] if cut else whole


def config_map(name: str, size: int = 100) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": {"text": "x" * size}}


def local(server: ServerProcess) -> str:
    """The server's socket on this machine: ten thousand connections without ten thousand handshakes."""
    return str(server.root / "run" / "api.sock")


async def asked(server: ServerProcess, data: bytes, answers: int, seconds: float = 60) -> list[tuple[int, bytes]]:
    """Status and head of each answer on one connection."""
    reader, writer = await asyncio.open_unix_connection(local(server), limit=2**20)
    try:
        async with asyncio.timeout(seconds):
            writer.write(data)
            found = []
            for _ in range(answers):
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                assert length is not None, head
                await reader.readexactly(int(length[1]))
                match = _STATUS.match(head)
                assert match is not None, head
                found.append((int(match[1]), head))
            return found
    finally:
        writer.close()


async def patient(server: ServerProcess, data: list[bytes]) -> list[tuple[int, float]]:
    """One request after the other: status and seconds."""
    found = []
    for part in data:
        started = time.monotonic()
        [(code, _)] = await asked(server, part, 1)
        found.append((code, time.monotonic() - started))
    return found


LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CONNECTIONS, EACH = 1_000, 10


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ten_thousand_requests_of_one_do_not_keep_others_from_being_served(tmp_path: Path) -> None:
    async def storm(server: ServerProcess, made: dict[str, str]) -> tuple[Counter[int], list[Any], list[Any]]:
        gate = asyncio.Semaphore(200)  # of the client's own: a listener's queue is bounded too

        async def one(number: int) -> list[tuple[int, bytes]]:
            names = (f"g{number}-{index}" for index in range(EACH))
            data = b"".join(request(made[GREEDY], "POST", MAPS, config_map(name)) for name in names)
            async with gate:
                await asyncio.sleep(0)
            return await asked(server, data, EACH, 150)

        async with asyncio.TaskGroup() as tasks:
            greedy = [tasks.create_task(one(number)) for number in range(CONNECTIONS)]
            await asyncio.sleep(0.5)
            modest = tasks.create_task(
                patient(server, [request(made[MODEST], "POST", MAPS, config_map(f"m{i}")) for i in range(10)])
            )
            leases = [
                request(made[NODE], "POST", LEASE, {"metadata": {"name": f"l{i}"}, "spec": {}}) for i in range(10)
            ]
            node = tasks.create_task(patient(server, leases))
        answers = [answer for task in greedy for answer in task.result()]
        assert all(b"retry-after: 1" in head for code, head in answers if code == 429)
        return Counter(code for code, _ in answers), modest.result(), node.result()

    with server_with_users(tmp_path) as (server, made):
        codes, modest, node = asyncio.run(storm(server, made))
        with server.http() as http:
            left = http.get(MAPS, params={"limit": "1"}).json()["metadata"]
    assert set(codes) == {201, 429} and sum(codes.values()) == CONNECTIONS * EACH
    assert codes[201] > 200, "the greedy one is served too, as far as there is room"
    assert [code for code, _ in modest] == [201] * 10, modest
    assert {code for code, _ in node} <= {201, 403} and 429 not in {code for code, _ in node}, node
    assert max(seconds for _, seconds in modest + node) < 15, (modest, node)
    assert left["remainingItemCount"] >= codes[201], "what was acknowledged is there"


def test_bodies_that_come_slowly_take_no_seat(tmp_path: Path) -> None:
    async def run(server: ServerProcess, made: dict[str, str]) -> tuple[list[Any], list[bytes]]:
        slow = []
        for index in range(100):
            reader, writer = await asyncio.open_unix_connection(local(server))
            writer.write(request(made[GREEDY], "POST", MAPS, config_map(f"s{index}"), cut=10))
            slow.append((reader, writer))
        served = await patient(server, [request(made[GREEDY], "POST", MAPS, config_map(f"m{i}")) for i in range(5)])
        async with asyncio.timeout(20):
            ends = [await reader.readline() for reader, _ in slow]
        for _, writer in slow:
            writer.close()
        return served, ends

    with server_with_users(tmp_path, max_requests="2", body_seconds="3") as (server, made):
        served, ends = asyncio.run(run(server, made))
    assert [code for code, _ in served] == [201] * 5
    assert all(seconds < 2.5 for _, seconds in served), served
    assert all(line.startswith(b"HTTP/1.1 504") for line in ends)


def test_more_bytes_of_bodies_than_one_may_have_are_refused(tmp_path: Path) -> None:
    async def run(server: ServerProcess, made: dict[str, str]) -> tuple[int, int]:
        open_ = []
        for index in range(4):
            _, writer = await asyncio.open_unix_connection(local(server))
            writer.write(request(made[GREEDY], "POST", MAPS, config_map(f"s{index}", 300_000), cut=10))
            await writer.drain()
            open_.append(writer)
        await asyncio.sleep(0.5)
        [(greedy, _)] = await asked(server, request(made[GREEDY], "POST", MAPS, config_map("g", 300_000)), 1)
        [(modest, _)] = await asked(server, request(made[MODEST], "POST", MAPS, config_map("m", 300_000)), 1)
        for writer in open_:
            writer.close()
        return greedy, modest

    with server_with_users(tmp_path, body_bytes=str(4 * 1_000_000)) as (server, made):
        assert asyncio.run(run(server, made)) == (429, 201)


def test_one_may_have_only_so_many_watches_and_others_still_get_theirs(tmp_path: Path) -> None:
    with server_with_users(tmp_path, flow_streams="3") as (server, made), server.http() as http:

        def watch(name: str) -> httpx.Response:
            built = http.build_request(
                "GET", MAPS, params={"watch": "1"}, headers={"Authorization": f"Bearer {made[name]}"}
            )
            return http.send(built, stream=True)

        opened = [watch(GREEDY) for _ in range(3)]
        refused = watch(GREEDY)
        others = [watch(MODEST), *(watch(NODE) for _ in range(4))]
        try:
            assert [one.status_code for one in opened] == [200] * 3
            assert refused.status_code == 429 and refused.headers["Retry-After"] == "1"
            assert 429 not in {one.status_code for one in others} and others[0].status_code == 200
        finally:
            for one in (*opened, refused, *others):
                one.close()
        freed = watch(GREEDY)
        assert freed.status_code == 200
        freed.close()


def resident(server: ServerProcess) -> int:
    assert server.process is not None
    text = Path(f"/proc/{server.process.pid}/status").read_text()
    match = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert match is not None
    return int(match[1]) * 1024


WATCHERS, EVENTS, SIZE = 60, 300, 50_000


@pytest.mark.slow
def test_watchers_that_read_nothing_are_cut_off_and_cost_little(tmp_path: Path) -> None:
    """60 of them, 15 MB of events each: 900 MB if all were kept for each."""

    async def run(server: ServerProcess, made: dict[str, str]) -> tuple[int, int, int]:
        dead = []
        for _ in range(WATCHERS):
            reader, writer = await asyncio.open_unix_connection(local(server), limit=1024)
            writer.write(request(made[GREEDY], "GET", f"{MAPS}?watch=1"))
            dead.append((reader, writer))
        reader, writer = await asyncio.open_unix_connection(local(server), limit=2**22)
        writer.write(request(made[MODEST], "GET", f"{MAPS}?watch=1&fieldSelector=metadata.name=big"))
        before, most = resident(server), 0
        created = await patient(server, [request(made[MODEST], "POST", MAPS, config_map("big", SIZE))])
        assert created[0][0] == 201
        seen = asyncio.Event()

        async def read() -> int:
            lines = 0
            async with asyncio.timeout(40):
                while lines < EVENTS + 1:
                    line = await reader.readline()
                    assert line and b'"ERROR"' not in line[:20], line
                    lines += line.startswith(b'{"type"')
            seen.set()
            return lines

        reading = asyncio.create_task(read())
        for index in range(EVENTS):
            body = config_map("big", SIZE - index - 1)
            [(code, _)] = await asked(server, request(made[MODEST], "PUT", f"{MAPS}/big", body), 1)
            assert code == 200
            most = max(most, resident(server))
        lines = await reading
        await asyncio.sleep(3)  # longer than a client may take nothing
        [(code, _)] = await asked(server, request(made[MODEST], "PUT", f"{MAPS}/big", config_map("big", 10)), 1)
        assert code == 200
        cut = 0
        for one, other in dead:
            async with asyncio.timeout(10):
                while await one.read(2**20):
                    pass
            cut += 1
            other.close()
        writer.close()
        return lines, most - before, cut

    with server_with_users(tmp_path, stall_seconds="1") as (server, made):
        lines, growth, cut = asyncio.run(run(server, made))
    assert lines == EVENTS + 1, "who reads sees everything"
    assert cut == WATCHERS
    assert growth < 150 * 2**20, f"{growth / 2**20:.0f} MiB"

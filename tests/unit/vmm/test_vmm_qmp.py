"""The control connection against VMMs that behave, die, stay silent or talk nonsense."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cuboid.lib.errors import CuboidError, DeadlineError, UnavailableError
from cuboid.vmm.qemu.qmp import Qmp, QmpRefusedError

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 0, "major": 10}, "package": ""}, "capabilities": []}}
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def message(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\r\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, replies: Mapping[str, Any]) -> None:
    """A VMM: greets, agrees, answers each command from `replies`; None cuts the connection."""
    writer.write(message(GREETING))
    while line := await reader.read(65536):  # requests end without a newline
        request = json.loads(line)
        reply = {"qmp_capabilities": {"return": {}}, **replies}.get(request["execute"], {"return": {}})
        if reply is None:
            break
        for event in reply.get("events", ()):
            writer.write(message({"timestamp": {"seconds": 1, "microseconds": 0}, **event}))
        writer.write(message({key: value for key, value in reply.items() if key != "events"} | _id_of(request)))
    writer.close()


def _id_of(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": request["id"]} if "id" in request else {}


@asynccontextmanager
async def vmm(serve: Serve, *, seconds: float = 2.0) -> AsyncIterator[tuple[Qmp, list[tuple[str, Any]]]]:
    events: list[tuple[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="cbd-") as folder:
        path = Path(folder, "qmp.sock")
        server = await asyncio.start_unix_server(serve, str(path))
        qmp = Qmp(path, lambda name, data: events.append((name, data)), seconds=seconds)
        try:
            yield qmp, events
        finally:
            await qmp.close()
            server.close()
            await server.wait_closed()


def serving(**replies: Any) -> Serve:
    return lambda reader, writer: answer(reader, writer, {key.replace("_", "-"): v for key, v in replies.items()})


async def test_a_command_is_answered_and_its_events_are_handed_over() -> None:
    event = {"event": "SHUTDOWN", "data": {"reason": "guest-shutdown"}}
    async with vmm(serving(query_status={"return": {"status": "running"}, "events": [event]})) as (qmp, events):
        await qmp.connect()
        assert await qmp.execute("query-status") == {"status": "running"}
        assert events == [("SHUTDOWN", {"reason": "guest-shutdown"})]


async def test_an_event_without_data_or_with_nonsense_for_data_has_none() -> None:
    bad = [{"event": "STOP"}, {"event": "STOP", "data": [1]}, {"event": "STOP", "data": "x"}]
    async with vmm(serving(cont={"return": {}, "events": bad})) as (qmp, events):
        await qmp.connect()
        await qmp.execute("cont")
        assert events == [("STOP", {})] * 3


async def test_a_refusal_is_told_from_a_vmm_that_is_gone() -> None:
    async with vmm(serving(cont={"error": {"class": "GenericError", "desc": "not now"}})) as (qmp, _):
        await qmp.connect()
        with pytest.raises(QmpRefusedError, match="not now"):
            await qmp.execute("cont")


async def test_a_cut_connection_is_made_again_once() -> None:
    served: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(1)
        await answer(reader, writer, {"cont": None} if len(served) == 1 else {})

    async with vmm(serve) as (qmp, _):
        await qmp.connect()
        assert await qmp.execute("cont") == {}
        assert len(served) == 2


async def test_a_vmm_that_always_cuts_the_connection_is_unavailable() -> None:
    async with vmm(serving(cont=None)) as (qmp, _):
        await qmp.connect()
        with pytest.raises(UnavailableError, match="cont"):
            await qmp.execute("cont")


async def test_no_vmm_is_unavailable() -> None:
    qmp = Qmp(Path("/nonexistent/qmp.sock"), lambda name, data: None, seconds=1.0)
    with pytest.raises(UnavailableError):
        await qmp.connect()


async def test_a_silent_vmm_is_given_up_at_the_deadline() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with vmm(silent, seconds=0.1) as (qmp, _):
        with pytest.raises(DeadlineError, match="greeting"):
            await qmp.connect()


@pytest.mark.parametrize(
    "noise",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b"null\n",
        b"\xff\xfe\n",
        b"{" * 5000 + b"\n",
        b'{"QMP": 1}\n',
        b'{"event": 5}\n',
        b"x" * 100_000,
    ],
)
async def test_nonsense_from_a_vmm_is_an_error_and_never_a_crash(noise: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(noise)
        await reader.read(100)
        writer.close()

    async with vmm(talk, seconds=0.5) as (qmp, _):
        with pytest.raises(CuboidError):
            await qmp.connect()


@pytest.mark.parametrize(
    "noise", [b"[]\r\n", b"garbage\r\n", b'{"return": {}}\r\n', b'{"event": 5}\r\n', b"{" * 5000 + b"\n"]
)
async def test_nonsense_after_the_greeting_is_an_error_and_never_a_crash(noise: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(message(GREETING))
        request = json.loads(await reader.read(65536))
        writer.write(message({"return": {}, **_id_of(request)}))
        await reader.read(65536)
        writer.write(noise)
        await reader.read(100)
        writer.close()

    async with vmm(talk, seconds=0.3) as (qmp, _):
        await qmp.connect()
        with pytest.raises(CuboidError):
            await qmp.execute("query-status")

"""`stats`, `events`, `port`."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Annotated, Any

import typer

from cuboid.cli import common, status
from cuboid.cli.api import Api, node_path, pods_path
from cuboid.cli.output import Format, age, print_lines, show, size, table
from cuboid.lib.errors import ConflictError, InvalidError, NotFoundError

Object = dict[str, Any]


def register(app: typer.Typer) -> None:
    app.command("stats", help="What pods use.\n\nExample: cuboid stats --follow")(stats)
    app.command("events", help="What happened to pods.\n\nExample: cuboid events web")(events)
    app.command("port", help="Show published ports, or forward one.\n\nExample: cuboid port web 8081:80")(port)


def _usage(api: Api, namespace: str, names: list[str]) -> Object:
    """Rows of containers as `items`, rows of their machines as `machines`."""
    found: dict[str, list[Object]] = {"items": [], "machines": []}
    for node in api.get("/api/v1/nodes")["items"]:
        answer = api.get(node_path(node["metadata"]["name"], f"/cuboid/v1/stats/{namespace}"), machines="true")
        for kind, rows in found.items():
            rows += [row for row in answer.get(kind, []) if not names or row["pod"] in names]
    return found


def stats(
    pods: Annotated[list[str] | None, typer.Argument(metavar="[POD]…", autocompletion=common.complete_pods)] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show it anew every two seconds.")] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    names = list(pods or [])
    for name in names:
        common.get_pod(api, namespace, name)
    while True:
        found = _usage(api, namespace, names)
        if follow and output is Format.TABLE:
            print("\033[H\033[J", end="")
        wide = output is Format.WIDE
        show(found, output, lambda found=found, wide=wide: _stats_table(found, wide))  # type: ignore[misc]
        if not follow:
            return
        time.sleep(2)


def _stats_table(found: Object, wide: bool) -> None:
    """The host's memory is of the pod's machine: it stands in the pod's first row. A paused pod has that alone."""
    machines = {row["pod"]: row for row in found["machines"]}
    rows, seen = [], set()
    for row in found["items"]:
        machine = machines.get(row["pod"], {}) if row["pod"] not in seen else {}
        seen.add(row["pod"])
        rows.append([*_stats_row(row), *_machine_cells(machine, wide)])
    for name in sorted(machines.keys() - seen):
        rows.append([name, *["-"] * 7, *_machine_cells(machines[name], wide)])
    columns = ("POD", "CONTAINER", "CPU", "MEMORY", "LIMIT", "PIDS", "DISK READ", "DISK WRITTEN", "HOST MEMORY")
    table([*columns, *(("GUEST PAGES", "CODE", "VMM") if wide else ())], sorted(rows, key=lambda row: str(row[0])))


def _machine_cells(machine: Object, wide: bool) -> list[object]:
    """What the host gives for one machine: in all, and of it guest's pages, translated code, the VMM's own."""
    names = ("privateBytes", *(("guestBytes", "translationBytes", "vmmBytes") if wide else ()))
    return [size(machine[name]) if name in machine else "-" for name in names]


def _stats_row(row: Object) -> list[object]:
    limit = row.get("memoryLimitBytes") or 0
    cpu = f"{row.get('cpuMillicores', 0):.0f}m"
    memory, pids = size(row.get("memoryBytes", 0)), row.get("pids", 0)
    return [row["pod"], row["container"], cpu, memory, size(limit) if limit else "-", pids,
            size(row.get("readBytes", 0)), size(row.get("writtenBytes", 0))]  # fmt: skip


def events(
    pod: Annotated[str, typer.Argument(metavar="[POD]", autocompletion=common.complete_pods)] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens.")] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    path = f"/api/v1/namespaces/{namespace}/events"
    query = {"fieldSelector": f"involvedObject.name={pod}"} if pod else {}
    answer = api.get(path, **query)
    items = sorted(answer["items"], key=_when)
    show({**answer, "items": items}, output, lambda: _events_table(items))
    if not follow:
        return
    for kind, row in api.watch(path, version=answer["metadata"]["resourceVersion"]):
        if kind in ("ADDED", "MODIFIED") and (not pod or row.get("involvedObject", {}).get("name") == pod):
            show(row, output, lambda row=row: print("  ".join(str(cell) for cell in _event_row(row)), flush=True))  # type: ignore[misc]


def _when(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")


def _event_row(row: Object) -> list[object]:
    about = row.get("involvedObject", {})
    times = f" (x{row['count']})" if int(row.get("count") or 1) > 1 else ""
    text = str(row.get("message", "")) + times
    return [age(_when(row)), row.get("type", ""), row.get("reason", ""), about.get("name", ""), text]


def _events_table(items: list[Object]) -> None:
    table(("AGE", "TYPE", "REASON", "POD", "MESSAGE"), [_event_row(row) for row in items], coloured="REASON")


def port(
    pod: common.PodName,
    forward: Annotated[
        str, typer.Argument(metavar="[LOCAL:REMOTE]", help="Forward a port of this machine to the pod.")
    ] = "",
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    found = common.get_pod(api, namespace, pod)
    if not forward:
        rows = status.ports(found)
        items = [{"host": outside, "container": inside} for outside, inside in rows]
        show({"items": items}, output, lambda: print_lines(f"{inside} -> {outside}" for outside, inside in rows))
        return
    local, _, remote = forward.partition(":")
    if not (local.isdigit() and (remote or local).isdigit()):
        raise InvalidError(f"{forward}: not a port pair", hint="like 8081:80")
    if "running" not in status.main_status(found).get("state", {}):
        raise ConflictError(f"{pod} does not run", hint=f"cuboid why {pod}")
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(api, pods_path(namespace, pod, "portforward"), int(local), int(remote or local)))


async def _serve(api: Api, path: str, local: int, remote: int) -> None:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _forward(api, path, remote, reader, writer)

    try:
        server = await asyncio.start_server(one, "127.0.0.1", local)
    except OSError as error:
        raise ConflictError(
            f"port {local} of this machine is taken: {error.strerror}", hint="choose another LOCAL"
        ) from error
    bound = server.sockets[0].getsockname()[1]
    print(f"Forwarding from 127.0.0.1:{bound} -> {remote}", flush=True)
    async with server:
        await server.serve_forever()


async def _forward(
    api: Api, path: str, remote: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One TCP connection over one WebSocket: channel 0 is data, 1 an error; the first frame of each tells the port."""
    from websockets.exceptions import ConnectionClosed

    from cuboid.cli.tunnel import open_tunnel

    async def upwards() -> None:
        with suppress(ConnectionClosed, ConnectionError):
            while data := await reader.read(65536):
                await socket.send(b"\x00" + data)
            await socket.close()

    socket = await open_tunnel(api, path, remote)
    greeted: set[int] = set()
    async with asyncio.TaskGroup() as group:
        feeder = group.create_task(upwards(), name="upwards")
        try:
            async for message in socket:
                data = message.encode() if isinstance(message, str) else message
                if not data or data[0] not in greeted:
                    greeted.update(data[:1])
                elif data[0] == 0:
                    writer.write(data[1:])
                    await writer.drain()
                else:
                    raise NotFoundError(data[1:].decode(errors="replace"))
        except (ConnectionClosed, ConnectionError, NotFoundError) as error:
            if isinstance(error, NotFoundError):
                print(f"cuboid: {error.message}", flush=True)
        finally:
            feeder.cancel()
            writer.close()

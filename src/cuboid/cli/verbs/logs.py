"""`cuboid logs`: of one container, or of all of a pod's, told apart by their names."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import typer

from cuboid.cli import common, rollouts, status, target, waiting
from cuboid.cli.api import Api, pods_path
from cuboid.cli.output import Format
from cuboid.lib.errors import InvalidError, NotFoundError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LINE_LIMIT = 1 << 20  # bytes of a line that are held back until its end


def register(app: typer.Typer) -> None:
    app.command("logs", help="Print what a container wrote.\n\nExample: cuboid logs -f --tail 20 web")(logs)


def logs(
    pod: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A pod; or a deployment or job: all its pods, each line after its pod.",
            autocompletion=target.complete_with_pods,
        ),
    ],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    tail: Annotated[int, typer.Option("--tail", help="Only the last lines.", show_default="all")] = -1,
    since: Annotated[str, typer.Option("--since", help="Only newer than, like 10m or an RFC 3339 time.")] = "",
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="With the time of each line.")] = False,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the run before the last restart.")] = False,
    everything: Annotated[
        bool, typer.Option("--all-containers", "-a", help="Of every container, each line after its name.")
    ] = False,
    container: common.Container = "",
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    if everything and container:
        raise InvalidError("-a and -c exclude each other")
    api, namespace = common.connect(namespace)
    resource, found = target.find(api, namespace, pod, target.WITH_PODS)
    query = _since(since) | ({"tailLines": str(tail)} if tail >= 0 else {})
    as_json = output is Format.JSON
    for name, wanted in (("follow", follow), ("timestamps", timestamps or as_json), ("previous", previous)):
        query |= {name: "true"} if wanted else {}
    if resource.kind != "Pod":
        seen = waiting.look(api, resource, namespace, found["metadata"]["name"])
        _print_all(api, _logs_of(seen, container), query, as_json)
        return
    path = pods_path(namespace, found["metadata"]["name"], "log")
    if not everything:
        _print(api, path, query | {"container": common.choose_container(found, container)}, as_json)
        return
    _print_all(api, [(name, path, name) for name in common.container_names(found)], query, as_json)


def _logs_of(seen: waiting.Seen, container: str) -> list[tuple[str, str, str]]:
    """(name, path, container) of each pod that has started; NotFoundError where none has."""
    owners = [seen.workload, *seen.sets]
    pods = [pod for owner in owners for pod in rollouts.owned(seen.pods, owner) if status.started(pod)]
    if not pods:
        raise NotFoundError(
            f"no pod of {seen.workload['metadata']['name']} has written anything yet", hint="cuboid ps -a shows them"
        )
    namespace = seen.workload["metadata"]["namespace"]
    names = [pod["metadata"]["name"] for pod in pods]
    chosen = [common.choose_container(pod, container) for pod in pods]
    return [(name, pods_path(namespace, name, "log"), which) for name, which in zip(names, chosen, strict=True)]


def _print_all(api: Api, rows: list[tuple[str, str, str]], query: dict[str, str], as_json: bool) -> None:
    """Logs side by side, each line after its name."""
    width = max(len(name) for name, _, _ in rows)
    with ThreadPoolExecutor(len(rows)) as threads:
        jobs = [
            threads.submit(_print_named, api, path, query | {"container": container}, name, width, as_json)
            for name, path, container in rows
        ]
    for job in jobs:
        job.result()


def _print(api: Api, path: str, query: dict[str, str], as_json: bool) -> None:
    if as_json:
        for line in _lines(api, path, query):
            sys.stdout.buffer.write(_as_json(line))
            sys.stdout.buffer.flush()
        return
    with api.stream("GET", path, query=query) as response:
        while piece := response.read1(65536):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def _print_named(api: Api, path: str, query: dict[str, str], name: str, width: int, as_json: bool) -> None:
    prefix = f"{name.ljust(width)} | ".encode()
    for line in _lines(api, path, query):
        sys.stdout.buffer.write(_as_json(line, name) if as_json else prefix + line)
        sys.stdout.buffer.flush()


def _lines(api: Api, path: str, query: dict[str, str]) -> Iterator[bytes]:
    """Whole lines, each with its end; one without an end gets one."""
    with api.stream("GET", path, query=query) as response:
        while line := response.readline(LINE_LIMIT):
            yield line if line.endswith(b"\n") else line + b"\n"


def _as_json(line: bytes, container: str = "") -> bytes:
    stamp, _, text = line.rstrip(b"\n").partition(b" ")
    row = {"container": container} if container else {}
    row |= {"time": stamp.decode(errors="replace"), "log": text.decode(errors="replace")}
    return json.dumps(row).encode() + b"\n"


def _since(text: str) -> dict[str, str]:
    if not text:
        return {}
    if text[:-1].isdigit() and text[-1] in UNITS:
        return {"sinceSeconds": str(int(text[:-1]) * UNITS[text[-1]])}
    if "T" in text:
        return {"sinceTime": text}
    raise InvalidError(f"--since {text}: not a time", hint="like 30s, 10m, 2h or 2026-01-02T03:04:05Z")

"""`cuboid logs`: of one container, or of all of a pod's, told apart by their names."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Annotated, Any

import typer

from cuboid.cli import common, jobs, rollouts, status, target, waiting
from cuboid.cli.api import Api, pods_path
from cuboid.cli.output import Format
from cuboid.cli.podlogs import Logs, after_name
from cuboid.cli.resources import Resource
from cuboid.lib.errors import InvalidError, NotFoundError

Object = dict[str, Any]
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
        _of_workload(api, resource, found, query, container, as_json)
        return
    path = pods_path(namespace, found["metadata"]["name"], "log")
    if not everything:
        _print(api, path, query | {"container": common.choose_container(found, container)}, as_json)
        return
    names = common.container_names(found)
    width = max(map(len, names))
    with ThreadPoolExecutor(len(names)) as threads:
        printing = [threads.submit(_print_named, api, path, query, name, width, as_json) for name in names]
    for one in printing:
        one.result()


def _of_workload(
    api: Api, resource: Resource, found: Object, query: dict[str, str], container: str, as_json: bool
) -> None:
    """Each line behind its pod; with `follow`, of pods that come later too, until a job has ended."""
    namespace, name = found["metadata"]["namespace"], found["metadata"]["name"]
    follow = "follow" in query
    with Logs(api, namespace, query, _json_of if as_json else after_name) as printer, _until_interrupted(follow):
        for seen in waiting.looks(api, resource, namespace, name, jobs.FOREVER if follow else 0.0):
            pods = [pod for owner in (seen.workload, *seen.sets) for pod in rollouts.owned(seen.pods, owner)]
            printer.see(pods, container)
            if not follow and not any(status.started(pod) for pod in pods):
                raise NotFoundError(f"no pod of {name} has written yet", hint=f"cuboid logs -f {name} waits for it")
            if resource.kind == "Job" and jobs.ended(seen.workload):
                break
        printer.finish()


def _until_interrupted(follow: bool) -> AbstractContextManager[None]:
    """Whoever follows logs ends that with Ctrl-C, and means no failure."""
    return suppress(KeyboardInterrupt) if follow else nullcontext()


def _json_of(pod: str, line: bytes) -> bytes:
    row = {"pod": pod} | json.loads(_as_json(line))
    return json.dumps(row).encode() + b"\n"


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
    for line in _lines(api, path, query | {"container": name}):
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

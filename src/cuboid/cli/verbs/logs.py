"""`cuboid logs`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cuboid.cli import common
from cuboid.cli.api import pods_path
from cuboid.cli.output import Format
from cuboid.lib.errors import InvalidError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def register(app: typer.Typer) -> None:
    app.command("logs", help="Print what a container wrote.\n\nExample: cuboid logs -f --tail 20 web")(logs)


def logs(
    pod: common.PodName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    tail: Annotated[int, typer.Option("--tail", help="Only the last lines.")] = -1,
    since: Annotated[str, typer.Option("--since", help="Only newer than, like 10m or an RFC 3339 time.")] = "",
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="With the time of each line.")] = False,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="Of the run before the last restart.")] = False,
    container: common.Container = "",
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    found = common.get_pod(api, namespace, pod)
    query = {"container": common.choose_container(found, container), **_since(since)}
    query |= {"tailLines": str(tail)} if tail >= 0 else {}
    as_json = output is Format.JSON
    for name, wanted in (("follow", follow), ("timestamps", timestamps or as_json), ("previous", previous)):
        query |= {name: "true"} if wanted else {}
    with api.stream("GET", pods_path(namespace, pod, "log"), query=query) as response:
        while piece := response.read1(65536):
            sys.stdout.buffer.write(_as_json(piece) if as_json else piece)
            sys.stdout.buffer.flush()


def _as_json(piece: bytes) -> bytes:
    import json

    rows = (line.partition(b" ") for line in piece.splitlines())
    return b"".join(
        json.dumps({"time": stamp.decode(errors="replace"), "log": text.decode(errors="replace")}).encode() + b"\n"
        for stamp, _, text in rows
    )


def _since(text: str) -> dict[str, str]:
    if not text:
        return {}
    if text[:-1].isdigit() and text[-1] in UNITS:
        return {"sinceSeconds": str(int(text[:-1]) * UNITS[text[-1]])}
    if "T" in text:
        return {"sinceTime": text}
    raise InvalidError(f"--since {text}: not a time", hint="like 30s, 10m, 2h or 2026-01-02T03:04:05Z")

"""`cuboid exec`, `cuboid attach`, `cuboid top`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cuboid.cli import common, manifest, status, streams, target
from cuboid.cli.api import Api, pods_path
from cuboid.cli.output import Format, show, table
from cuboid.lib.errors import ConflictError, InvalidError

PROCESS_COLUMNS = ("PID", "USER", "STATE", "RSS", "COMMAND")
# Reads /proc with the shell alone: images without procps are common.
LIST_PROCESSES = (
    "for d in /proc/[0-9]*; do n=${d#/proc/}; [ -r $d/status ] || continue; u=-; s=-; r=0; "
    "while read -r k a b; do case $k in Uid:) u=$a;; State:) s=$a;; VmRSS:) r=$a;; esac; done <$d/status 2>/dev/null; "
    "c=$(tr '\\0' ' ' <$d/cmdline 2>/dev/null); printf '%s\\t%s\\t%s\\t%s\\t%s\\n' $n $u $s $r \"$c\"; done"
)


def register(app: typer.Typer) -> None:
    interspersed = {"allow_interspersed_args": False}
    app.command(
        "exec",
        help="Run a command in a pod.\n\nExample: cuboid exec -it -u www-data web sh",
        context_settings=interspersed,
    )(exec_)
    app.command("attach", help="Connect to a running container.\n\nExample: cuboid attach web (ctrl-p ctrl-q leaves)")(
        attach
    )
    app.command("top", help="Processes of a container.\n\nExample: cuboid top web")(top)


def exec_(
    pod: target.PodOf,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND…", help="The command and its arguments.")],
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Connect stdin.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal.")] = False,
    user: Annotated[str, typer.Option("--user", "-u", help="NAME or UID, with :GROUP if wanted.")] = "",
    workdir: Annotated[str, typer.Option("--workdir", "-w", help="Working directory.")] = "",
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="KEY=VALUE, or KEY for your own value.")] = None,
    container: common.Container = "",
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    if tty and not sys.stdin.isatty():
        raise InvalidError("-t needs a terminal as stdin", hint="leave -t out, or use -i alone")
    api, namespace = common.connect(namespace)
    query = _query(container, interactive, tty) + [("command", part) for part in command]
    query += [("env", row) for row in manifest.read_env(env or (), (), dict(os.environ))]
    query += [(key, value) for key, value in (("user", user), ("workingDir", workdir)) if value]
    path = pods_path(namespace, target.pod_of(api, namespace, pod), "exec")
    if output in (Format.JSON, Format.YAML):
        raise typer.Exit(_captured(api, path, query, output))
    raise typer.Exit(streams.run_stream(api, path, query, stdin=interactive, tty=tty) or 0)


def _query(container: str, stdin: bool, tty: bool) -> list[tuple[str, str]]:
    query = [
        ("stdout", "true"),
        ("stderr", str(not tty).lower()),
        ("stdin", str(stdin).lower()),
        ("tty", str(tty).lower()),
    ]
    return query + ([("container", container)] if container else [])


def _captured(api: Api, path: str, query: list[tuple[str, str]], output: Format) -> int:
    stdout, stderr, code = streams.capture(api, path, query)
    texts = {"stdout": stdout.decode(errors="replace"), "stderr": stderr.decode(errors="replace")}
    show({"exitCode": code, **texts}, output, lambda: None)
    return code


def attach(
    pod: common.PodName,
    container: common.Container = "",
    no_stdin: Annotated[bool, typer.Option("--no-stdin", help="Output only.")] = False,
    namespace: common.Namespace = "",
) -> None:
    api, namespace = common.connect(namespace)
    found = common.get_pod(api, namespace, pod)
    name = common.choose_container(found, container)
    spec = next(
        row for row in [*found["spec"]["containers"], *found["spec"].get("initContainers", [])] if row["name"] == name
    )
    if name == status.main_container(found) and "running" not in status.main_status(found).get("state", {}):
        raise ConflictError(f"container {name} of {pod} does not run", hint=f"cuboid logs {pod}")
    stdin, tty = bool(spec.get("stdin")) and not no_stdin, bool(spec.get("tty")) and sys.stdin.isatty()
    query = _query(name, stdin, bool(spec.get("tty")))
    path = pods_path(namespace, pod, "attach")
    raise typer.Exit(streams.run_stream(api, path, query, stdin=stdin, tty=tty) or 0)


def top(
    pod: common.PodName,
    container: common.Container = "",
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    query = _query(container, False, False) + [("command", part) for part in ("sh", "-c", LIST_PROCESSES)]
    stdout, stderr, code = streams.capture(api, pods_path(namespace, pod, "exec"), query)
    if code:
        raise ConflictError(
            f"the processes of {pod} cannot be read: {stderr.decode(errors='replace').strip() or f'exit code {code}'}",
            hint="the image needs a shell for that; cuboid stats works without",
        )
    rows = [line.split("\t") for line in stdout.decode(errors="replace").splitlines()]
    rows = [
        row for row in rows if len(row) == len(PROCESS_COLUMNS) and row[4].strip() and LIST_PROCESSES[:20] not in row[4]
    ]
    items = [dict(zip((name.lower() for name in PROCESS_COLUMNS), row, strict=True)) for row in rows]
    show({"items": items}, output, lambda: table(PROCESS_COLUMNS, [[*row[:3], f"{row[3]}KiB", row[4]] for row in rows]))

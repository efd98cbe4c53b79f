"""`pause` and `resume`: a pod's machine stands still with all its memory, and goes on."""

from __future__ import annotations

from typing import Any

import typer

from cuboid.cli import common, status
from cuboid.cli.output import Format, progress
from cuboid.cli.verbs.lifecycle import STATE, annotate, each, goes_on, running, wait
from cuboid.lib.errors import ConflictError

Object = dict[str, Any]
SECONDS = 60.0  # a container that is being started is waited for
PAUSED = "paused"  # of the annotation


def register(app: typer.Typer) -> None:
    app.command("pause", help="Let pods stand still; memory and connections stay.\n\nExample: cuboid pause web")(pause)
    app.command("resume", help="Let paused pods go on.\n\nExample: cuboid resume web")(resume)


def pause(pods: common.PodNames, namespace: common.Namespace = "", output: common.Output = Format.TABLE) -> None:
    api, namespace = common.connect(namespace)

    def act(name: str) -> Object:
        if not running(common.get_pod(api, namespace, name)):
            raise ConflictError(f"{name} does not run", hint=f"cuboid why {name}")
        annotate(api, namespace, name, {STATE: PAUSED})
        with progress() as line:
            line.update(f"pausing {name}")
            return wait(api, namespace, name, status.paused, "paused", SECONDS)

    each(pods, output, act)


def resume(pods: common.PodNames, namespace: common.Namespace = "", output: common.Output = Format.TABLE) -> None:
    api, namespace = common.connect(namespace)

    def act(name: str) -> Object:
        wanted = common.get_pod(api, namespace, name)["metadata"].get("annotations", {}).get(STATE, "")
        if wanted != PAUSED:
            how = f"cuboid start {name}" if wanted else f"cuboid pause {name} pauses it"
            raise ConflictError(f"{name} is not paused", hint=how)
        annotate(api, namespace, name, {STATE: None})
        with progress() as line:
            line.update(f"resuming {name}")
            return wait(api, namespace, name, goes_on, "running", SECONDS)

    each(pods, output, act)

"""`stop`, `start`, `restart`, `rm`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from cuboid.cli import common, status
from cuboid.cli.api import Api, pods_path
from cuboid.cli.output import Format, progress, show
from cuboid.lib.clock import rfc3339_micro
from cuboid.lib.errors import ConflictError, CuboidError, DeadlineError, NotFoundError

Object = dict[str, Any]
STATE = "cuboid.dev/state"
RESTARTED = "cuboid.dev/restartedAt"
STOP_SECONDS = "cuboid.dev/stop-seconds"
MARGIN = 30.0  # seconds beyond a pod's own grace period before a verb gives up


def register(app: typer.Typer) -> None:
    app.command("stop", help="Stop pods; their disks stay.\n\nExample: cuboid stop -t 5 web")(stop)
    app.command("start", help="Start stopped pods again.\n\nExample: cuboid start web")(start)
    app.command("restart", help="Stop and start the containers of pods.\n\nExample: cuboid restart web")(restart)
    app.command("rm", help="Remove pods and their disks; named volumes stay.\n\nExample: cuboid rm -f web")(rm)


Grace = Annotated[
    int | None,
    typer.Option(
        "--time", "-t", min=0, max=999_999, help="Seconds from SIGTERM to SIGKILL.", show_default="the pod's own"
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait until it runs.")]


def annotate(api: Api, namespace: str, name: str, values: dict[str, str | None]) -> Object:
    common.get_pod(api, namespace, name)
    patched: Object = api.patch(pods_path(namespace, name), {"metadata": {"annotations": values}})
    return patched


def _grace(pod: Object, asked: int | None) -> float:
    return float(pod["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked)


def _seconds(asked: int | None) -> dict[str, str | None]:
    """The annotation for one stop; without -t, what an earlier one has left is taken away."""
    return {STOP_SECONDS: None if asked is None else str(asked)}


def wait(api: Api, namespace: str, name: str, done: Callable[[Object], bool], what: str, seconds: float) -> Object:
    """The pod once `done` says so; looks again at each change."""
    until = time.monotonic() + seconds
    pod = common.get_pod(api, namespace, name)
    while time.monotonic() < until:
        if done(pod):
            return pod
        version = pod["metadata"]["resourceVersion"]
        for kind, found in api.watch(
            pods_path(namespace), name=name, version=version, timeout=until - time.monotonic()
        ):
            if kind == "DELETED":
                raise NotFoundError(f"pod {name} was removed meanwhile")
            if kind != "BOOKMARK" and done(found):
                return found
        pod = common.get_pod(api, namespace, name)
    raise DeadlineError(f"{name} is not {what} after {seconds:g} s", hint=f"cuboid why {name}")


def _stopped(pod: Object) -> bool:
    rows = pod.get("status", {}).get("containerStatuses", [])
    return status.word(pod) == "Stopped" or (bool(rows) and all("running" not in row.get("state", {}) for row in rows))


def running(pod: Object) -> bool:
    return "running" in status.main_status(pod).get("state", {})


def goes_on(pod: Object) -> bool:
    return running(pod) and not status.paused(pod)


def each(names: list[str], output: Format, act: Callable[[str], Object]) -> None:
    done = []
    for name in names:
        done.append(act(name))
        if output not in (Format.JSON, Format.YAML):
            print(name, flush=True)
    if output in (Format.JSON, Format.YAML):
        show(done if len(done) > 1 else done[0], output, lambda: None)


def stop(
    pods: common.PodNames,
    seconds: Grace = None,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)

    def act(name: str) -> Object:
        pod = annotate(api, namespace, name, {STATE: "stopped", **_seconds(seconds)})
        with progress() as line:
            line.update(f"stopping {name}")
            return wait(api, namespace, name, _stopped, "stopped", _grace(pod, seconds) + MARGIN)

    each(pods, output, act)


def start(
    pods: common.PodNames, timeout: Timeout = 60, namespace: common.Namespace = "", output: common.Output = Format.TABLE
) -> None:
    api, namespace = common.connect(namespace)

    def act(name: str) -> Object:
        pod = common.get_pod(api, namespace, name)
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            raise ConflictError(
                f"{name} has ended and cannot be started again", hint="run it anew, or use --restart always"
            )
        annotate(api, namespace, name, {STATE: None})
        with progress() as line:
            line.update(f"starting {name}")
            return wait(api, namespace, name, goes_on, "running", timeout)

    each(pods, output, act)


def restart(
    pods: common.PodNames,
    seconds: Grace = None,
    timeout: Timeout = 60,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)

    def act(name: str) -> Object:
        found = common.get_pod(api, namespace, name)
        before = status.main_status(found).get("containerID", "")
        wanted = {RESTARTED: rfc3339_micro(time.time()), **_seconds(seconds)}
        if status.paused(found):
            wanted[STATE] = None  # it goes on first: a machine that stands still restarts nothing
        annotate(api, namespace, name, wanted)
        with progress() as line:
            line.update(f"restarting {name}")
            again = lambda pod: running(pod) and status.main_status(pod).get("containerID", "") != before  # noqa: E731
            return wait(api, namespace, name, again, "restarted", _grace(found, seconds) + timeout)

    each(pods, output, act)


def rm(
    pods: Annotated[list[str] | None, typer.Argument(metavar="POD…", autocompletion=common.complete_pods)] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Running pods as well, at once; no error if there is none.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Every pod of the namespace.")] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    names = (
        [row["metadata"]["name"] for row in api.get(pods_path(namespace))["items"]] if everything else list(pods or [])
    )

    def act(name: str) -> Object:
        with progress() as line:
            line.update(f"removing {name}")
            return _remove(api, namespace, name, force)

    if names:
        each(names, output, act)


def _remove(api: Api, namespace: str, name: str, force: bool) -> Object:
    try:
        pod = common.get_pod(api, namespace, name)
        if not force and running(pod):
            raise ConflictError(f"{name} runs", hint=f"cuboid stop {name} first, or cuboid rm -f {name}")
        api.delete(pods_path(namespace, name), {"gracePeriodSeconds": 1} if force else None)
        grace = 1.0 if force else float(pod["spec"].get("terminationGracePeriodSeconds", 30))
        wait(api, namespace, name, lambda _: False, "removed", grace + MARGIN)
    except NotFoundError:
        if not force and "pod" not in locals():
            raise
    except DeadlineError as error:
        raise CuboidError(f"{name} is still being removed", hint=f"cuboid why {name}") from error
    return {"kind": "Pod", "metadata": {"name": name, "namespace": namespace}}

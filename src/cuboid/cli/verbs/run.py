"""`cuboid run`: an image in a pod of its own, in the foreground or not."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from cuboid.cli import common, manifest, pull_secret, status, terminal
from cuboid.cli.api import Api, pods_path
from cuboid.cli.output import Format, Progress, clean, progress, show
from cuboid.lib.errors import ConflictError, CuboidError, DeadlineError, InvalidError, NotFoundError

Object = dict[str, Any]
PLATFORM_FAILED = 125  # Docker's: the platform, not the container, failed
REMOVAL_SECONDS = 60.0  # for a pod to be gone
EXAMPLE = """Run an image in a virtual machine of its own.

Example: cuboid run --name web -d -p 8080:80 localhost:5000/demo/nginx:1
"""
PROBLEMS_THAT_STAY = {
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError",
    "CreateContainerError", "RunContainerError", "Unschedulable", "VolumeInUse", "DiskPressure",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    app.command("run", help=EXAMPLE, context_settings={"allow_interspersed_args": False})(run)


def run(
    image: Annotated[
        str, typer.Argument(metavar="IMAGE", help="Image, like debian:12 or localhost:5000/demo/nginx:1.")
    ],
    args: Annotated[list[str] | None, typer.Argument(metavar="[COMMAND]…", help="Replaces the image's CMD.")] = None,
    name: Annotated[str, typer.Option("--name", help="Name of the pod; invented if not given.")] = "",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it runs.")] = False,
    interactive: Annotated[bool, typer.Option("--interactive", "-i", help="Connect stdin.")] = False,
    tty: Annotated[bool, typer.Option("--tty", "-t", help="Give it a terminal.")] = False,
    rm: Annotated[bool, typer.Option("--rm", help="Remove the pod when it has ended.")] = False,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="KEY=VALUE, or KEY for your own value.")] = None,
    env_file: Annotated[list[str] | None, typer.Option("--env-file", help="File of KEY=VALUE lines.")] = None,
    volume: Annotated[list[str] | None, typer.Option("--volume", "-v", help="NAME:/path[:ro], a named volume.")] = None,
    publish: Annotated[list[str] | None, typer.Option("--publish", "-p", help="[IP:]HOST:CONTAINER[/udp].")] = None,
    cpus: Annotated[str, typer.Option("--cpus", help="Limit, like 0.5 or 2.")] = "",
    memory: Annotated[str, typer.Option("--memory", "-m", help="Limit, like 256m or 1g.")] = "",
    disk: Annotated[str, typer.Option("--disk", help="Size of the writable layer, like 2g.")] = "",
    entrypoint: Annotated[str | None, typer.Option("--entrypoint", help="Replaces the image's ENTRYPOINT.")] = None,
    workdir: Annotated[str, typer.Option("--workdir", "-w", help="Working directory.")] = "",
    user: Annotated[str, typer.Option("--user", "-u", help="NAME or UID, with :GROUP if wanted.")] = "",
    restart: Annotated[str, typer.Option("--restart", help="no, on-failure or always.")] = "no",
    init_timeout: Annotated[
        float, typer.Option("--init-timeout", help="Seconds it may take to start; then it fails.")
    ] = 0,
    label: Annotated[list[str] | None, typer.Option("--label", "-l", help="KEY=VALUE.")] = None,
    pull: Annotated[str, typer.Option("--pull", help="missing, always or never.")] = "missing",
    privileged: Annotated[bool, typer.Option("--privileged", help="All rights inside its own machine.")] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="Root file system read-only.")] = False,
    cap_add: Annotated[list[str] | None, typer.Option("--cap-add", help="Add a capability.")] = None,
    cap_drop: Annotated[list[str] | None, typer.Option("--cap-drop", help="Drop a capability.")] = None,
    tmpfs: Annotated[list[str] | None, typer.Option("--tmpfs", help="/path[:SIZE] in memory.")] = None,
    hostname: Annotated[str, typer.Option("--hostname", help="Host name; the pod's name if not given.")] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    if detach and rm:
        raise InvalidError("-d and --rm exclude each other", hint="remove it later with: cuboid rm -f NAME")
    if tty and not detach and not sys.stdin.isatty():
        raise InvalidError("-t needs a terminal as stdin", hint="leave -t out, or use -i alone")
    api, namespace = common.connect(namespace)
    rows, columns = terminal.size() if tty else (0, 0)
    options = manifest.RunOptions(
        image=image, args=tuple(args or ()), name=name, namespace=namespace, tty=tty, stdin=interactive,
        env=manifest.read_env(env or (), env_file or (), dict(os.environ)), volumes=tuple(volume or ()),
        ports=tuple(publish or ()), cpus=cpus, memory=memory, disk=disk, entrypoint=entrypoint, workdir=workdir,
        user=user, restart=restart, init_timeout=init_timeout, labels=tuple(label or ()), pull=pull,
        privileged=privileged, read_only=read_only, cap_add=tuple(cap_add or ()), cap_drop=tuple(cap_drop or ()),
        tmpfs=tuple(tmpfs or ()), hostname=hostname, tty_size=f"{rows}x{columns}" if tty else "",
        attach=not detach,
        pull_secret=pull_secret.ensure(api, namespace, image),
    )  # fmt: skip
    wanted = manifest.pod(options)
    try:
        pod = api.post(pods_path(namespace), wanted)
    except CuboidError as error:
        if error.reason == "AlreadyExists":
            taken = wanted["metadata"]["name"]
            raise ConflictError(
                f"the name {taken!r} is taken", hint=f"choose another, or: cuboid rm -f {taken}"
            ) from error
        raise
    code = _detached(api, pod, quiet, output) if detach else _foreground(api, pod, options, quiet, rm)
    raise typer.Exit(code)


def _detached(api: Api, pod: Object, quiet: bool, output: Format) -> int:
    with progress(quiet) as line:
        pod = wait_started(api, pod, line)
    failed = failure(pod)
    if failed:
        return _give_up(api, pod, failed)
    if output is Format.TABLE:
        print(pod["metadata"]["name"])
    else:
        show(pod, output, lambda: print(pod["metadata"]["name"]))
    return 0


def _foreground(api: Api, pod: Object, options: manifest.RunOptions, quiet: bool, rm: bool) -> int:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    try:
        with progress(quiet) as line:
            pod = wait_started(api, pod, line)
        failed = failure(pod)
        if failed:
            return _give_up(api, pod, failed)
        return _follow(api, pod, options)
    except KeyboardInterrupt:
        if not rm:
            print(f"cuboid: {name} runs on (cuboid logs -f {name}, cuboid rm -f {name})", file=sys.stderr)
        return 130
    finally:
        if rm:
            _remove(api, namespace, name)


def _follow(api: Api, pod: Object, options: manifest.RunOptions) -> int:
    """The container's output until its end; its exit code."""
    from cuboid.cli import streams

    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    container = status.main_container(pod)
    query = [
        ("container", container),
        ("stdout", "true"),
        ("stderr", str(not options.tty).lower()),
        ("history", "true"),
    ]
    query += [("stdin", str(options.stdin).lower()), ("tty", str(options.tty).lower())]
    shown: Counter[int] = Counter()
    if "running" in status.main_status(pod).get("state", {}):
        path = pods_path(namespace, name, "attach")
        try:
            code = streams.run_stream(api, path, query, stdin=options.stdin, tty=options.tty, shown=shown)
            return 0 if code is None else wait_ended(api, pod)
        except CuboidError:  # it ended before we were there, or its machine while we looked: the log has the rest
            wait_ended(api, pod)
    print_log(api, namespace, name, container, options.tty, shown)
    return wait_ended(api, pod)


def print_log(api: Api, namespace: str, name: str, container: str, tty: bool, shown: Counter[int]) -> None:
    """What the container has written, each stream to its own, without the first `shown` bytes of each."""
    streams = ((1, "Stdout", sys.stdout), *(() if tty else ((2, "Stderr", sys.stderr),)))
    for number, stream, target in streams:
        skip = shown[number]
        query = {"container": container, "stream": stream}
        with api.stream("GET", pods_path(namespace, name, "log"), query=query) as response:
            while piece := response.read(65536):
                target.buffer.write(piece[skip:])
                skip = max(0, skip - len(piece))
        target.buffer.flush()


def versions(api: Api, pod: Object, seconds: float) -> Iterator[Object]:
    """The pod as it is and each time it changes; NotFoundError when it is removed, DeadlineError after `seconds`."""
    namespace, name, uid = (pod["metadata"][key] for key in ("namespace", "name", "uid"))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield pod
        version = pod["metadata"]["resourceVersion"]
        for kind, found in api.watch(
            pods_path(namespace), name=name, version=version, timeout=until - time.monotonic()
        ):
            if kind == "BOOKMARK" or found["metadata"].get("uid") != uid:
                continue
            if kind == "DELETED":
                raise NotFoundError(f"pod {name} was removed")
            pod = found
            yield pod
        pod = api.get(pods_path(namespace, name))
    raise DeadlineError(f"pod {name} took longer than {seconds:g} s", hint=f"cuboid why {name}")


def wait_started(api: Api, pod: Object, line: Progress, seconds: float = 1800.0) -> Object:
    """The pod once its first container has started or something has gone wrong that will not mend itself."""
    for version in versions(api, pod, seconds):
        if status.started(version) or failure(version):
            return version
        line.update(_step(version, status.word(version)))
    raise AssertionError("unreachable")


def _step(pod: Object, word: str) -> str:
    if not pod["spec"].get("nodeName"):
        return "waiting for a node"
    waiting = status.main_status(pod).get("state", {}).get("waiting", {})
    return str(waiting.get("message") or {"ContainerCreating": "starting", "Pending": "starting"}.get(word, word))


def failure(pod: Object) -> tuple[str, str] | None:
    """(reason, message) if the pod will not run: it failed before its container ran, or has a lasting problem."""
    state = status.main_status(pod).get("state", {})
    if pod.get("status", {}).get("phase") == "Failed" and not _ran(state):
        return status.problem(pod) or ("Failed", "the pod failed")
    problem = status.problem(pod)
    return problem if problem and problem[0] in PROBLEMS_THAT_STAY else None


def _ran(state: Object) -> bool:
    ended = state.get("terminated", {})
    return bool(ended.get("startedAt")) and ended.get("reason") not in ("ContainerCannotRun", "StartError")


def _give_up(api: Api, pod: Object, failed: tuple[str, str]) -> int:
    """Say why; a pod that would be tried again later is removed: its command has failed. One that failed is kept."""
    if pod.get("status", {}).get("phase") != "Failed":
        _remove(api, pod["metadata"]["namespace"], pod["metadata"]["name"])
    return _tell(pod, failed)


def _tell(pod: Object, failed: tuple[str, str]) -> int:
    """Say why the pod does not run; Docker's exit codes: 127 no such command, 126 not executable, else 125."""
    name = pod["metadata"]["name"]
    print(f"cuboid: {name}: {clean(failed[1])} [{failed[0]}]", file=sys.stderr)
    ended = status.main_status(pod).get("state", {}).get("terminated", {})
    return int(ended["exitCode"]) if ended.get("exitCode") in (126, 127) else PLATFORM_FAILED


def wait_ended(api: Api, pod: Object) -> int:
    """The first container's exit code once the pod has ended; with restarts, of the run that we saw."""
    if pod["spec"].get("restartPolicy") != "Never":
        return 0
    for version in versions(api, api.get(pods_path(pod["metadata"]["namespace"], pod["metadata"]["name"])), 60.0):
        if (code := status.exit_code(version)) is not None:
            return code
        if version.get("status", {}).get("phase") == "Failed":
            problem = status.problem(version) or ("Failed", "the pod failed")
            return _tell(version, problem)
    raise AssertionError("unreachable")


def _remove(api: Api, namespace: str, name: str) -> None:
    """Gone when the command ends, as with Docker: its name, ports and volumes are free. DeadlineError."""
    path = pods_path(namespace, name)
    try:
        api.delete(path, {"gracePeriodSeconds": 1})
        for _ in versions(api, api.get(path), REMOVAL_SECONDS):
            pass  # until NotFoundError
    except NotFoundError:
        return

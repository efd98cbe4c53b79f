"""`cuboid run`: an image in a pod of its own, in the foreground or not."""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

from cuboid.cli import config, fast, manifest, pull_secret, status, streams
from cuboid.cli.api import Api, Upgrade, pods_path
from cuboid.cli.fast import CHOICE, FLAG, LIST, NUMBER, TEXT, Option
from cuboid.cli.following import Following, failure, step
from cuboid.cli.http import Source, ready
from cuboid.cli.output import Format, Progress, clean, progress, show
from cuboid.cli.websocket import Socket
from cuboid.lib.errors import ConflictError, CuboidError, InvalidError, NotFoundError

if TYPE_CHECKING:
    import typer

Object = dict[str, Any]
PLATFORM_FAILED = 125  # Docker's: the platform, not the container, failed
START_SECONDS = 1800.0  # an image may have to be fetched first
END_SECONDS = 60.0  # from the end of a container to the end of its pod
REMOVAL_SECONDS = 60.0  # for a pod to be gone
EXAMPLE = """Run an image in a virtual machine of its own.

Example: cuboid run --name web -d -p 8080:80 localhost:5000/demo/nginx:1
"""
IMAGE = fast.Positional("image", "IMAGE", "Image, like debian:12 or localhost:5000/demo/nginx:1.")
COMMAND = fast.Positional("args", "[COMMAND]…", "Replaces the image's CMD.")
OPTIONS = (
    Option("name", TEXT, ("--name",), "Name of the pod; invented if not given.", ""),
    Option("detach", FLAG, ("--detach", "-d"), "Return once it runs.", False),
    Option("interactive", FLAG, ("--interactive", "-i"), "Connect stdin.", False),
    Option("tty", FLAG, ("--tty", "-t"), "Give it a terminal.", False),
    Option("rm", FLAG, ("--rm",), "Remove the pod when it has ended.", False),
    Option("env", LIST, ("--env", "-e"), "KEY=VALUE, or KEY for your own value."),
    Option("env_file", LIST, ("--env-file",), "File of KEY=VALUE lines."),
    Option("volume", LIST, ("--volume", "-v"), "NAME:/path[:ro], a named volume."),
    Option("publish", LIST, ("--publish", "-p"), "[IP:]HOST:CONTAINER[/udp]."),
    Option("cpus", TEXT, ("--cpus",), "Limit, like 0.5 or 2.", ""),
    Option("memory", TEXT, ("--memory", "-m"), "Limit, like 256m or 1g.", ""),
    Option("disk", TEXT, ("--disk",), "Size of the writable layer, like 2g.", ""),
    Option("entrypoint", TEXT, ("--entrypoint",), "Replaces the image's ENTRYPOINT."),
    Option("workdir", TEXT, ("--workdir", "-w"), "Working directory.", ""),
    Option("user", TEXT, ("--user", "-u"), "NAME or UID, with :GROUP if wanted.", ""),
    Option("restart", TEXT, ("--restart",), "no, on-failure or always.", "no"),
    Option("init_timeout", NUMBER, ("--init-timeout",), "Seconds it may take to start; then it fails.", 0.0),
    Option("label", LIST, ("--label", "-l"), "KEY=VALUE."),
    Option("pull", TEXT, ("--pull",), "missing, always or never.", "missing"),
    Option("privileged", FLAG, ("--privileged",), "All rights inside its own machine.", False),
    Option("read_only", FLAG, ("--read-only",), "Root file system read-only.", False),
    Option("cap_add", LIST, ("--cap-add",), "Add a capability."),
    Option("cap_drop", LIST, ("--cap-drop",), "Drop a capability."),
    Option("tmpfs", LIST, ("--tmpfs",), "/path[:SIZE] in memory."),
    Option("hostname", TEXT, ("--hostname",), "Host name; the pod's name if not given.", ""),
    Option("kernel", TEXT, ("--kernel",), "general boots Debian's kernel instead of the platform's; slower.", ""),
    Option("kernel_arg", LIST, ("--kernel-arg",), "Added to the kernel's command line; such a pod boots."),
    Option("quiet", FLAG, ("--quiet", "-q"), "No progress.", False),
    Option("namespace", TEXT, ("--namespace", "-n"), "The pod's namespace.", "", shown="default"),
    Option("output", CHOICE, ("--output", "-o"), "table, wide, json, yaml or name.", Format.TABLE, Format),
)


def register(app: typer.Typer) -> None:
    import typer

    def verb(**given: Any) -> None:
        raise typer.Exit(run(**given))

    command = fast.declare(OPTIONS, IMAGE, COMMAND, verb)
    app.command("run", help=EXAMPLE, context_settings={"allow_interspersed_args": False})(command)


def fast_run(arguments: list[str]) -> int | None:
    """The exit code of `cuboid run ARGUMENTS`; None, and nothing done, if the arguments need a second look."""
    given = fast.parse(OPTIONS, IMAGE, COMMAND, arguments)
    return None if given is None else run(**given)


def run(
    *, image: str, args: list[str] | None, detach: bool, tty: bool, rm: bool, quiet: bool, namespace: str,
    output: Format, **given: Any,
) -> int:  # fmt: skip
    """Its exit code. The other options are those of `_options`."""
    if detach and rm:
        raise InvalidError("-d and --rm exclude each other", hint="remove it later with: cuboid rm -f NAME")
    if tty and not detach and not sys.stdin.isatty():
        raise InvalidError("-t needs a terminal as stdin", hint="leave -t out, or use -i alone")
    connection = config.find()
    api, namespace = Api(connection), namespace or connection.namespace
    secret = pull_secret.ensure(api, namespace, image)
    options = _options(image, tuple(args or ()), namespace, secret, tty, attach=not detach, **given)
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
    following = Following(api, pod)
    try:
        return _detached(api, following, quiet, output) if detach else _foreground(api, following, options, quiet, rm)
    finally:
        following.close()


def _options(
    image: str, args: tuple[str, ...], namespace: str, secret: str, tty: bool, *, attach: bool, interactive: bool,
    env: list[str] | None, env_file: list[str] | None, volume: list[str] | None, publish: list[str] | None,
    label: list[str] | None, cap_add: list[str] | None, cap_drop: list[str] | None, tmpfs: list[str] | None,
    kernel_arg: list[str] | None, **given: Any,
) -> manifest.RunOptions:  # fmt: skip
    tty_size = "{}x{}".format(*_terminal_size()) if tty else ""
    return manifest.RunOptions(
        image=image, args=args, namespace=namespace, pull_secret=secret, tty=tty, tty_size=tty_size, attach=attach,
        stdin=interactive, env=manifest.read_env(env or (), env_file or (), dict(os.environ)),
        volumes=tuple(volume or ()), ports=tuple(publish or ()), labels=tuple(label or ()),
        cap_add=tuple(cap_add or ()), cap_drop=tuple(cap_drop or ()), tmpfs=tuple(tmpfs or ()),
        kernel_args=tuple(kernel_arg or ()), **given,
    )  # fmt: skip


def _terminal_size() -> tuple[int, int]:
    from cuboid.cli import terminal

    return terminal.size()


def _detached(api: Api, following: Following, quiet: bool, output: Format) -> int:
    with progress(quiet) as line:
        _wait_started(following, line)
    pod = following.pod
    failed = failure(pod)
    if failed:
        return _give_up(api, pod, failed)
    if output is Format.TABLE:
        print(pod["metadata"]["name"])
    else:
        show(pod, output, lambda: print(pod["metadata"]["name"]))
    return 0


def _wait_started(following: Following, line: Progress) -> None:
    """Until its first container has started, or something has gone wrong that will not mend itself."""
    for version in following.versions(START_SECONDS):
        if _settled(version):
            return
        line.update(step(version))


def _settled(pod: Object) -> bool:
    return status.started(pod) or failure(pod) is not None


def _foreground(api: Api, following: Following, options: manifest.RunOptions, quiet: bool, rm: bool) -> int:
    pod = following.pod
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    try:
        with progress(quiet) as line:
            socket = _connected(api, following, options, line)
        failed = failure(following.pod)
        if failed and socket is None:
            return _give_up(api, following.pod, failed)
        return _follow(api, following, options, socket)
    except KeyboardInterrupt:
        if not rm:
            print(f"cuboid: {name} runs on (cuboid logs -f {name}, cuboid rm -f {name})", file=sys.stderr)
        return 130
    finally:
        if rm:
            _remove(api, namespace, name)


def _attach(api: Api, pod: Object, options: manifest.RunOptions, *, wait: bool) -> Upgrade:
    """Ask to be attached to the first container: with all that it has written, and once it runs if `wait`."""
    query = [
        ("container", status.main_container(pod)), ("stdout", "true"), ("stderr", str(not options.tty).lower()),
        ("history", "true"), ("stdin", str(options.stdin).lower()), ("tty", str(options.tty).lower()),
    ]  # fmt: skip
    path = pods_path(pod["metadata"]["namespace"], pod["metadata"]["name"], "attach")
    return api.upgrade(path, query + [("wait", "true")] * wait, streams.EXEC)


def _connected(api: Api, following: Following, options: manifest.RunOptions, line: Progress) -> Socket | None:
    """The stream of the first container, asked for before it runs; None if it will not run, or has run already.

    Nothing is lost between its start and ours, and nobody waits for a status to be written and read.
    """
    with closing(_attach(api, following.pod, options, wait=True)) as early:
        waited: list[Source] = [following, early]
        while early in waited or not _settled(following.pod):
            found = ready(waited)
            if early in found:
                try:
                    return early.finish()
                except CuboidError:  # it ended at once, or this API attaches to what runs and to nothing else
                    waited.remove(early)
            if following in found and following.take():
                line.update(step(following.pod))
                if failure(following.pod):
                    return None
    if "running" not in status.main_status(following.pod).get("state", {}):
        return None
    try:
        return _attach(api, following.pod, options, wait=False).finish()
    except CuboidError:  # it has ended meanwhile: the log has everything
        return None


def _follow(api: Api, following: Following, options: manifest.RunOptions, socket: Socket | None) -> int:
    """The container's output until its end; its exit code."""
    shown: Counter[int] = Counter()
    if socket is not None:
        try:
            code = streams.join(socket, stdin=options.stdin, tty=options.tty, shown=shown)
            return 0 if code is None else _wait_ended(following)
        except CuboidError:  # its machine ended while we looked: the log has the rest
            pass
        _until_ended(following)
    pod = following.pod
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    print_log(api, namespace, name, status.main_container(pod), options.tty, shown)
    return _wait_ended(following)


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


def _until_ended(following: Following) -> None:
    """Until the pod has ended; not at all if it would be restarted."""
    if following.pod["spec"].get("restartPolicy") != "Never":
        return
    for version in following.versions(END_SECONDS):
        if status.exit_code(version) is not None or version.get("status", {}).get("phase") == "Failed":
            return


def _wait_ended(following: Following) -> int:
    """The first container's exit code once the pod has ended; with restarts, of the run that we saw."""
    _until_ended(following)
    pod = following.pod
    if pod["spec"].get("restartPolicy") != "Never":
        return 0
    if failed := failure(pod):  # attached to, and it never ran: its program cannot be executed
        return _tell(pod, failed)
    code = status.exit_code(pod)
    return _tell(pod, status.problem(pod) or ("Failed", "the pod failed")) if code is None else code


def _remove(api: Api, namespace: str, name: str) -> None:
    """Gone when the command ends, as with Docker: its name, ports and volumes are free. DeadlineError."""
    path = pods_path(namespace, name)
    try:
        api.delete(path, {"gracePeriodSeconds": 1})
        following = Following(api, api.get(path))
        for _ in following.versions(REMOVAL_SECONDS):
            pass  # until NotFoundError
    except NotFoundError:
        return

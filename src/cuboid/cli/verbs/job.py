"""`job IMAGE -- COMMAND | ls | logs | rm`: work that ends."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from cuboid.cli import common, deleting, jobs, manifest, pull_secret, resources, waiting, workloads
from cuboid.cli.api import Api
from cuboid.cli.output import Format, age, print_lines, progress, show, table
from cuboid.cli.podlogs import Logs, after_name
from cuboid.cli.resources import JOBS
from cuboid.lib.errors import AlreadyExistsError, ConflictError

Object = dict[str, Any]
_EXAMPLE = """Run a command to its end, in one pod or several. Prints what they print, ends with their exit code.

Example: cuboid job debian:12 --name sums --count 8 --parallel 2 --retries 3 -- sh -c 'echo part $JOB_COMPLETION_INDEX'
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        cls=common.Short,
        help="Work that ends: job IMAGE -- COMMAND, or ls, logs, rm. All options: cuboid job run -h.\n\n"
        "Example: cuboid job debian:12 -- echo done",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("run", help=_EXAMPLE)(run)
    group.command("ls", help="List jobs.\n\nExample: cuboid job ls")(ls)
    group.command("logs", help="What the pods of a job wrote.\n\nExample: cuboid job logs -f sums")(logs)
    group.command("rm", help="Remove jobs with their pods.\n\nExample: cuboid job rm sums")(rm)
    app.add_typer(group, name="job")


def complete(incomplete: str) -> list[str]:
    return common.complete(JOBS.path, incomplete)


Command = Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND…]", help="Replaces the image's CMD.")]
Env = Annotated[list[str] | None, typer.Option("--env", "-e", help="KEY=VALUE, or KEY for your own value.")]
EnvFile = Annotated[list[str] | None, typer.Option("--env-file", help="File of KEY=VALUE lines.")]
Volume = Annotated[list[str] | None, typer.Option("--volume", "-v", help="NAME:/path[:ro], a named volume.")]
Cpus = Annotated[str, typer.Option("--cpus", "--cpu", help="Limit of each pod, like 0.5 or 2.")]
Memory = Annotated[str, typer.Option("--memory", "-m", help="Limit of each pod, like 256m or 1g.")]
Retries = Annotated[int, typer.Option("--retries", min=0, help="How often each part is tried again when it fails.")]
TimeLimit = Annotated[
    int, typer.Option("--timeout", min=0, help="Seconds after which it is ended.", show_default="none")
]


def run(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image, like debian:12.")],
    command: Command = None,
    name: Annotated[str, typer.Option("--name", help="Its name; invented if not given.")] = "",
    count: Annotated[
        int, typer.Option("--count", min=1, help="How many parts; each knows its JOB_COMPLETION_INDEX.")
    ] = 1,
    parallel: Annotated[int, typer.Option("--parallel", min=0, help="Parts at a time.", show_default="all")] = 0,
    retries: Retries = 0,
    timeout: TimeLimit = 0,
    env: Env = None,
    env_file: EnvFile = None,
    volume: Volume = None,
    cpus: Cpus = "",
    memory: Memory = "",
    remove: Annotated[bool, typer.Option("--rm", help="Remove it when it has ended.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for its end.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    own = manifest.RunOptions(
        image=image, args=tuple(command or ()), namespace=namespace, volumes=tuple(volume or ()), cpus=cpus,
        memory=memory, env=manifest.read_env(env or (), env_file or (), dict(os.environ)),
        name=workloads.checked_name(name or jobs.invent_name(workloads.name_of(image))),
        pull_secret=pull_secret.ensure(api, namespace, image),
    )  # fmt: skip
    wanted = jobs.job(jobs.Options(own, count, parallel, retries, timeout))
    try:
        made = api.post(JOBS.path(namespace), wanted)
    except (AlreadyExistsError, ConflictError) as error:
        raise ConflictError(f"the name {own.name!r} is taken", hint=f"cuboid job rm {own.name}") from error
    if detach:
        show(made, output, lambda: print(own.name))
        return
    raise typer.Exit(followed(api, made, quiet=quiet, remove=remove))


def followed(api: Api, made: Object, *, quiet: bool = False, remove: bool = False) -> int:
    """Its exit code."""
    namespace, name = made["metadata"]["namespace"], made["metadata"]["name"]
    try:
        with progress(quiet) as line:
            return jobs.follow(api, made, line)
    except KeyboardInterrupt:
        if not remove:
            print(f"cuboid: {name} goes on (cuboid job logs -f {name}, cuboid job rm {name})", file=sys.stderr)
        return 130
    finally:
        if remove:
            with progress(quiet) as line:
                deleting.delete(api, JOBS, namespace, name, line)


def ls(
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    answer = api.get(JOBS.path("" if all_namespaces else namespace))
    start = 0 if all_namespaces else 1
    columns = ("NAMESPACE", "NAME", "IMAGE", "STATUS", "DONE", "FAILED", "AGE")
    show(answer, output, lambda: table(columns[start:], [_row(item)[start:] for item in answer["items"]]))


def _row(item: Object) -> list[object]:
    metadata, spec, told = item["metadata"], item["spec"], item.get("status", {})
    image = spec["template"]["spec"]["containers"][0]["image"]
    done = f"{told.get('succeeded', 0)}/{spec.get('completions', 1)}"
    made = age(metadata.get("creationTimestamp"))
    return [metadata["namespace"], metadata["name"], image, jobs.word(item), done, told.get("failed", 0), made]


Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the job.", autocompletion=complete)]
Names = Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of jobs.", autocompletion=complete)]


def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it has ended.")] = False,
    namespace: common.Namespace = "",
) -> None:
    api, namespace = common.connect(namespace)
    found = resources.get(api, JOBS, namespace, name)
    if follow and jobs.ended(found) is None:
        raise typer.Exit(followed(api, found))
    pods = waiting.look(api, JOBS, namespace, name).pods
    with Logs(api, namespace, {}, after_name if len(pods) > 1 else None) as printer:
        printer.see(pods)
        printer.finish()


def rm(names: Names, namespace: common.Namespace = "", output: common.Output = Format.TABLE) -> None:
    api, namespace = common.connect(namespace)
    with progress() as line:
        for name in names:
            deleting.delete(api, JOBS, namespace, name, line)
    done = [{"kind": "Job", "metadata": {"name": name, "namespace": namespace}} for name in names]
    show({"items": done}, output, lambda: print_lines(names))

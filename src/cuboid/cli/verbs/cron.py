"""`cron SCHEDULE IMAGE -- COMMAND | ls | run | pause | resume | rm`: jobs by the clock."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cuboid.cli import common, deleting, jobs, manifest, pull_secret, resources, workloads
from cuboid.cli.output import Format, age, print_lines, progress, show, table
from cuboid.cli.resources import CRON_JOBS, JOBS
from cuboid.cli.verbs import job as verbs
from cuboid.lib.errors import InvalidError

Object = dict[str, Any]
_EXAMPLE = """Run a command by the clock: minute, hour, day, month, day of the week.

Example: cuboid cron "30 2 * * *" debian:12 --name report --timezone Europe/Berlin -- sh -c date
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        cls=common.Short,
        help="Jobs by the clock: cron SCHEDULE IMAGE -- COMMAND, or ls, run, pause, resume, rm.\n\n"
        "All options: cuboid cron set -h.\n\n"
        'Example: cuboid cron "*/5 * * * *" debian:12 --name tick -- date',
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("set", help=_EXAMPLE)(set_)
    group.command("ls", help="List them, with their next run.\n\nExample: cuboid cron ls")(ls)
    group.command("run", help="Run one now and print what it prints.\n\nExample: cuboid cron run report")(run)
    group.command("pause", help="No runs until it is resumed.\n\nExample: cuboid cron pause report")(pause)
    group.command("resume", help="Runs by the clock again.\n\nExample: cuboid cron resume report")(resume)
    group.command("rm", help="Remove them with their jobs.\n\nExample: cuboid cron rm report")(rm)
    app.add_typer(group, name="cron")


def complete(incomplete: str) -> list[str]:
    return common.complete(CRON_JOBS.path, incomplete)


Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the cron job.", autocompletion=complete)]
Names = Annotated[list[str], typer.Argument(metavar="NAME…", help="Names of cron jobs.", autocompletion=complete)]


def set_(
    schedule: Annotated[str, typer.Argument(metavar="SCHEDULE", help='Like "*/5 * * * *" or @daily.')],
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image, like debian:12.")],
    command: verbs.Command = None,
    name: Annotated[str, typer.Option("--name", help="Its name; the image's if not given.")] = "",
    timezone: Annotated[str, typer.Option("--timezone", help="Like Europe/Berlin.", show_default="UTC")] = "",
    keep: Annotated[int, typer.Option("--keep", min=0, help="How many ended runs are kept, good and bad.")] = 3,
    no_overlap: Annotated[
        bool, typer.Option("--no-overlap", help="No run while the last one goes on.", show_default="they overlap")
    ] = False,
    retries: verbs.Retries = 0,
    timeout: verbs.TimeLimit = 0,
    env: verbs.Env = None,
    env_file: verbs.EnvFile = None,
    volume: verbs.Volume = None,
    cpus: verbs.Cpus = "",
    memory: verbs.Memory = "",
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    when = next_run(schedule, timezone, time.time())
    api, namespace = common.connect(namespace)
    own = manifest.RunOptions(
        image=image, args=tuple(command or ()), namespace=namespace, volumes=tuple(volume or ()), cpus=cpus,
        memory=memory, env=manifest.read_env(env or (), env_file or (), dict(os.environ)),
        name=workloads.checked_name(name or workloads.name_of(image)),
        pull_secret=pull_secret.ensure(api, namespace, image),
    )  # fmt: skip
    wanted = cron_job(jobs.Options(own, retries=retries, timeout=timeout), schedule, timezone, keep, no_overlap)
    made = api.apply(CRON_JOBS.path(namespace, own.name), wanted)
    show(made, output, lambda: print(f"{own.name}: next run {when or 'never'}"))


def cron_job(options: jobs.Options, schedule: str, timezone: str, keep: int, no_overlap: bool) -> Object:
    name, namespace = options.run.name, options.run.namespace
    spec: Object = {
        "schedule": schedule,
        "concurrencyPolicy": "Forbid" if no_overlap else "Allow",
        "successfulJobsHistoryLimit": keep,
        "failedJobsHistoryLimit": keep,
        "jobTemplate": {"metadata": {"labels": {"app": name}}, "spec": jobs.spec(options)},
    }
    if timezone:
        spec["timeZone"] = timezone
    labels = {"app": name, workloads.MANAGED: workloads.BY}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec}


def next_run(schedule: str, timezone: str, now: float) -> str:
    """In words, in its own time zone; "" if there is none. InvalidError for what is no schedule or no time zone."""
    from cuboid.kube import cron

    try:
        parsed, zone = cron.parse(schedule), cron.time_zone(timezone or "UTC")
    except (InvalidError, ValueError, LookupError) as error:
        text = error.message if isinstance(error, InvalidError) else str(error)
        raise InvalidError(
            f"{schedule!r}{f' in {timezone}' if timezone else ''} is no schedule: {text}",
            hint='minute hour day month weekday, like "30 2 * * *", and --timezone Europe/Berlin',
        ) from error
    found = parsed.after(datetime.fromtimestamp(now, UTC), zone)
    return f"{found.astimezone(zone):%Y-%m-%d %H:%M} {timezone or 'UTC'}" if found else ""


def ls(
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    answer = api.get(CRON_JOBS.path("" if all_namespaces else namespace))
    start = 0 if all_namespaces else 1
    columns = ("NAMESPACE", "NAME", "IMAGE", "SCHEDULE", "NEXT RUN", "RUNNING", "LAST RUN", "LAST SUCCESS")
    show(answer, output, lambda: table(columns[start:], [_row(item, time.time())[start:] for item in answer["items"]]))


def _row(item: Object, now: float) -> list[object]:
    metadata, spec, told = item["metadata"], item["spec"], item.get("status", {})
    image = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["image"]
    try:
        when = "paused" if spec.get("suspend") else next_run(spec["schedule"], spec.get("timeZone", ""), now)
    except InvalidError:  # one that another tool made, with a word of its own
        when = "?"
    return [
        metadata["namespace"], metadata["name"], image, spec["schedule"], when or "never",
        len(told.get("active", [])), _ago(told.get("lastScheduleTime")), _ago(told.get("lastSuccessfulTime")),
    ]  # fmt: skip


def _ago(moment: str | None) -> str:
    return f"{age(moment)} ago" if moment else "-"


def run(
    name: Name,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for its end.")] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    cron = resources.get(api, CRON_JOBS, namespace, name)
    made = api.post(JOBS.path(namespace), jobs.of_cron(cron, jobs.invent_name(name)))
    if detach:
        show(made, output, lambda: print(made["metadata"]["name"]))
        return
    raise typer.Exit(verbs.followed(api, made))


def pause(name: Name, namespace: common.Namespace = "", output: common.Output = Format.TABLE) -> None:
    _suspend(name, True, namespace, output)


def resume(name: Name, namespace: common.Namespace = "", output: common.Output = Format.TABLE) -> None:
    _suspend(name, False, namespace, output)


def _suspend(name: str, suspended: bool, namespace: str, output: Format) -> None:
    api, namespace = common.connect(namespace)
    resources.get(api, CRON_JOBS, namespace, name)
    found = api.patch(CRON_JOBS.path(namespace, name), {"spec": {"suspend": suspended}})
    show(found, output, lambda: print(f"{name}: {'paused' if suspended else 'goes on'}"))


def rm(names: Names, namespace: common.Namespace = "", output: common.Output = Format.TABLE) -> None:
    api, namespace = common.connect(namespace)
    with progress() as line:
        for name in names:
            deleting.delete(api, CRON_JOBS, namespace, name, line)
    done = [{"kind": "CronJob", "metadata": {"name": name, "namespace": namespace}} for name in names]
    show({"items": done}, output, lambda: print_lines(names))

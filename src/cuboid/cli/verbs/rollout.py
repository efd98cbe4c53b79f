"""`rollout`: how far a new version is, and back to an older one."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from cuboid.cli import common, rollouts, target, waiting
from cuboid.cli.api import Api
from cuboid.cli.output import Format, age, progress, show, table
from cuboid.cli.resources import REPLICA_SETS, REVISIONS, Resource
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import ConflictError, InvalidError, NotFoundError, UnsupportedError

Object = dict[str, Any]
RESTARTED = "kubectl.kubernetes.io/restartedAt"
HASH = "pod-template-hash"
Name = Annotated[str, typer.Argument(metavar="NAME", help="Deployment, or KIND/NAME.", autocompletion=target.complete)]
Timeout = Annotated[float, typer.Option("--timeout", help="Seconds to wait until it is rolled out.")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Do not wait until it is rolled out.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Versions of what is deployed.", no_args_is_help=True, rich_markup_mode=None)
    group.command("status", help="Wait until it is rolled out.\n\nExample: cuboid rollout status web")(status)
    group.command("history", help="Which versions there were.\n\nExample: cuboid rollout history web")(history)
    group.command("undo", help="Back to the version before, or to one.\n\nExample: cuboid rollout undo web --to 3")(
        undo
    )
    group.command("restart", help="New pods of the same version.\n\nExample: cuboid rollout restart web")(restart)
    group.command("pause", help="Changes wait until it is resumed.\n\nExample: cuboid rollout pause web")(pause)
    group.command("resume", help="Go on with the changes.\n\nExample: cuboid rollout resume web")(resume)
    app.add_typer(group, name="rollout")


def _wait(api: Api, resource: Resource, namespace: str, name: str, timeout: float, output: Format) -> None:
    with progress() as line:
        seen = waiting.rolled_out(api, resource, namespace, name, timeout, line)
    count = len(seen.newest)
    show(seen.workload, output, lambda: print(f"{name} is rolled out: {count} pod{'' if count == 1 else 's'}"))


def status(
    name: Name, timeout: Timeout = 600, namespace: common.Namespace = "", output: common.Output = Format.TABLE
) -> None:
    api, namespace = common.connect(namespace)
    resource, found = target.find(api, namespace, name)
    _wait(api, resource, namespace, found["metadata"]["name"], timeout, output)


def _revisions(api: Api, resource: Resource, namespace: str, found: Object) -> list[Object]:
    """ReplicaSets of a deployment, ControllerRevisions of others; the oldest first."""
    kind = REPLICA_SETS if resource.kind == "Deployment" else REVISIONS
    rows = rollouts.owned(api.get(kind.path(namespace), labelSelector=waiting.selector(found))["items"], found)
    return sorted(rows, key=rollouts.revision)


def template(row: Object) -> Object:
    """The pods of a version."""
    spec = row["spec"] if "spec" in row else row.get("data", {}).get("spec", {})
    found: Object = spec.get("template", {})
    return found


def _images(row: Object) -> str:
    return ",".join(
        str(container.get("image", "")) for container in template(row).get("spec", {}).get("containers", [])
    )


def history(name: Name, namespace: common.Namespace = "", output: common.Output = Format.TABLE) -> None:
    api, namespace = common.connect(namespace)
    resource, found = target.find(api, namespace, name)
    rows = _revisions(api, resource, namespace, found)

    def as_text() -> None:
        newest = rollouts.revision(rows[-1]) if rows else 0
        table(("REVISION", "IMAGE", "PODS", "AGE", ""), [_row(row, newest) for row in rows])

    show({"items": rows}, output, as_text)


def _row(row: Object, newest: int) -> list[object]:
    number = rollouts.revision(row)
    pods = row.get("status", {}).get("replicas", 0) if "spec" in row else "-"
    return [number, _images(row), pods, age(row["metadata"].get("creationTimestamp")), "now" * (number == newest)]


def undo(
    name: Name,
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="Revision, see history.", show_default="the one before")
    ] = None,
    detach: Detach = False,
    timeout: Timeout = 600,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    resource, found = target.find(api, namespace, name)
    name = found["metadata"]["name"]
    row = _chosen(name, _revisions(api, resource, namespace, found), to)
    path = resource.path(namespace, name)
    if resource.kind == "Deployment":
        if found["spec"].get("paused"):
            raise ConflictError(f"the rollout of {name} is paused", hint=f"cuboid rollout resume {name}")
        pods = template(row)
        labels = {key: value for key, value in pods["metadata"].get("labels", {}).items() if key != HASH}
        pods = {**pods, "metadata": {**pods["metadata"], "labels": labels}}
        steps = [{"op": "replace", "path": "/spec/template", "value": pods}]
        found = api.request("PATCH", path, steps, kind="application/json-patch+json")
    else:
        found = api.request("PATCH", path, row["data"], kind="application/strategic-merge-patch+json")
    if detach:
        show(found, output, lambda: print(f"{name}: back to {_images(row)}"))
    else:
        _wait(api, resource, namespace, name, timeout, output)


def _chosen(name: str, rows: list[Object], to: int | None) -> Object:
    if to is None:
        if len(rows) < 2:
            raise ConflictError(f"there is no version of {name} before this one")
        return rows[-2]
    row = next((row for row in rows if rollouts.revision(row) == to), None)
    if row is None:
        known = ", ".join(str(rollouts.revision(row)) for row in rows)
        raise NotFoundError(f"{name} has no revision {to}", hint=f"one of {known}")
    return row


def restart(
    name: Name,
    detach: Detach = False,
    timeout: Timeout = 600,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    resource, found = target.find(api, namespace, name)
    name = found["metadata"]["name"]
    annotations = {RESTARTED: rfc3339(time.time())}
    patch = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    found = api.patch(resource.path(namespace, name), patch)
    if detach:
        show(found, output, lambda: print(f"{name}: restarting"))
    else:
        _wait(api, resource, namespace, name, timeout, output)


def pause(name: Name, namespace: common.Namespace = "", output: common.Output = Format.TABLE) -> None:
    _set_paused(name, True, namespace, output)


def resume(name: Name, namespace: common.Namespace = "", output: common.Output = Format.TABLE) -> None:
    _set_paused(name, False, namespace, output)


def _set_paused(name: str, paused: bool, namespace: str, output: Format) -> None:
    api, namespace = common.connect(namespace)
    resource, found = target.find(api, namespace, name)
    name = found["metadata"]["name"]
    if resource.kind != "Deployment":
        raise UnsupportedError(f"the rollout of a {resource.noun} can not be paused")
    if bool(found["spec"].get("paused")) == paused:
        raise InvalidError(f"the rollout of {name} is {'paused already' if paused else 'not paused'}")
    found = api.patch(resource.path(namespace, name), {"spec": {"paused": paused or None}})
    show(found, output, lambda: print(f"{name}: {'paused' if paused else 'goes on'}"))

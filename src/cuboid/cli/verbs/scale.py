"""`scale`: how many pods there are of something."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cuboid.cli import common, target, waiting
from cuboid.cli.output import Format, progress, show
from cuboid.lib.errors import UnsupportedError

Object = dict[str, Any]


def register(app: typer.Typer) -> None:
    app.command("scale", help="Change how many pods there are.\n\nExample: cuboid scale web 5")(scale)


def scale(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Deployment, or KIND/NAME.", autocompletion=target.complete)
    ],
    replicas: Annotated[int, typer.Argument(metavar="COUNT", min=0, help="How many pods.")],
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait until they run.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait until they run.")] = 600,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    resource, found = target.find(api, namespace, name)
    if resource.kind not in ("Deployment", "StatefulSet"):
        raise UnsupportedError(f"{resource.noun} {name} has no number of pods to change")
    name = found["metadata"]["name"]
    before = found["spec"].get("replicas", 1)
    api.patch(resource.path(namespace, name, "scale"), {"spec": {"replicas": replicas}})
    if not detach:
        with progress(quiet) as line:
            found = waiting.rolled_out(api, resource, namespace, name, timeout, line).workload
    show(found, output, lambda: print(f"{name}: {replicas} pods (before: {before})"))

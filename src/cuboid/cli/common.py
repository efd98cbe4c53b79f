"""Options that many verbs share, and what they do first: connect, find the pod."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
import typer.core

from cuboid import __version__
from cuboid.cli import config
from cuboid.cli.api import Api, pods_path
from cuboid.cli.output import Format
from cuboid.lib.errors import CuboidError, InvalidError, NotFoundError

Object = dict[str, Any]


def complete(path: Callable[[str], str], incomplete: str) -> list[str]:
    """Names for the shell's completion, of the list at `path(namespace)`; none when the platform does not answer."""
    try:
        connection = config.find()
        items = Api(connection).get(path(connection.namespace))["items"]
    except Exception:  # a completion must never print
        return []
    return [row["metadata"]["name"] for row in items if row["metadata"]["name"].startswith(incomplete)]


def complete_pods(incomplete: str) -> list[str]:
    return complete(pods_path, incomplete)


class Short(typer.core.TyperGroup):
    """A group whose first command need not be named: `cuboid job IMAGE` is `cuboid job run IMAGE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = [next(iter(self.commands)), *args]
        return super().parse_args(ctx, args)


Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The pod's namespace.", show_default="default")]
Output = Annotated[Format, typer.Option("--output", "-o", help="table, wide, json, yaml or name.")]
PodName = Annotated[str, typer.Argument(metavar="POD", help="Name of the pod.", autocompletion=complete_pods)]
PodNames = Annotated[list[str], typer.Argument(metavar="POD…", help="Names of pods.", autocompletion=complete_pods)]
Container = Annotated[str, typer.Option("--container", "-c", help="Container; the first one if not given.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"cuboid {__version__}")
        raise typer.Exit


def group(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Keeps a group a group when only one verb is registered."""


def connect(namespace: str = "") -> tuple[Api, str]:
    """An API client and the namespace to use."""
    connection = config.find()
    return Api(connection), namespace or connection.namespace


def get_pod(api: Api, namespace: str, name: str) -> Object:
    try:
        pod: Object = api.get(pods_path(namespace, name))
    except NotFoundError as error:
        raise NotFoundError(
            f"no pod {name!r} in namespace {namespace!r}", hint=_instead(api, namespace, name)
        ) from error
    return pod


def _instead(api: Api, namespace: str, name: str) -> str:
    """The next step of somebody who means a deployment, or nothing that there is."""
    from cuboid.cli.resources import DEPLOYMENTS

    try:
        api.get(DEPLOYMENTS.path(namespace, name))
    except CuboidError:
        return "cuboid ps -a lists them"
    return f"it is a deployment: cuboid rollout restart {name}, cuboid scale {name} COUNT, cuboid deploy rm {name}"


def container_names(pod: Object) -> list[str]:
    return [row["name"] for row in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]]


def choose_container(pod: Object, wanted: str) -> str:
    names = container_names(pod)
    if wanted and wanted not in names:
        raise InvalidError(
            f"pod {pod['metadata']['name']} has no container {wanted!r}", hint=f"one of {', '.join(names)}"
        )
    return wanted or str(names[0])


def node_name(api: Api, wanted: str = "") -> str:
    """The node to ask for images and volumes: the only one, or the one named."""
    names = [row["metadata"]["name"] for row in api.get("/api/v1/nodes")["items"]]
    if wanted:
        return wanted
    if len(names) != 1:
        raise InvalidError(
            "there are several nodes" if names else "there is no node yet",
            hint=f"--node, one of {', '.join(names)}" if names else "cuboid up",
        )
    return str(names[0])

"""`volume ls|rm`: disks that outlive pods."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cuboid.cli import common
from cuboid.cli.api import node_path
from cuboid.cli.output import Format, print_lines, show, size, table
from cuboid.lib.errors import ConflictError

Object = dict[str, Any]


def register(app: typer.Typer) -> None:
    volume = typer.Typer(help="Manage named volumes.", no_args_is_help=True, rich_markup_mode=None)
    volume.command("ls", help="List named volumes.\n\nExample: cuboid volume ls")(ls)
    volume.command("rm", help="Remove named volumes and their data.\n\nExample: cuboid volume rm data")(rm)
    app.add_typer(volume, name="volume")


Node = Annotated[str, typer.Option("--node", help="The node, where there are several.")]


def ls(node: Node = "", output: common.Output = Format.TABLE) -> None:
    api, _ = common.connect()
    answer = api.get(node_path(common.node_name(api, node), "/cuboid/v1/volumes"))
    show(answer, output, lambda: _table(answer["items"]))


def _table(items: list[Object]) -> None:
    rows = [
        [row["namespace"], row["name"], size(row["size"]), size(row["used"]), row.get("holder") or "-"] for row in items
    ]
    table(("NAMESPACE", "NAME", "SIZE", "USED", "POD"), rows)


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME…")],
    node: Node = "",
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    known = api.get("/api/v1/persistentvolumes")["items"]
    for name in names:
        refuse_managed(known, namespace, name)
    for name in names:
        api.delete(node_path(common.node_name(api, node), f"/cuboid/v1/volumes/{namespace}/{name}"))
    show({"removed": names}, output, lambda: print_lines(names))


def refuse_managed(volumes: list[Object], namespace: str, name: str) -> None:
    """ConflictError if a PersistentVolume is this one: its data goes with its claim, and only so."""
    handle = f"{namespace}/{name}"
    for volume in volumes:
        if (volume["spec"].get("csi") or {}).get("volumeHandle") == handle:
            claim = volume["spec"].get("claimRef") or {}
            owner = f"pvc {claim['name']} -n {claim['namespace']}" if claim else f"pv {volume['metadata']['name']}"
            raise ConflictError(
                f"volume {name} is the PersistentVolume {volume['metadata']['name']}", hint=f"kubectl delete {owner}"
            )

"""`pull`, `images`, `image import|ls|rm|inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Annotated, Any, cast
from urllib.parse import quote

import typer

from cuboid.cli import common, pull_secret
from cuboid.cli.api import BY_REASON, Api, node_path
from cuboid.cli.output import Format, age, print_lines, progress, show, size, table
from cuboid.lib.errors import CuboidError, InvalidError, NotFoundError

Object = dict[str, Any]
Node = Annotated[str, typer.Option("--node", help="The node, where there are several.")]
STEPS = {"resolve": "asking the registry", "download": "downloading", "convert": "converting", "done": "done"}


def register(app: typer.Typer) -> None:
    app.command("pull", help="Fetch an image before it is needed.\n\nExample: cuboid pull localhost:5000/demo/nginx:1")(
        pull
    )
    app.command("images", help="List images.\n\nExample: cuboid images -o wide")(images)
    image = typer.Typer(help="Manage images.", no_args_is_help=True, rich_markup_mode=None)
    image.command("ls", help="List images.\n\nExample: cuboid image ls")(images)
    image.command(
        "import", help="Take a docker-save archive or an OCI layout.\n\nExample: cuboid image import app.tar"
    )(import_)
    image.command("rm", help="Remove images.\n\nExample: cuboid image rm demo/old:1")(rm)
    image.command("inspect", help="All that is known of an image.\n\nExample: cuboid image inspect demo/nginx:1")(
        inspect
    )
    app.add_typer(image, name="image")


def _path(api: Api, node: str, rest: str) -> str:
    return node_path(common.node_name(api, node), f"/cuboid/v1/images{rest}")


def _follow(api: Api, path: str, query: dict[str, str], data: IO[bytes] | bytes) -> Object:
    """Show the progress rows of a streamed answer; the last row, or the error it tells."""
    last: Object = {}
    with progress() as line:
        for row in api.lines("POST", path, query=query, data=data):
            last = row
            if "phase" in row:
                total = f" of {size(row['total'])}" if row.get("total") else ""
                line.update(
                    str(STEPS.get(row["phase"], row["phase"])),
                    f"{size(row.get('done', 0))}{total}" if row.get("done") else "",
                )
    if "error" in last:
        told = last["error"]
        kind = BY_REASON.get(told.get("reason", ""), CuboidError)
        raise kind(told.get("message", "failed"), hint=told.get("hint", ""), reason=told.get("reason", ""))
    return last


def pull(
    image: Annotated[str, typer.Argument(metavar="IMAGE")],
    node: Node = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, _ = common.connect()
    body = {"reference": image, "credentials": pull_secret.credentials(image)}
    found = _follow(api, _path(api, node, "/pull"), {}, json.dumps(body).encode())
    show(found.get("image", found), output, lambda: print(found["image"]["digest"]))


def images(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Ids only.")] = False,
    node: Node = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, _ = common.connect()
    answer = api.get(_path(api, node, ""))
    if quiet or output is Format.NAME:
        for row in answer["items"]:
            print(row["id"])
        return
    show(answer, output, lambda: _table(answer["items"], output is Format.WIDE))


def _table(items: list[Object], wide: bool) -> None:
    rows = []
    for image in items:
        for name in image["names"] or ["<none>"]:
            repository, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "<none>")
            row = [
                repository,
                tag,
                image["id"].removeprefix("sha256:")[:12],
                _created(image.get("created") or ""),
                size(image["size"]),
            ]
            rows.append(row + ([image["digest"], image.get("architecture", "")] if wide else []))
    table(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", *(["DIGEST", "ARCHITECTURE"] if wide else [])], rows)


def _created(timestamp: str) -> str:
    """The image's age; reproducible builds say 1970, which tells nothing."""
    return "-" if timestamp.startswith("1970-01-01") else age(timestamp)


def import_(
    archive: Annotated[Path, typer.Argument(metavar="ARCHIVE", help="A tar, or the folder of an OCI layout.")],
    name: Annotated[str, typer.Option("--name", help="Name for an image that has none.")] = "",
    node: Node = "",
    output: common.Output = Format.TABLE,
) -> None:
    if not archive.exists():
        raise NotFoundError(f"{archive} does not exist")
    api, _ = common.connect()
    path, query = _path(api, node, "/import"), {"name": name}
    if archive.is_dir():
        found = _import_folder(api, path, query, archive)
    else:
        with archive.open("rb") as file:
            found = _follow(api, path, query, cast(IO[bytes], file))
    rows = found.get("images", [])
    show({"items": rows}, output, lambda: print_lines(", ".join(row["names"]) or row["id"] for row in rows))


def _import_folder(api: Api, path: str, query: dict[str, str], folder: Path) -> Object:
    import tarfile
    import tempfile

    if not (folder / "index.json").exists():
        raise InvalidError(f"{folder} is no OCI layout: it has no index.json")
    with tempfile.TemporaryFile() as spool:
        with tarfile.open(fileobj=spool, mode="w") as tar:
            tar.add(folder, arcname=".")
        spool.seek(0)
        return _follow(api, path, query, cast(IO[bytes], spool))


def rm(
    references: Annotated[list[str], typer.Argument(metavar="IMAGE…")],
    node: Node = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, _ = common.connect()
    removed: list[str] = []
    for reference in references:
        removed += api.delete(_path(api, node, f"?reference={quote(reference, safe='')}"))["removed"]
    show({"removed": removed}, output, lambda: print_lines(removed))


def inspect(
    reference: Annotated[str, typer.Argument(metavar="IMAGE")],
    node: Node = "",
    output: common.Output = Format.JSON,
) -> None:
    api, _ = common.connect()
    found = api.get(_path(api, node, "/inspect"), reference=reference)
    show(found, output, lambda: _table([found], True))

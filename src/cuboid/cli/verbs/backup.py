"""`cuboid backup` and `cuboid restore`: the API server's store, on the machine where it runs."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cuboid.cli.common import Output
from cuboid.cli.output import Format, show
from cuboid.kube import backup as backups
from cuboid.lib.errors import ForbiddenError, InvalidError, NotFoundError
from cuboid.lib.paths import Paths
from cuboid.server.backups import store_of

File = Annotated[Path | None, typer.Argument(help="A file of your own; without it, the folder of automatic backups.")]
Source = Annotated[Path | None, typer.Argument(help="The backup to put back; without it, those there are are listed.")]
List = Annotated[bool, typer.Option("--list", help="Show the automatic backups.")]


def register(app: typer.Typer) -> None:
    app.command("backup", help="Back up all objects of the API.\n\nExample: sudo cuboid backup before-friday.zst")(save)
    app.command(
        "restore", help="Put a backup in the place of all objects.\n\nExample: sudo cuboid restore before-friday.zst"
    )(restore)


def _store(verb: str) -> Path:
    if os.geteuid() != 0:
        raise ForbiddenError(f"cuboid {verb} needs root", hint=f"sudo cuboid {verb}")
    return store_of(Paths.default())


def save(file: File = None, listed: List = False, output: Output = Format.TABLE) -> None:
    store = _store("backup")
    if listed:
        _list(store, output)
        return
    if not store.exists():
        raise NotFoundError(f"there is no store at {store}", hint="start the platform first: cuboid up")
    if file is None:
        made = backups.take(store, datetime.now(UTC))
        path, revision = made.path, made.revision
    else:
        path, revision = file.absolute(), backups.save(store, file.absolute())
    answer = {"file": str(path), "bytes": path.stat().st_size, "revision": revision}
    show(answer, output, lambda: print(f"{path}  {answer['bytes']} bytes, checked, up to version {revision}"))


def _list(store: Path, output: Format) -> None:
    rows = [
        {"time": f"{one.time:%Y-%m-%dT%H:%M:%SZ}", "bytes": one.size, "revision": one.revision, "file": str(one.path)}
        for one in backups.found(backups.folder_of(store))
    ]

    def table() -> None:
        for row in rows:
            print(f"{row['time']}  {row['bytes']:>12} bytes  {row['file']}")
        if not rows:
            print(f"no backup in {backups.folder_of(store)} yet")

    show(rows, output, table)


def restore(file: Source = None, output: Output = Format.TABLE) -> None:
    store = _store("restore")
    if file is None:
        _list(store, output)
        raise InvalidError("name the backup to put back", hint="cuboid restore FILE, with the server stopped")
    aside = backups.restore(file.absolute(), store, datetime.now(UTC))
    answer = {"restored": str(file.absolute()), "replaced": "" if aside is None else str(aside)}

    def words() -> None:
        print(f"{file} is in place")
        if aside is not None:
            print(f"what was there is kept as {aside}; remove it when you need it no more")
        print("start the platform again: cuboid up")

    show(answer, output, words)

"""`cuboid cp`: files into and out of a container, by tar streams through the agent; the image needs no tar."""

from __future__ import annotations

import io
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, cast
from urllib.parse import quote

import typer

from cuboid.cli import common
from cuboid.cli.api import Api, node_path
from cuboid.cli.output import progress, size
from cuboid.lib.errors import ConflictError, InvalidError, NotFoundError

SPOOL = 32 << 20  # bytes of a tar kept in memory before it goes to a file


def register(app: typer.Typer) -> None:
    app.command("cp", help="Copy files into or out of a pod.\n\nExample: cuboid cp ./site web:/usr/share/nginx/html")(
        cp
    )


def cp(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="PATH or POD:PATH; - is a tar on stdin.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="PATH or POD:PATH; - is a tar on stdout.")],
    container: common.Container = "",
    namespace: common.Namespace = "",
) -> None:
    from_pod, to_pod = split(source), split(target)
    if bool(from_pod) == bool(to_pod):
        raise InvalidError(
            "one of the two must be POD:PATH", hint="cuboid cp ./file web:/tmp/, or cuboid cp web:/etc/hosts ."
        )
    api, namespace = common.connect(namespace)
    if to_pod:
        _copy_in(api, namespace, source, to_pod, container)
    elif from_pod:
        _copy_out(api, namespace, from_pod, target, container)


def split(text: str) -> tuple[str, str] | None:
    """(pod, path) of POD:PATH; None for a path of this machine."""
    pod, colon, path = text.partition(":")
    return (pod, path or "/") if colon and "/" not in pod and pod not in ("", ".", "..") else None


def _endpoint(api: Api, namespace: str, name: str, container: str) -> str:
    pod = common.get_pod(api, namespace, name)
    node = pod["spec"].get("nodeName")
    if not node:
        raise ConflictError(f"pod {name} does not run yet", hint=f"cuboid why {name}")
    chosen = common.choose_container(pod, container)
    return node_path(node, f"/cuboid/v1/files/{quote(namespace)}/{quote(name)}/{quote(chosen)}")


def _copy_in(api: Api, namespace: str, source: str, target: tuple[str, str], container: str) -> None:
    endpoint = _endpoint(api, namespace, target[0], container)
    if source == "-":
        with api.stream("PUT", endpoint, query={"path": target[1]}, data=cast(IO[bytes], sys.stdin.buffer)):
            return
    path = Path(source)
    if not path.exists() and not path.is_symlink():
        raise NotFoundError(f"{source} does not exist")
    folder, name = _destination(api, endpoint, target[1], path)
    with tempfile.SpooledTemporaryFile(max_size=SPOOL) as spool, progress() as line:
        line.update(f"reading {source}")
        with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(path, arcname=name)
        line.update(f"copying {size(spool.tell())}")
        spool.seek(0)
        with api.stream("PUT", endpoint, query={"path": folder}, data=cast(IO[bytes], spool)) as response:
            response.read()


def _destination(api: Api, endpoint: str, path: str, source: Path) -> tuple[str, str]:
    """(folder, name) in the container, as `cp` chooses: into a folder that exists, else under the new name."""
    if path.endswith("/") or _is_folder(api, endpoint, path):
        return path, source.resolve().name
    place = PurePosixPath(path)
    return str(place.parent), place.name


def _is_folder(api: Api, endpoint: str, path: str) -> bool:
    try:
        with api.stream("GET", endpoint, query={"path": path}) as response:
            head = response.read(512)
    except NotFoundError:
        return False
    try:
        return tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape").isdir()
    except tarfile.HeaderError:
        return False


def _copy_out(api: Api, namespace: str, source: tuple[str, str], target: str, container: str) -> None:
    endpoint = _endpoint(api, namespace, source[0], container)
    try:
        response = api.stream("GET", endpoint, query={"path": source[1]})
    except NotFoundError as error:
        raise NotFoundError(f"{source[0]} has no {source[1]}: {error.message}") from error
    with response, progress() as line:
        line.update(f"copying {source[1]}")
        if target == "-":
            while piece := response.read(65536):
                sys.stdout.buffer.write(piece)
            return
        unpack(cast(Any, response), Path(target), copied_name(source[1]))


def copied_name(path: str) -> str:
    """What the agent calls the thing at this path of a container: its last part, "." where that is no name."""
    last = path.rstrip("/").rpartition("/")[2]
    return "." if last in ("", "..") else last


def unpack(stream: IO[bytes], target: Path, name: str) -> None:
    """Unpack a tar of one thing, called `name`: as `target`, or below it if that is a folder.

    Hostile input: it holds that thing and what is below it and nothing else, and no link of its own leads it out.
    """
    place = target / name if target.is_dir() and name != "." else target
    if not place.parent.is_dir():
        raise NotFoundError(f"{place.parent} does not exist")
    if place != target and place.is_symlink():
        raise InvalidError(f"{place} is a symbolic link", hint="remove it, or copy to another place")
    with tarfile.open(fileobj=io.BufferedReader(cast(Any, stream)), mode="r|") as tar:
        top = tar.next()
        if top is None or top.name.removesuffix("/") != name:
            raise InvalidError(f"the pod sent {top.name if top else 'nothing'!r} for {name!r}")
        if top.isdir():
            _make_folder(place)
        else:
            top.name = place.name
            _extract(tar, top, place.parent)
        while (entry := tar.next()) is not None:
            if not top.isdir():
                raise InvalidError(f"the pod sent {entry.name!r} besides {name!r}")
            entry.name = _below(entry.name, name)
            entry.linkname = _below(entry.linkname, name) if entry.islnk() else entry.linkname
            _extract(tar, entry, place)


def _make_folder(place: Path) -> None:
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise InvalidError(f"{place} cannot be made: {error.strerror}") from error


def _below(path: str, top: str) -> str:
    if not path.startswith(f"{top}/"):
        raise InvalidError(f"the pod sent {path!r}, which is not below {top!r}")
    return path[len(top) + 1 :]


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> None:
    try:
        tar.extract(entry, folder, filter="data", set_attrs=True)
    except (tarfile.FilterError, OSError) as error:
        raise InvalidError(f"{entry.name} was not copied: {error}") from error

"""`apply` and `delete`: objects of files."""

from __future__ import annotations

import copy
import difflib
import time
from typing import Annotated, Any

import typer

from cuboid.cli import common, deleting, documents, resources
from cuboid.cli.api import Api
from cuboid.cli.documents import Document
from cuboid.cli.output import Format, clean, progress, show
from cuboid.cli.resources import Resource
from cuboid.lib.errors import ConflictError, CuboidError, InvalidError, NotFoundError

Object = dict[str, Any]
_SERVED_SECONDS = 10.0  # until a kind that was just defined is served
_OWN = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")
Files = Annotated[
    list[str] | None, typer.Option("--filename", "-f", help="File, folder, or - for stdin; may be given several times.")
]


def register(app: typer.Typer) -> None:
    app.command(
        "apply",
        help="Make objects of files what the files say.\n\nExample: cuboid apply -f web.yaml; cuboid apply -f . --diff",
    )(apply)
    app.command(
        "delete",
        help="Delete objects with what they own.\n\n"
        "Example: cuboid delete deployment web; cuboid delete configmap/a secret/b; cuboid delete -f web.yaml",
    )(delete)


class Kinds:
    """What the API has, asked again when something new was defined."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.all = resources.discover(api)

    def of(self, document: Document, *, defined: bool) -> Resource:
        """`defined`: its kind may have been defined a moment ago."""
        until = time.monotonic() + (_SERVED_SECONDS if defined else 0)
        while True:
            try:
                return resources.of_kind(self.all, document.object["apiVersion"], document.object["kind"])
            except NotFoundError as error:
                if time.monotonic() >= until:
                    raise NotFoundError(f"{document.where}: {error.message}", hint=error.hint) from error
            time.sleep(0.2)
            self.all = resources.discover(self._api)


def apply(
    files: Files = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what would change; change nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force-conflicts", help="Take over fields that another tool has set.")
    ] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    if not files:
        raise InvalidError("what is to be applied?", hint="cuboid apply -f FILE, or - for stdin")
    wanted = documents.read(files)
    api, namespace = common.connect(namespace)
    kinds = Kinds(api)
    found, failed = [], 0
    defined = any(row.object["kind"] == "CustomResourceDefinition" for row in wanted) and not (dry_run or diff)
    for document in wanted:
        try:
            resource = kinds.of(document, defined=defined)
            before, after = _one(api, resource, document, namespace, force=force, dry_run=dry_run or diff)
        except CuboidError as error:
            failed += 1
            _tell(document, error)
            continue
        found.append(after)
        word = _word(before, after)
        if diff:
            print(_diff(resource, before, after), end="")
        elif output in (Format.TABLE, Format.WIDE):
            print(
                f"{resource.noun}/{clean(after['metadata']['name'])} {word}{' (dry run)' if dry_run else ''}",
                flush=True,
            )
        elif output is Format.NAME:
            print(f"{resource.noun}/{clean(after['metadata']['name'])}")
    if output in (Format.JSON, Format.YAML) and not diff:
        show({"apiVersion": "v1", "kind": "List", "items": found}, output, lambda: None)
    if failed:
        raise typer.Exit(1)


def _tell(document: Document, error: CuboidError) -> None:
    name = f"{document.object['kind']} {document.object['metadata']['name']}"
    where = "" if error.message.startswith(document.where) else f"{document.where}: {name}: "
    print(f"cuboid: {clean(where + error.message)}", file=_stderr())
    if error.hint:
        print(f"  try: {clean(error.hint)}", file=_stderr())


def _stderr() -> Any:
    import sys

    return sys.stderr


def _place(resource: Resource, document: Document, namespace: str) -> str:
    own = document.object["metadata"].get("namespace", "")
    if own and not isinstance(own, str):
        raise InvalidError(f"{document.where}: metadata.namespace is no text")
    return str(own or namespace) if resource.namespaced else ""


def _one(
    api: Api, resource: Resource, document: Document, namespace: str, *, force: bool, dry_run: bool
) -> tuple[Object | None, Object]:
    """The object before (None: there was none) and after."""
    wanted = copy.deepcopy(document.object)
    place, name = _place(resource, document, namespace), wanted["metadata"]["name"]
    if place:
        wanted["metadata"]["namespace"] = place
    for key in _OWN:
        if key != "resourceVersion":
            wanted["metadata"].pop(key, None)
    path = resource.path(place, name)
    try:
        before = api.get(path)
    except NotFoundError:
        before = None
    try:
        return before, api.apply(path, wanted, force=force, dry_run=dry_run)
    except ConflictError as error:
        if force or "conflict" not in error.message.lower():
            raise
        raise ConflictError(error.message, hint="--force-conflicts takes these fields over") from error


def _word(before: Object | None, after: Object) -> str:
    if before is None:
        return "created"
    return "unchanged" if _content(before) == _content(after) else "configured"


def _content(found: Object) -> Object:
    """Without what every write changes and what the platform tells."""
    metadata = {key: value for key, value in found["metadata"].items() if key not in _OWN}
    return {**found, "metadata": metadata, "status": None}


def _diff(resource: Resource, before: Object | None, after: Object) -> str:
    import yaml

    def lines(found: Object | None) -> list[str]:
        if found is None:
            return []
        content = {key: value for key, value in _content(found).items() if key != "status"}
        return clean(yaml.safe_dump(content)).splitlines(keepends=True)

    name = f"{resource.noun}/{after['metadata']['name']}"
    return "".join(difflib.unified_diff(lines(before), lines(after), f"{name} (now)", f"{name} (then)"))


def delete(
    words: Annotated[list[str] | None, typer.Argument(metavar="[KIND NAME… | KIND/NAME…]")] = None,
    files: Files = None,
    selector: Annotated[str, typer.Option("--selector", "-l", help="All of KIND with these labels.")] = "",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until they are gone.")] = True,
    missing_is_fine: Annotated[
        bool, typer.Option("--ignore-not-found", help="No error for what is not there.")
    ] = False,
    cascade: Annotated[
        str, typer.Option("--cascade", help="foreground: what they own goes first; background; orphan: it stays.")
    ] = "foreground",
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for each.")] = deleting.SECONDS,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    if cascade not in deleting.CASCADES:
        raise InvalidError(f"--cascade {cascade}: unknown", hint=f"one of {', '.join(deleting.CASCADES)}")
    if bool(files) == bool(words):
        raise InvalidError("what is to be deleted?", hint="cuboid delete KIND NAME, or cuboid delete -f FILE")
    wanted = documents.read(files) if files else []
    api, namespace = common.connect(namespace)
    targets = _of_files(api, wanted, namespace) if files else named(api, list(words or ()), selector, namespace)
    done = []
    with progress() as line:
        for resource, place, name in targets:
            try:
                line.update(f"deleting {resource.noun} {name}")
                deleting.delete(api, resource, place, name, line, wait=wait, cascade=cascade, seconds=timeout)
            except NotFoundError:
                if not (missing_is_fine or files):
                    raise
                continue
            line.done()
            done.append({"kind": resource.kind, "metadata": {"name": name, "namespace": place}})
            if output in (Format.TABLE, Format.WIDE, Format.NAME):
                print(f"{resource.noun}/{clean(name)}{'' if output is Format.NAME else ' deleted'}", flush=True)
    if output in (Format.JSON, Format.YAML):
        show({"items": done}, output, lambda: None)


def _of_files(api: Api, wanted: list[Document], namespace: str) -> list[tuple[Resource, str, str]]:
    """The last first: what is in a namespace, or of a kind, goes before that does. What has no kind is gone."""
    kinds, found = Kinds(api), []
    for document in reversed(wanted):
        try:
            resource = kinds.of(document, defined=False)
        except NotFoundError:
            continue
        found.append((resource, _place(resource, document, namespace), document.object["metadata"]["name"]))
    return found


def named(api: Api, words: list[str], selector: str, namespace: str) -> list[tuple[Resource, str, str]]:
    """`KIND NAME…`, `KIND/NAME…`, or `KIND` with a selector."""
    known = resources.discover(api)
    if all("/" in word for word in words):
        pairs = [word.split("/", 1) for word in words]
        found = [(resources.find(known, kind), name) for kind, name in pairs]
    else:
        resource = resources.find(known, words[0])
        names = words[1:]
        if selector:
            answer = api.get(resource.path(namespace if resource.namespaced else ""), labelSelector=selector)
            names += [row["metadata"]["name"] for row in answer["items"]]
        elif not names:
            raise InvalidError(f"which {resource.noun}?", hint=f"cuboid delete {words[0]} NAME")
        found = [(resource, name) for name in names]
    return [(resource, namespace if resource.namespaced else "", name) for resource, name in found]

"""`get`: objects of any kind, in the columns that the API has for it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from cuboid.cli import common, resources, tables
from cuboid.cli.api import Api
from cuboid.cli.output import Format, show, table
from cuboid.cli.resources import Resource
from cuboid.lib.errors import GoneError, InvalidError, NotFoundError

Object = dict[str, Any]
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
_AGAIN = 0.2  # seconds until a watch that ended is opened anew
_PAGE = "500"


def register(app: typer.Typer) -> None:
    app.command(
        "get",
        help="Show objects of any kind; without a kind, which kinds there are.\n\n"
        "Example: cuboid get pods -A; cuboid get deployment web -o yaml; cuboid get jobs -w",
    )(get)


def complete_kinds(incomplete: str) -> list[str]:
    try:
        api, _ = common.connect()
        return sorted({row.plural for row in resources.discover(api) if row.plural.startswith(incomplete)})
    except Exception:  # a completion must never print
        return []


def get(
    kind: Annotated[
        str,
        typer.Argument(metavar="[KIND[,KIND] | KIND/NAME]", autocompletion=complete_kinds, help="Any of its names."),
    ] = "",
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME…]", help="Only these.")] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")] = False,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Label selector, like app=web.")] = "",
    fields: Annotated[str, typer.Option("--field-selector", help="Like status.phase=Running.")] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on with each change.")] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    known = resources.discover(api)
    if not kind:
        _show_kinds(known, output)
        return
    wanted = list(names or ())
    if "/" in kind:
        kind, _, name = kind.partition("/")
        wanted = [name, *wanted]
    found = [row for word in kind.split(",") for row in _meant(known, word)]
    if wanted and (all_namespaces or len(found) != 1):
        raise InvalidError(
            "a name goes with one kind in one namespace", hint=f"cuboid get {found[0].noun} NAME -n NAMESPACE"
        )
    query = {"labelSelector": selector, "fieldSelector": fields}
    if watch:
        if len(found) != 1:
            raise InvalidError("-w watches one kind", hint=f"cuboid get {found[0].plural} -w")
        place = "" if all_namespaces or not found[0].namespaced else namespace
        with suppress(KeyboardInterrupt):
            _watch(api, found[0], place, wanted, query, output, all_namespaces)
        return
    if output not in (Format.TABLE, Format.WIDE) and len(found) > 1:
        places = [(row, "" if all_namespaces or not row.namespaced else namespace) for row in found]
        items = [item for row, place in places for item in _all(api, row.path(place), query)["items"]]
        show({"apiVersion": "v1", "kind": "List", "items": items}, output, lambda: None)
        return
    shown = False
    for resource in found:
        place = "" if all_namespaces or not resource.namespaced else namespace
        with_namespace = all_namespaces and resource.namespaced
        several = len(found) > 1
        shown |= _show(api, resource, place, wanted, query, output, with_namespace, several=several, further=shown)
    if not shown:
        print("nothing of these")


def _meant(known: Sequence[Resource], word: str) -> list[Resource]:
    """One kind, or all of a category (`all`)."""
    category = [row for row in known if word.lower() in row.categories]
    if category:
        return list({(row.group, row.kind): row for row in reversed(category)}.values())[::-1]
    return [resources.find(known, word)]


def _show_kinds(known: Sequence[Resource], output: Format) -> None:
    items = [
        {"name": row.plural, "short": ",".join(row.short), "apiVersion": row.api_version,
         "namespaced": row.namespaced, "kind": row.kind}
        for row in known if "list" in row.verbs
    ]  # fmt: skip
    rows = [
        [row["name"], row["short"], row["apiVersion"], str(row["namespaced"]).lower(), row["kind"]] for row in items
    ]
    show({"items": items}, output, lambda: table(("NAME", "SHORT", "APIVERSION", "NAMESPACED", "KIND"), rows))


def _show(
    api: Api, resource: Resource, namespace: str, names: list[str], query: dict[str, str], output: Format,
    with_namespace: bool, *, several: bool, further: bool,
) -> bool:  # fmt: skip
    """Whether anything was printed. Of `several` kinds each name says its kind; an empty line parts the tables."""
    if output in (Format.TABLE, Format.WIDE):
        content = _tables(api, resource, namespace, names, query)
        if not content["rows"]:
            if not several:
                where = f" in namespace {namespace}" if namespace else ""
                print(f"no {resource.plural}{where}")
            return not several
        if further:
            print()
        columns, rows = tables.cells(content, wide=output is Format.WIDE, with_namespace=with_namespace)
        if several and "NAME" in columns:
            at = columns.index("NAME")
            rows = [[*row[:at], f"{resource.noun}/{row[at]}", *row[at + 1 :]] for row in rows]
        table(columns, rows)
        return True
    if names:
        found = [resources.get(api, resource, namespace, name) for name in names]
        answer = found[0] if len(found) == 1 else {"apiVersion": "v1", "kind": "List", "items": found}
    else:
        answer = _all(api, resource.path(namespace), query)
    show(answer, output, lambda: None)
    return True


def _all(api: Api, path: str, query: dict[str, str]) -> Object:
    """A list of every page."""
    answer: Object = api.get(path, **query, limit=_PAGE)
    while token := answer["metadata"].get("continue"):
        page = api.get(path, **query, limit=_PAGE, **{"continue": token})
        answer["items"] += page["items"]
        answer["metadata"] = page["metadata"]
    return answer


def _tables(api: Api, resource: Resource, namespace: str, names: list[str], query: dict[str, str]) -> Object:
    """One table of all pages, or of all names."""
    if names:
        pages = [_named(api, resource, namespace, name) for name in names]
        return {**pages[0], "rows": [row for page in pages for row in page["rows"]]}
    asked = query | {"limit": _PAGE}
    whole: Object = api.request("GET", resource.path(namespace), query=asked, accept=TABLE)
    rows = whole.get("rows") or []
    token = whole["metadata"].get("continue")
    while token:
        page = api.request("GET", resource.path(namespace), query={**asked, "continue": token}, accept=TABLE)
        rows += page.get("rows") or []
        token = page["metadata"].get("continue")
    return {**whole, "rows": rows}


def _named(api: Api, resource: Resource, namespace: str, name: str) -> Object:
    try:
        found: Object = api.request("GET", resource.path(namespace, name), accept=TABLE)
    except NotFoundError:
        resources.get(api, resource, namespace, name)  # which says what is near
        raise
    return found


def _watch(
    api: Api, resource: Resource, namespace: str, names: list[str], query: dict[str, str], output: Format,
    with_namespace: bool,
) -> None:  # fmt: skip
    """What there is, then each change as a line of its own. Goes on when the server ends a watch."""
    if len(names) > 1:
        raise InvalidError("-w watches one object, or all", hint=f"cuboid get {resource.plural} -l LABEL=VALUE -w")
    if names:
        name = f"metadata.name={names[0]}"
        query = query | {"fieldSelector": ",".join(filter(None, (query["fieldSelector"], name)))}
    rows = tables.Rows(wide=output is Format.WIDE, with_namespace=with_namespace)
    as_table = output in (Format.TABLE, Format.WIDE)
    accept, path = TABLE if as_table else "application/json", resource.path(namespace)

    def tell(found: Object) -> None:
        if as_table:
            rows.print(found)
        elif output is Format.YAML:
            print("---")
            show(found, output, lambda: None)
        else:
            show(found, output, lambda: None)

    while True:
        content = api.request("GET", path, query=query, accept=accept)
        version = content["metadata"]["resourceVersion"]
        for found in [content] if as_table else content["items"]:
            tell(found)
        with suppress(GoneError):
            while version:
                version = _follow(api, path, query, version, accept, tell)
        time.sleep(_AGAIN)


def _follow(
    api: Api, path: str, query: dict[str, str], version: str, accept: str, tell: Callable[[Object], None]
) -> str:
    """One watch until the server ends it; the version to go on from. GoneError where the server no longer knows it."""
    asked = query | {"watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
    with api.stream("GET", path, query=asked, accept=accept) as response:
        for line in response:
            if not line.strip():
                continue
            event = json.loads(line)
            found = event["object"]
            if event["type"] == "ERROR":
                raise GoneError(str(found.get("message", "the watch ended")))
            if event["type"] != "BOOKMARK":
                tell(found)
            last = (found.get("rows") or [{"object": found}])[-1].get("object", {})
            version = last.get("metadata", {}).get("resourceVersion") or version
    return version

"""`explain`: what a kind and its fields are for, in the words of the API."""

from __future__ import annotations

from typing import Annotated

import typer

from cuboid.cli import common, resources, schemas
from cuboid.cli.output import Format, clean, show
from cuboid.cli.resources import Resource
from cuboid.cli.schemas import Field
from cuboid.cli.verbs.get import complete_kinds
from cuboid.lib.errors import NotFoundError

_WIDTH = 100


def register(app: typer.Typer) -> None:
    app.command(
        "explain",
        help="What a kind, or one of its fields, is for.\n\n"
        "Example: cuboid explain deployment.spec.strategy; cuboid explain job.spec -o json",
    )(explain)


def explain(
    path: Annotated[
        str, typer.Argument(metavar="KIND[.FIELD]…", help="Like pod.spec.containers.", autocompletion=complete_kinds)
    ],
    api_version: Annotated[
        str, typer.Option("--api-version", help="Like apps/v1.", show_default="the preferred one")
    ] = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, _ = common.connect()
    known = resources.discover(api)
    resource, fields = _resource(known, path)
    if api_version:
        resource = resources.of_kind(known, api_version, resource.kind)
    place = f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"
    document = api.get(f"/openapi/v3/{place}")
    found = schemas.find(document, resource, fields)
    show(found.as_json(), output, lambda: _print(resource, ".".join([resource.noun, *fields]), found))


def _resource(known: list[Resource], path: str) -> tuple[Resource, list[str]]:
    """A kind may be named with its group: as much of the path as names a kind is one."""
    words = path.strip(".").split(".")
    for length in range(len(words), 1, -1):
        try:
            return resources.find(known, ".".join(words[:length])), words[length:]
        except NotFoundError:
            continue
    return resources.find(known, words[0]), words[1:]


def _print(resource: Resource, path: str, found: Field) -> None:
    import textwrap

    def paragraph(text: str, indent: str) -> None:
        for part in clean(text).splitlines():
            print(textwrap.fill(part, _WIDTH, initial_indent=indent, subsequent_indent=indent))

    print(f"{path} <{found.type}>{' required' if found.required else ''}   ({resource.kind}, {resource.api_version})")
    if found.description:
        print()
        paragraph(found.description, "")
    if found.values:
        print(f"\nOne of: {clean(', '.join(found.values))}")
    for field in found.fields:
        print(f"\n  {clean(field.name)} <{clean(field.type)}>{' required' if field.required else ''}")
        paragraph(schemas.first_sentence(field.description), "    ")

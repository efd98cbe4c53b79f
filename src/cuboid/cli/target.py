"""What a NAME on the command line means: a deployment, or another thing that has pods, or a pod."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cuboid.cli import common, resources, waiting
from cuboid.cli.api import Api
from cuboid.cli.resources import CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, JOBS, PODS, REPLICA_SETS, STATEFUL_SETS, Resource
from cuboid.lib.errors import ConflictError, InvalidError, NotFoundError

Object = dict[str, Any]
ROLLED_OUT = (DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS)
WITH_PODS = (PODS, *ROLLED_OUT, JOBS)
_WORDS = {
    word: row
    for row, short in (
        (DEPLOYMENTS, "deploy"), (STATEFUL_SETS, "sts"), (DAEMON_SETS, "ds"), (JOBS, "job"), (PODS, "po"),
        (REPLICA_SETS, "rs"), (CRON_JOBS, "cj"),
    )
    for word in (row.singular, row.plural, short, row.full_name)
}  # fmt: skip


def complete(incomplete: str) -> list[str]:
    return common.complete(DEPLOYMENTS.path, incomplete)


def complete_with_pods(incomplete: str) -> list[str]:
    return [*common.complete_pods(incomplete), *complete(incomplete)]


PodOf = Annotated[
    str,
    typer.Argument(metavar="POD", help="Name of the pod, or of its deployment.", autocompletion=complete_with_pods),
]


def find(api: Api, namespace: str, text: str, among: tuple[Resource, ...] = ROLLED_OUT) -> tuple[Resource, Object]:
    """`NAME`, or `KIND/NAME` where several kinds have the name. NotFoundError that names what is near."""
    kind, slash, name = text.rpartition("/")
    if slash:
        resource = _WORDS.get(kind.lower())
        if resource is None or resource not in among:
            known = ", ".join(row.singular for row in among)
            raise InvalidError(f"{text}: what is a {kind}?", hint=f"one of {known}, like {among[0].singular}/{name}")
        return resource, resources.get(api, resource, namespace, name)
    for resource in among:
        try:
            return resource, api.get(resource.path(namespace, name))
        except NotFoundError:
            continue
    rows = [row for resource in among for row in api.get(resource.path(namespace), limit="500")["items"]]
    names = list(dict.fromkeys(row["metadata"]["name"] for row in rows))
    noun = "pod or deployment" if PODS in among else among[0].noun
    raise resources.missing(among[0]._replace(singular=noun), namespace, name, names)


def pod_of(api: Api, namespace: str, text: str, *, troubled: bool = False) -> str:
    """Name of the pod: itself, or the newest ready one of a deployment or another thing that has pods; where one has a
    problem and `troubled` is asked for, that one."""
    resource, found = find(api, namespace, text, WITH_PODS)
    if resource.kind == "Pod":
        return str(found["metadata"]["name"])
    seen = waiting.look(api, resource, namespace, found["metadata"]["name"])
    chosen = (None if troubled else waiting.newest_ready(seen)) or waiting.most_telling(seen)
    if chosen is None:
        raise ConflictError(f"{resource.noun} {text} has no pod", hint=f"cuboid events {found['metadata']['name']}")
    return str(chosen["metadata"]["name"])

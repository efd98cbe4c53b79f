"""What kinds the API has: found by any of their names, each with its paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from cuboid.cli.api import Api
from cuboid.lib.errors import NotFoundError

Object = dict[str, Any]
_DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_NEAR = 0.6  # of 1: how alike a word must be to be named


class Resource(NamedTuple):
    """One kind in one version."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def noun(self) -> str:
        return self.singular or self.kind.lower()

    @property
    def full_name(self) -> str:
        """`deployments.apps`; `pods`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str = "", name: str = "", *sub: str) -> str:
        """Of all, of those in a namespace, or of one."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = ("namespaces", namespace) if self.namespaced and namespace else ()
        return "/".join([root, *(quote(part, safe="") for part in (*within, self.plural, name, *sub) if part)])


def discover(api: Api) -> list[Resource]:
    """Every kind in every version, the preferred version of a group first."""
    found: list[Resource] = []
    for root in ("/api", "/apis"):
        for group in api.request("GET", root, accept=_DISCOVERY)["items"]:
            name = group.get("metadata", {}).get("name", "")
            for version in group.get("versions", []):
                found += [_resource(name, version["version"], row) for row in version.get("resources", [])]
    return found


def _resource(group: str, version: str, row: Object) -> Resource:
    return Resource(
        group,
        version,
        row["resource"],
        row.get("singularResource", ""),
        row.get("responseKind", {}).get("kind", ""),
        row.get("scope") == "Namespaced",
        tuple(row.get("shortNames", ())),
        tuple(row.get("verbs", ())),
        tuple(row.get("categories", ())),
    )


def find(resources: Sequence[Resource], word: str) -> Resource:
    """By its plural, singular, kind or short name, with the group where that is needed (`events.events.k8s.io`)."""
    wanted = word.lower()
    for resource in resources:
        if wanted in _names(resource):
            return resource
    names = sorted({name for resource in resources for name in (resource.plural, resource.singular) if name})
    known = near(wanted, names) or "cuboid get lists all kinds"
    raise NotFoundError(f"there is no kind {word!r}", hint=known)


def of_kind(resources: Sequence[Resource], api_version: str, kind: str) -> Resource:
    """Of an object's `apiVersion` and `kind`."""
    for resource in resources:
        if (resource.api_version, resource.kind) == (api_version, kind):
            return resource
    others = [row.api_version for row in resources if row.kind == kind]
    if others:
        raise NotFoundError(f"there is no {kind} in {api_version}", hint=f"apiVersion: {others[0]}")
    hint = near(kind, sorted({row.kind for row in resources if row.kind}))
    raise NotFoundError(f"there is no kind {kind!r} in {api_version}", hint=hint or "cuboid get lists all kinds")


def _names(resource: Resource) -> set[str]:
    plain = {resource.plural, resource.singular, resource.kind.lower(), *resource.short}
    grouped = {f"{name}.{resource.group}" for name in plain if resource.group}
    return plain | grouped | {f"{resource.plural}.{resource.version}.{resource.group}"}


def near(word: str, names: Iterable[str]) -> str:
    """Of the names those that are like the word: `web or wep`; "" where none is."""
    import difflib

    return " or ".join(difflib.get_close_matches(word, list(names), n=3, cutoff=_NEAR))


def missing(resource: Resource, namespace: str, name: str, names: Sequence[str]) -> NotFoundError:
    """What to say when none has this name: which of the `names` that exist is near, or what there is."""
    where = f" in namespace {namespace!r}" if resource.namespaced and namespace else ""
    among = f"one of {', '.join(names[:5])}" if len(names) > 1 else "".join(names)
    others = among or f"cuboid get {resource.plural} -A"
    return NotFoundError(f"no {resource.noun} {name!r}{where}", hint=near(name, names) or others)


def get(api: Api, resource: Resource, namespace: str, name: str) -> Object:
    """One object. NotFoundError that names what is near."""
    try:
        found: Object = api.get(resource.path(namespace, name))
    except NotFoundError as error:
        rows = api.get(resource.path(namespace), limit="500").get("items", [])
        raise missing(resource, namespace, name, [row["metadata"]["name"] for row in rows]) from error
    return found


DEPLOYMENTS = Resource("apps", "v1", "deployments", "deployment", "Deployment", True)
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "statefulset", "StatefulSet", True)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "daemonset", "DaemonSet", True)
REPLICA_SETS = Resource("apps", "v1", "replicasets", "replicaset", "ReplicaSet", True)
REVISIONS = Resource("apps", "v1", "controllerrevisions", "controllerrevision", "ControllerRevision", True)
JOBS = Resource("batch", "v1", "jobs", "job", "Job", True)
CRON_JOBS = Resource("batch", "v1", "cronjobs", "cronjob", "CronJob", True)
SERVICES = Resource("", "v1", "services", "service", "Service", True)
PODS = Resource("", "v1", "pods", "pod", "Pod", True)
NODES = Resource("", "v1", "nodes", "node", "Node", False)

"""The roles and bindings that every server has: Kubernetes' own, as far as there is something here that they are about.

`edit`, `view` and `admin` are aggregated, so that an operator adds the kinds of a custom resource by a labelled role.
They list kinds one by one: what is served and not named here belongs to administrators of the cluster alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cuboid.kube.identity import MASTERS

Object = dict[str, Any]
API = "rbac.authorization.k8s.io/v1"
_DEFAULTS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
_AGGREGATE = "rbac.authorization.k8s.io/aggregate-to-"
READ = ("get", "list", "watch")
WRITE = ("create", "delete", "deletecollection", "patch", "update")
ALL = ("*",)

_SEEN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("", (
        "configmaps", "endpoints", "events", "limitranges", "namespaces", "persistentvolumeclaims",
        "persistentvolumeclaims/status", "pods", "pods/log", "pods/status", "resourcequotas", "resourcequotas/status",
        "serviceaccounts", "services", "services/status",
    )),
    ("apps", (
        "controllerrevisions", "daemonsets", "daemonsets/status", "deployments", "deployments/scale",
        "deployments/status", "replicasets", "replicasets/scale", "replicasets/status", "statefulsets",
        "statefulsets/scale", "statefulsets/status",
    )),
    ("autoscaling", ("horizontalpodautoscalers", "horizontalpodautoscalers/status")),
    ("batch", ("cronjobs", "cronjobs/status", "jobs", "jobs/status")),
    ("discovery.k8s.io", ("endpointslices",)),
    ("events.k8s.io", ("events",)),
    ("metrics.k8s.io", ("pods",)),
    ("networking.k8s.io", ("ingresses", "ingresses/status", "networkpolicies")),
    ("policy", ("poddisruptionbudgets", "poddisruptionbudgets/status")),
)  # fmt: skip
_CHANGED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("", (
        "configmaps", "events", "persistentvolumeclaims", "pods", "pods/attach", "pods/ephemeralcontainers",
        "pods/eviction", "pods/exec", "pods/portforward", "pods/proxy", "pods/resize", "secrets", "serviceaccounts",
        "services", "services/proxy",
    )),
    ("apps", (
        "daemonsets", "deployments", "deployments/rollback", "deployments/scale", "replicasets", "replicasets/scale",
        "statefulsets", "statefulsets/scale",
    )),
    ("autoscaling", ("horizontalpodautoscalers",)),
    ("batch", ("cronjobs", "jobs")),
    ("events.k8s.io", ("events",)),
    ("networking.k8s.io", ("ingresses", "networkpolicies")),
    ("policy", ("poddisruptionbudgets",)),
)  # fmt: skip
_STREAMS = ("pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy")
"""Whose reading is a right of those who may change things."""


def rule(verbs: Iterable[str], group: str, resources: Iterable[str], names: Iterable[str] = ()) -> Object:
    made: Object = {"verbs": list(verbs), "apiGroups": [group], "resources": list(resources)}
    return {**made, "resourceNames": list(names)} if names else made


def urls(verbs: Iterable[str], paths: Iterable[str]) -> Object:
    return {"verbs": list(verbs), "nonResourceURLs": list(paths)}


def documents() -> Iterator[tuple[str, Object]]:
    """(kind, object) of all of them, roles before the bindings that name them."""
    for role in _roles():
        yield "ClusterRole", role
    for name, subjects in _BOUND.items():
        yield "ClusterRoleBinding", _bound(name, subjects)


def _roles() -> Iterator[Object]:
    yield _role("cluster-admin", [rule(ALL, "*", ALL), urls(ALL, ALL)])
    yield _aggregated("admin", ())
    yield _aggregated("edit", ("admin",))
    yield _aggregated("view", ("edit",))
    yield _role("system:aggregate-to-view", [rule(READ, *row) for row in _SEEN], ("view",))
    yield _role("system:aggregate-to-edit", _edit(), ("edit",))
    yield _role("system:aggregate-to-admin", _admin(), ("admin",))
    yield _role("system:discovery", [urls(("get",), _DISCOVERY)])
    yield _role("system:public-info-viewer", [urls(("get",), _PUBLIC)])
    yield _role("system:basic-user", _basic())
    yield _role("system:service-account-issuer-discovery", [urls(("get",), _ISSUER)])
    yield _role("system:auth-delegator", _delegator())
    yield _role("system:node-proxier", [rule(("list", "watch"), "", ("services", "endpoints", "nodes"))])


def _edit() -> list[Object]:
    return [
        rule(READ, "", _STREAMS),
        rule((*READ, *WRITE), "coordination.k8s.io", ("leases",)),
        *(rule(WRITE, *row) for row in _CHANGED),
        rule(("impersonate",), "", ("serviceaccounts",)),
        rule(("create",), "", ("serviceaccounts/token",)),
    ]


def _admin() -> list[Object]:
    return [
        rule(("create",), "authorization.k8s.io", ("localsubjectaccessreviews",)),
        rule((*READ, *WRITE), "rbac.authorization.k8s.io", ("rolebindings", "roles")),
    ]


def _basic() -> list[Object]:
    reviews = ("selfsubjectaccessreviews", "selfsubjectrulesreviews")
    return [
        rule(("create",), "authorization.k8s.io", reviews),
        rule(("create",), "authentication.k8s.io", ("selfsubjectreviews",)),
    ]


def _delegator() -> list[Object]:
    return [
        rule(("create",), "authentication.k8s.io", ("tokenreviews",)),
        rule(("create",), "authorization.k8s.io", ("subjectaccessreviews",)),
    ]


_PUBLIC = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_DISCOVERY = (
    "/", "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/healthz/*", "/livez", "/livez/*", "/openapi", "/openapi/*",
    "/readyz", "/readyz/*", "/version", "/version/",
)  # fmt: skip
_ISSUER = ("/.well-known/openid-configuration", "/openid/v1/jwks")
_AUTHENTICATED = ("system:authenticated",)
_BOUND: dict[str, Sequence[str]] = {
    "cluster-admin": (MASTERS,),
    "system:basic-user": _AUTHENTICATED,
    "system:discovery": _AUTHENTICATED,
    "system:public-info-viewer": (*_AUTHENTICATED, "system:unauthenticated"),
    "system:service-account-issuer-discovery": ("system:serviceaccounts",),
}
"""Groups by role."""


def _meta(name: str, labels: Iterable[str] = ()) -> Object:
    extra = {_AGGREGATE + label: "true" for label in labels}
    return {"name": name, "labels": {**_DEFAULTS, **extra}, "annotations": {AUTOUPDATE: "true"}}


def _role(name: str, rules: list[Object], into: Iterable[str] = ()) -> Object:
    return {"apiVersion": API, "kind": "ClusterRole", "metadata": _meta(name, into), "rules": rules}


def _aggregated(name: str, into: Iterable[str]) -> Object:
    gathers = {"clusterRoleSelectors": [{"matchLabels": {_AGGREGATE + name: "true"}}]}
    return {**_role(name, [], into), "aggregationRule": gathers}


def _bound(name: str, groups: Iterable[str]) -> Object:
    return {
        "apiVersion": API,
        "kind": "ClusterRoleBinding",
        "metadata": _meta(name),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": group} for group in groups],
    }

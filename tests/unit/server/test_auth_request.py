"""How a request is read for authorization, and what impersonation asks for."""

from __future__ import annotations

import pytest

from cuboid.lib.errors import InvalidError
from cuboid.server.authn.impersonation import impersonated
from cuboid.server.authz.request import attributes

PODS = "/api/v1/namespaces/a/pods"


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/api/v1/pods", "", ("list", "", "pods", "", "", "")),
        ("GET", PODS, "watch=1", ("watch", "", "pods", "", "a", "")),
        ("GET", PODS, "watch=true&fieldSelector=metadata.name%3Dx", ("watch", "", "pods", "", "a", "x")),
        ("GET", PODS, "fieldSelector=metadata.name!%3Dx", ("list", "", "pods", "", "a", "")),
        ("GET", f"{PODS}/x", "watch=1", ("get", "", "pods", "", "a", "x")),
        ("HEAD", f"{PODS}/x", "", ("get", "", "pods", "", "a", "x")),
        ("POST", PODS, "", ("create", "", "pods", "", "a", "")),
        ("DELETE", PODS, "", ("deletecollection", "", "pods", "", "a", "")),
        ("DELETE", f"{PODS}/x", "", ("delete", "", "pods", "", "a", "x")),
        ("GET", f"{PODS}/x/log", "", ("get", "", "pods", "log", "a", "x")),
        ("GET", f"{PODS}/x/exec", "", ("create", "", "pods", "exec", "a", "x")),
        ("POST", f"{PODS}/x/portforward", "", ("create", "", "pods", "portforward", "a", "x")),
        ("PUT", "/api/v1/namespaces/a/finalize", "", ("update", "", "namespaces", "finalize", "a", "a")),
        ("GET", "/api/v1/namespaces/a", "", ("get", "", "namespaces", "", "a", "a")),
        ("GET", "/api/v1/namespaces", "", ("list", "", "namespaces", "", "", "")),
        ("POST", "/api/v1/nodes/n/proxy/a/b", "", ("create", "", "nodes", "proxy", "", "n")),
        ("GET", "/apis/apps/v1/namespaces/a/deployments/x", "", ("get", "apps", "deployments", "", "a", "x")),
        ("GET", "/apis/metrics.k8s.io/v1beta1/pods", "", ("list", "metrics.k8s.io", "pods", "", "", "")),
    ],
)
def test_a_resource_request_is_read_as_kubernetes_does(
    method: str, path: str, query: str, expected: tuple[str, ...]
) -> None:
    found = attributes(method, path, query.encode())
    assert (found.verb, found.group, found.resource, found.sub, found.namespace, found.name) == expected
    assert not found.path


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version", "/x/y/z/a"]
)
def test_what_is_no_resource_keeps_its_path(path: str) -> None:
    assert attributes("GET", path, b"").path == path


def test_impersonation_needs_the_right_to_each_part() -> None:
    found = impersonated(
        [(b"impersonate-user", b"jane"), (b"impersonate-group", b"devs"), (b"impersonate-extra-a%2fb", b"c")]
    )
    assert found is not None
    user, asked = found
    assert user.name == "jane" and user.groups == ("devs", "system:authenticated") and user.extra == {"a/b": ("c",)}
    assert [(row.verb, row.target, row.name) for row in asked] == [
        ("impersonate", "users", "jane"),
        ("impersonate", "groups", "devs"),
        ("impersonate", "userextras/a/b", "c"),
    ]


def test_an_impersonated_service_account_is_asked_for_in_its_namespace() -> None:
    found = impersonated([(b"impersonate-user", b"system:serviceaccount:a:bot")])
    assert found is not None
    user, asked = found
    assert "system:serviceaccounts:a" in user.groups
    assert [(row.resource, row.namespace, row.name) for row in asked] == [("serviceaccounts", "a", "bot")]


def test_a_group_without_a_user_is_refused() -> None:
    with pytest.raises(InvalidError):
        impersonated([(b"impersonate-group", b"system:masters")])
    assert impersonated([(b"host", b"x")]) is None

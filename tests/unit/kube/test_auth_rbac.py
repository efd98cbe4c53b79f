"""Role-based access control as a pure core: what rules allow, who has them, what may be passed on."""

from __future__ import annotations

from typing import Any

import pytest

from cuboid.kube.identity import MASTERS, User, service_account
from cuboid.kube.rbac import builtin
from cuboid.kube.rbac.attributes import Attributes
from cuboid.kube.rbac.policy import Policy
from cuboid.kube.rbac.rules import Rule, Table, uncovered

JANE = User("jane", ("devs", "system:authenticated"))
ROOT = User("root", (MASTERS,))


def role(name: str, *rules: dict[str, Any], namespace: str = "", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace}, "rules": list(rules), **more}


def binding(kind: str, name: str, *subjects: tuple[str, str], namespace: str = "") -> dict[str, Any]:
    rows = [{"kind": subject, "name": who} for subject, who in subjects]
    metadata = {"name": f"{kind}-{name}", "namespace": namespace}
    return {"metadata": metadata, "roleRef": {"kind": kind, "name": name}, "subjects": rows}


def get(resource: str, namespace: str = "", name: str = "", verb: str = "get", group: str = "") -> Attributes:
    main, _, sub = resource.partition("/")
    return Attributes(verb, group, "v1", main, sub, namespace, name)


@pytest.fixture
def policy() -> Policy:
    made = Policy()
    for kind, document in builtin.documents():
        made.put(kind, document)
    return made


@pytest.mark.parametrize(
    ("rule", "wanted", "allowed"),
    [
        (Rule(("get",), ("",), ("pods",)), get("pods", "a", "x"), True),
        (Rule(("get",), ("",), ("pods",)), get("pods/log", "a", "x"), False),
        (Rule(("get",), ("",), ("pods/log",)), get("pods/log", "a", "x"), True),
        (Rule(("get",), ("",), ("pods/log",)), get("pods", "a", "x"), False),
        (Rule(("get",), ("",), ("*/log",)), get("pods/log", "a", "x"), True),
        (Rule(("get",), ("",), ("*/log",)), get("pods", "a", "x"), False),
        (Rule(("get",), ("",), ("*",)), get("pods/log", "a", "x"), True),
        (Rule(("*",), ("*",), ("*",)), get("widgets", "a", "x", "frob", "example.com"), True),
        (Rule(("get",), ("apps",), ("pods",)), get("pods", "a", "x"), False),
        (Rule(("list",), ("",), ("pods",)), get("pods", "a", "x"), False),
        (Rule(("get",), ("",), ("pods",), ("x",)), get("pods", "a", "x"), True),
        (Rule(("get",), ("",), ("pods",), ("x",)), get("pods", "a", "y"), False),
        (Rule(("list",), ("",), ("pods",), ("x",)), get("pods", "a", "", "list"), False),
        (Rule(("create",), ("",), ("pods",), ("x",)), get("pods", "a", "", "create"), False),
        (Rule(("get",), urls=("/metrics",)), Attributes("get", path="/metrics"), True),
        (Rule(("get",), urls=("/metrics",)), Attributes("get", path="/metrics/x"), False),
        (Rule(("get",), urls=("/openapi/*",)), Attributes("get", path="/openapi/v2"), True),
        (Rule(("get",), urls=("*",)), Attributes("post", path="/x"), False),
        (Rule(("*",), ("*",), ("*",)), Attributes("get", path="/metrics"), False),
    ],
)
def test_a_rule_allows_exactly_what_it_names(rule: Rule, wanted: Attributes, allowed: bool) -> None:
    assert Table([rule]).allows(wanted) is allowed


def test_a_role_binding_gives_a_cluster_role_in_its_namespace_alone(policy: Policy) -> None:
    policy.put("RoleBinding", binding("ClusterRole", "view", ("Group", "devs"), namespace="a"))
    assert policy.allows(JANE, get("pods", "a", "x"))
    assert not policy.allows(JANE, get("pods", "b", "x"))
    assert not policy.allows(JANE, get("pods", verb="list"))
    assert not policy.allows(JANE, get("secrets", "a", "x"))
    assert policy.allows(JANE, get("namespaces", "a", "a"))
    policy.remove("RoleBinding", ("a", "ClusterRole-view"))
    assert not policy.allows(JANE, get("pods", "a", "x"))


def test_a_role_of_one_namespace_is_not_that_of_another(policy: Policy) -> None:
    policy.put("Role", role("r", {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}, namespace="a"))
    policy.put("RoleBinding", binding("Role", "r", ("User", "jane"), namespace="b"))
    assert not policy.allows(JANE, get("pods", "b", "x")) and not policy.allows(JANE, get("pods", "a", "x"))
    policy.put("RoleBinding", binding("Role", "r", ("User", "jane"), namespace="a"))
    assert policy.allows(JANE, get("pods", "a", "x")) and not policy.allows(JANE, get("pods", "b", "x"))


def test_an_answer_that_is_kept_is_one_for_its_name_alone(policy: Policy) -> None:
    named = {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["mine"]}
    policy.put("Role", role("r", named, namespace="a"))
    policy.put("RoleBinding", binding("Role", "r", ("User", "jane"), namespace="a"))
    for _ in range(2):
        assert policy.allows(JANE, get("secrets", "a", "mine"))
        assert not policy.allows(JANE, get("secrets", "a", "other"))
        assert not policy.allows(JANE, get("secrets", "b", "mine"))


def test_a_service_account_is_its_own_subject(policy: Policy) -> None:
    bound = binding("ClusterRole", "view", ("ServiceAccount", "bot"), namespace="a")
    policy.put("RoleBinding", bound)
    assert policy.allows(service_account("a", "bot"), get("pods", "a"))
    assert not policy.allows(service_account("b", "bot"), get("pods", "a"))
    assert not policy.allows(User("bot"), get("pods", "a"))


def test_aggregated_roles_gather_one_another_and_what_is_added_later(policy: Policy) -> None:
    policy.put("RoleBinding", binding("ClusterRole", "admin", ("User", "jane"), namespace="a"))
    assert policy.allows(JANE, get("pods", "a", "x")), "from view, by edit"
    assert policy.allows(JANE, get("secrets", "a", "x")), "from edit"
    assert policy.allows(JANE, get("roles", "a", "x", "create", "rbac.authorization.k8s.io"))
    widgets = get("widgets", "a", "x", group="example.com")
    assert not policy.allows(JANE, widgets)
    more = role("more", {"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["widgets"]})
    more["metadata"]["labels"] = {"rbac.authorization.k8s.io/aggregate-to-view": "true"}
    policy.put("ClusterRole", more)
    assert policy.allows(JANE, widgets)


def test_roles_that_gather_each_other_come_to_an_end() -> None:
    policy = Policy()
    for name in ("a", "b"):
        made = role(name, aggregationRule={"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]})
        made["metadata"]["labels"] = {"x": "y"}
        policy.put("ClusterRole", made)
    assert policy.role(("", "a")) == ()


def test_masters_may_everything_without_any_role() -> None:
    assert Policy().allows(ROOT, get("anything", verb="frob"))


def test_everybody_may_discover_and_ask_about_themselves(policy: Policy) -> None:
    for path in ("/api", "/apis/apps/v1", "/openapi/v3", "/version"):
        assert policy.allows(JANE, Attributes("get", path=path))
    own = get("selfsubjectaccessreviews", verb="create", group="authorization.k8s.io")
    assert policy.allows(JANE, own)
    others = get("subjectaccessreviews", verb="create", group="authorization.k8s.io")
    assert not policy.allows(JANE, others)
    assert not policy.allows(JANE, get("tokenreviews", verb="create", group="authentication.k8s.io"))


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ([Rule(("get",), ("",), ("pods",))], 0),
        ([Rule(("get", "list"), ("",), ("pods", "secrets"))], 3),
        ([Rule(("*",), ("",), ("pods",))], 1),
        ([Rule(("get",), ("",), ("pods",), ("x",))], 0),
        ([Rule(("get",), ("",), ("secrets",), ("mine",))], 0),
        ([Rule(("get",), ("",), ("secrets",))], 1),
        ([Rule(("get",), urls=("/healthz/*",))], 0),
        ([Rule(("get",), urls=("/x",))], 1),
    ],
)
def test_nobody_passes_on_more_than_they_have(asked: list[Rule], missing: int) -> None:
    own = Table(
        [
            Rule(("get",), ("",), ("pods",)),
            Rule(("get",), ("",), ("secrets",), ("mine",)),
            Rule(("get",), urls=("/healthz*",)),
        ]
    )
    assert len(uncovered((own,), asked)) == missing


def test_the_refusal_is_in_kubernetes_words() -> None:
    assert get("pods", "a", "x").denied("jane") == (
        'pods "x" is forbidden: User "jane" cannot get resource "pods" in API group "" in the namespace "a"'
    )
    assert get("deployments/scale", "a", "x", "update", "apps").denied("jane") == (
        'deployments.apps "x" is forbidden: User "jane" cannot update resource "deployments/scale" '
        'in API group "apps" in the namespace "a"'
    )
    assert get("nodes", verb="list").denied("jane") == (
        'nodes is forbidden: User "jane" cannot list resource "nodes" in API group "" at the cluster scope'
    )
    assert Attributes("get", path="/x").denied("jane") == 'forbidden: User "jane" cannot get path "/x"'


def test_the_reason_names_the_binding(policy: Policy) -> None:
    policy.put("RoleBinding", binding("ClusterRole", "view", ("Group", "devs"), namespace="a"))
    assert policy.reason(JANE, get("pods", "a")) == (
        'RBAC: allowed by RoleBinding "ClusterRole-view/a" of ClusterRole "view" to Group "devs"'
    )
    assert policy.reason(JANE, get("pods", "b")) == ""

"""Validation of roles and of who has them. Source: kubernetes/pkg/apis/rbac/validation."""

from __future__ import annotations

from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.validate_selectors import validate_selector

Raw = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"
_SUBJECTS = ("Group", "ServiceAccount", "User")


def validate_role(document: Raw, fields: Fields, *, namespaced: bool) -> None:
    for index, rule in enumerate(document.get("rules", [])):
        _validate_rule(rule, f"rules[{index}]", fields, namespaced=namespaced)
    if (aggregation := document.get("aggregationRule")) is not None:
        path, selectors = "aggregationRule.clusterRoleSelectors", aggregation.get("clusterRoleSelectors", [])
        if not selectors:
            fields.required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")
        for index, selector in enumerate(selectors):
            validate_selector(selector, f"{path}[{index}]", fields)


def _validate_rule(rule: Raw, path: str, fields: Fields, *, namespaced: bool) -> None:
    if not rule.get("verbs"):
        fields.required(f"{path}.verbs", "verbs must contain at least one value")
    urls, where = rule.get("nonResourceURLs", []), f"{path}.nonResourceURLs"
    if urls:
        if namespaced:
            fields.invalid(where, urls, "namespaced rules cannot apply to non-resource URLs")
        if any(rule.get(key) for key in ("apiGroups", "resources", "resourceNames")):
            fields.invalid(where, urls, "rules cannot apply to both regular resources and non-resource URLs")
        return
    for key, words in (("apiGroups", "api group"), ("resources", "resource")):
        if not rule.get(key):
            fields.required(f"{path}.{key}", f"resource rules must supply at least one {words}")


def validate_binding(document: Raw, fields: Fields, *, namespaced: bool) -> None:
    role = document.get("roleRef", {})
    known = ("ClusterRole", "Role") if namespaced else ("ClusterRole",)
    if role.get("apiGroup") != GROUP:
        fields.unsupported("roleRef.apiGroup", role.get("apiGroup", ""), (GROUP,))
    if role.get("kind", "") not in known:
        fields.unsupported("roleRef.kind", role.get("kind", ""), known)
    if not role.get("name"):
        fields.required("roleRef.name")
    else:
        fields.all_invalid("roleRef.name", role["name"], syntax.path_segment(role["name"]))
    for index, subject in enumerate(document.get("subjects", [])):
        _validate_subject(subject, f"subjects[{index}]", fields, namespaced=namespaced)


def _validate_subject(subject: Raw, path: str, fields: Fields, *, namespaced: bool) -> None:
    kind, name = subject.get("kind", ""), subject.get("name", "")
    if not name:
        fields.required(f"{path}.name")
    if kind not in _SUBJECTS:
        fields.unsupported(f"{path}.kind", kind, _SUBJECTS)
        return
    group = "" if kind == "ServiceAccount" else GROUP
    if subject.get("apiGroup", "") != group:
        fields.unsupported(f"{path}.apiGroup", subject.get("apiGroup", ""), (group,))
    if kind == "ServiceAccount":
        if name:
            fields.all_invalid(f"{path}.name", name, syntax.dns_subdomain(name))
        if not namespaced and not subject.get("namespace"):
            fields.required(f"{path}.namespace")


def validate_binding_change(new: Raw, old: Raw, fields: Fields) -> None:
    if new.get("roleRef") != old.get("roleRef"):
        fields.invalid("roleRef", new.get("roleRef"), "cannot change roleRef")

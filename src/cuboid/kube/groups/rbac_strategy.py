"""Strategies of `rbac.authorization.k8s.io`. Source: kubernetes/pkg/apis/rbac/v1/defaults.go."""

from __future__ import annotations

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.strategy import Object, Strategy
from cuboid.kube.validate_rbac import GROUP, validate_binding, validate_binding_change, validate_role


class _RbacStrategy(Strategy):
    """What can stand in a URL may be the name of a role: `system:node`."""

    name_rule = staticmethod(syntax.path_segment)

    def __init__(self, *, namespaced: bool) -> None:
        self._namespaced = namespaced


class RoleStrategy(_RbacStrategy):
    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_role(new, fields, namespaced=self._namespaced)


class BindingStrategy(_RbacStrategy):
    def default(self, new: Object) -> None:
        role = new.setdefault("roleRef", {})
        role["apiGroup"] = role.get("apiGroup") or GROUP
        for subject in new.get("subjects", []):
            if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
                subject["apiGroup"] = GROUP

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_binding(new, fields, namespaced=self._namespaced)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        validate_binding_change(new, old, fields)

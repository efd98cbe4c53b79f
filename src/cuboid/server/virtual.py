"""Resources that are answered and not stored, as discovery and OpenAPI tell of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Virtual:
    """A resource that is answered and not stored. `definition` names its schema, where there is one."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool
    verbs: tuple[str, ...]
    definition: str = ""


def _review(group: str, kind: str, *, namespaced: bool = False) -> Virtual:
    return Virtual(
        f"{group}.k8s.io", "v1", kind, f"{kind.lower()}s", namespaced, ("create",), f"io.k8s.api.{group}.v1.{kind}"
    )


VIRTUAL = (
    Virtual("", "v1", "Binding", "bindings", True, ("create",), "io.k8s.api.core.v1.Binding"),
    _review("authentication", "SelfSubjectReview"),
    _review("authentication", "TokenReview"),
    _review("authorization", "LocalSubjectAccessReview", namespaced=True),
    _review("authorization", "SelfSubjectAccessReview"),
    _review("authorization", "SelfSubjectRulesReview"),
    _review("authorization", "SubjectAccessReview"),
    Virtual("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes", False, ("get", "list")),
    Virtual("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", True, ("get", "list")),
)

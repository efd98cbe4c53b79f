"""Rights that are needed beside that to the write itself: nobody grants more than they have, nor ties others' objects.

Source: kubernetes/pkg/registry/rbac (escalation check), kubernetes/plugin/pkg/admission/gc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cuboid.kube import status
from cuboid.kube.admission import Request
from cuboid.kube.admit.plug import CREATE, UPDATE, Plug, is_master, refusal
from cuboid.kube.identity import User
from cuboid.kube.kind import Kind
from cuboid.kube.kinds import Kinds
from cuboid.kube.rbac.attributes import Attributes
from cuboid.kube.rbac.policy import GROUP, Policy
from cuboid.kube.rbac.rules import Rule, rules_of, uncovered
from cuboid.lib.errors import ForbiddenError

Raw = Mapping[str, Any]
Allows = Callable[[User, Attributes], bool]
_ROLES = ((GROUP, "roles"), (GROUP, "clusterroles"))
_BINDINGS = ((GROUP, "rolebindings"), (GROUP, "clusterrolebindings"))
MOST_RIGHTS = 50_000
"""Rights that one role may list, verbs times groups times resources times names: a body of 3 MiB can list 10^15."""


class Creation(Plug):
    """Who makes an object by applying or replacing what is not there needs the right to create it, as with a POST."""

    def __init__(self, allows: Allows) -> None:
        self._allows = allows

    def admit(self, request: Request) -> None:
        kind = request.kind
        wanted = Attributes("create", kind.group, kind.version, kind.plural, "", request.namespace)
        if not is_master(request.user) and not self._allows(request.user, wanted):
            raise ForbiddenError(wanted.denied(request.user.name))


class Escalation(Plug):
    about = (*_ROLES, *_BINDINGS)
    operations = (CREATE, UPDATE)

    def __init__(self, policy: Policy, allows: Allows) -> None:
        self._policy = policy
        self._allows = allows

    def admit(self, request: Request) -> None:
        if request.new is None or is_master(request.user):
            return
        if request.kind.stored_as in _ROLES:
            self._role(request, request.new)
        else:
            self._binding(request, request.new)

    def _may(self, request: Request, verb: str, resource: str, name: str) -> bool:
        wanted = Attributes(verb, GROUP, "v1", resource, "", request.namespace, name)
        return self._allows(request.user, wanted)

    def _role(self, request: Request, role: Raw) -> None:
        if request.old is not None and _same(role, request.old, ("rules", "aggregationRule")):
            return
        if self._may(request, "escalate", request.kind.plural, request.name):
            return
        rules = rules_of(role)
        if sum(rule.size for rule in rules) > MOST_RIGHTS:
            raise refusal(request, f"its rules list more than {MOST_RIGHTS} rights: use several roles, or *")
        if role.get("aggregationRule"):  # whatever is labelled so, later too
            self._covered(request, [Rule(("*",), ("*",), ("*",)), Rule(("*",), urls=("*",))])
        self._covered(request, rules)

    def _binding(self, request: Request, binding: Raw) -> None:
        if request.old is not None and _same(binding, request.old, ("roleRef", "subjects")):
            return
        ref = binding.get("roleRef") or {}
        is_role, name = ref.get("kind") == "Role", str(ref.get("name", ""))
        plural, place = "roles" if is_role else "clusterroles", (request.namespace if is_role else "", name)
        if self._may(request, "bind", plural, name):
            return
        if not self._policy.has_role(place):  # whatever it will give one day is not known to be the binder's
            raise status.not_found(plural, GROUP, name)
        self._covered(request, self._policy.role(place))

    def _covered(self, request: Request, rules: Iterable[Rule]) -> None:
        missing = uncovered(self._policy.tables(request.user, request.namespace), rules)
        if missing:
            groups = ", ".join(f'"{group}"' for group in request.user.groups)
            who = f'user "{request.user.name}" (groups=[{groups}])'
            told = "\n".join(rule.told() for rule in missing)
            raise refusal(request, f"{who} is attempting to grant RBAC permissions not currently held:\n{told}")


def _same(new: Raw, old: Raw, keys: tuple[str, ...]) -> bool:
    return all((new.get(key) or None) == (old.get(key) or None) for key in keys)


class OwnerReferences(Plug):
    """`blockOwnerDeletion` on an owner that one may not change would keep its deletion waiting."""

    operations = (CREATE, UPDATE)

    def __init__(self, kinds: Kinds, allows: Allows) -> None:
        self._kinds = kinds
        self._allows = allows

    def admit(self, request: Request) -> None:
        if request.new is None or is_master(request.user):
            return
        given = request.new["metadata"].get("ownerReferences") or []
        if not given:
            return
        before = {_identity(ref) for ref in (request.old or {}).get("metadata", {}).get("ownerReferences") or []}
        for ref in given:
            if ref.get("blockOwnerDeletion") and _identity(ref) not in before and not self._may(request, ref):
                raise refusal(
                    request,
                    "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set "
                    f"finalizers on: no right to update {ref.get('kind', '')} {ref.get('name', '')}",
                )

    def _may(self, request: Request, ref: Raw) -> bool:
        kind = self._kind(ref)
        if kind is None:
            return False
        namespace = request.namespace if kind.namespaced else ""
        wanted = (
            Attributes("update", kind.group, kind.version, kind.plural, sub, namespace, str(ref.get("name", "")))
            for sub in ("finalizers", "")
        )
        return any(self._allows(request.user, item) for item in wanted)

    def _kind(self, ref: Raw) -> Kind | None:
        group, _, version = str(ref.get("apiVersion", "")).rpartition("/")
        wanted = (group, version, ref.get("kind"))
        return next((kind for kind in self._kinds if (kind.group, kind.version, kind.kind) == wanted), None)


def _identity(ref: Raw) -> tuple[Any, bool]:
    return ref.get("uid"), bool(ref.get("blockOwnerDeletion"))

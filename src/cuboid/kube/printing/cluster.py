"""How `kubectl get` prints quotas, roles, classes, ingresses and policies. Source: pkg/printers/internalversion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube.columns import PLAIN, Column, age
from cuboid.kube.printing.templates import NONE, selector

Raw = Mapping[str, Any]
_NAME, _AGE = PLAIN
_SHOWN = 3

CREATED = (_NAME, Column("Created At", "date"))


def created(document: Raw, now: float) -> list[Any]:
    return [document["metadata"]["name"], document["metadata"].get("creationTimestamp")]


def _made(document: Raw, now: float) -> str:
    return age(document["metadata"].get("creationTimestamp"), now)


QUOTA = (_NAME, Column("Request"), Column("Limit"), _AGE)


def quota(document: Raw, now: float) -> list[Any]:
    status = document.get("status", {})
    hard, used = status.get("hard", {}), status.get("used", {})
    sides: dict[bool, list[str]] = {True: [], False: []}
    for name in sorted(hard):
        sides[name.startswith("limits.")].append(f"{name}: {used.get(name, '0')}/{hard[name]}")
    return [document["metadata"]["name"], ", ".join(sides[False]), ", ".join(sides[True]), _made(document, now)]


BINDING = (
    _NAME, Column("Role"), _AGE, Column("Users", priority=1), Column("Groups", priority=1),
    Column("ServiceAccounts", priority=1),
)  # fmt: skip


def binding(document: Raw, now: float) -> list[Any]:
    role = document.get("roleRef", {})
    found: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in document.get("subjects", []):
        name = subject.get("name", "")
        if subject.get("kind") == "ServiceAccount":
            name = f"{subject.get('namespace', '')}/{name}"
        found.get(subject.get("kind", ""), []).append(name)
    return [
        document["metadata"]["name"], f"{role.get('kind', '')}/{role.get('name', '')}", _made(document, now),
        *(", ".join(names) for names in found.values()),
    ]  # fmt: skip


PRIORITY = (_NAME, Column("Value", "integer"), Column("Global-Default", "boolean"), Column("PreemptionPolicy"), _AGE)


def priority(document: Raw, now: float) -> list[Any]:
    return [
        document["metadata"]["name"], document.get("value", 0), bool(document.get("globalDefault")),
        document.get("preemptionPolicy", "PreemptLowerPriority"), _made(document, now),
    ]  # fmt: skip


RUNTIME = (_NAME, Column("Handler"), _AGE)


def runtime(document: Raw, now: float) -> list[Any]:
    return [document["metadata"]["name"], document.get("handler", ""), _made(document, now)]


INGRESS = (_NAME, Column("Class"), Column("Hosts"), Column("Address"), Column("Ports"), _AGE)


def ingress(document: Raw, now: float) -> list[Any]:
    spec = document.get("spec", {})
    hosts = [rule["host"] for rule in spec.get("rules", []) if rule.get("host")]
    shown = ",".join(hosts[:_SHOWN]) or "*"
    if len(hosts) > _SHOWN:
        shown += f" + {len(hosts) - _SHOWN} more..."
    ways = document.get("status", {}).get("loadBalancer", {}).get("ingress", [])
    addresses = sorted({way.get("ip") or way.get("hostname") or "" for way in ways} - {""})
    return [
        document["metadata"]["name"], spec.get("ingressClassName") or NONE, shown, ",".join(addresses),
        "80, 443" if spec.get("tls") else "80", _made(document, now),
    ]  # fmt: skip


INGRESS_CLASS = (_NAME, Column("Controller"), Column("Parameters"), _AGE)


def ingress_class(document: Raw, now: float) -> list[Any]:
    spec = document.get("spec", {})
    given, shown = spec.get("parameters"), NONE
    if given:
        group = f".{given['apiGroup']}" if given.get("apiGroup") else ""
        shown = f"{given.get('kind', '')}{group}/{given.get('name', '')}"
    return [document["metadata"]["name"], spec.get("controller", ""), shown, _made(document, now)]


POLICY = (_NAME, Column("Pod-Selector"), _AGE)


def policy(document: Raw, now: float) -> list[Any]:
    chosen = document.get("spec", {}).get("podSelector")
    return [document["metadata"]["name"], selector(chosen), _made(document, now)]

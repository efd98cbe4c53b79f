"""Strategies of PriorityClass and RuntimeClass. Source: kubernetes/pkg/apis/{scheduling,node}/validation."""

from __future__ import annotations

from cuboid.kube import quantity, syntax
from cuboid.kube.fields import Fields
from cuboid.kube.strategy import Object, Strategy
from cuboid.kube.validate_meta import validate_labels
from cuboid.kube.validate_scheduling import validate_tolerations

HIGHEST = 1_000_000_000
"""The largest value of a class that is not the system's."""
SYSTEM = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_POLICIES = ("Never", "PreemptLowerPriority")
_RESERVED = "priority class names with 'system-' prefix are reserved for system use only. error: "


class PriorityStrategy(Strategy):
    has_generation = True

    def changed(self, new: Object, old: Object) -> bool:
        return any(new.get(key) != old.get(key) for key in ("description", "globalDefault"))

    def default(self, new: Object) -> None:
        new.setdefault("value", 0)
        new.setdefault("preemptionPolicy", "PreemptLowerPriority")

    def validate_body(self, new: Object, fields: Fields) -> None:
        name, value = new["metadata"].get("name", ""), new["value"]
        if name.startswith("system-"):
            if why := _not_of_the_system(name, new):
                fields.forbidden("metadata.name", _RESERVED + why)
        elif value > HIGHEST:
            fields.forbidden("value", f"maximum allowed value of a user defined priority is {HIGHEST}")
        if new["preemptionPolicy"] not in _POLICIES:
            fields.unsupported("preemptionPolicy", new["preemptionPolicy"], _POLICIES)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        if new["value"] != old.get("value"):
            fields.forbidden("value", "may not be changed in an update.")
        fields.immutable("preemptionPolicy", new["preemptionPolicy"], old.get("preemptionPolicy"))


def _not_of_the_system(name: str, new: Object) -> str:
    if name not in SYSTEM:
        return f"{name} is not a known system priority class"
    if new["value"] != SYSTEM[name]:
        return f"value of {name} PriorityClass must be {SYSTEM[name]}"
    return f"globalDefault of {name} PriorityClass must be false" if new.get("globalDefault") else ""


class RuntimeStrategy(Strategy):
    def validate_body(self, new: Object, fields: Fields) -> None:
        handler = new.get("handler", "")
        fields.all_invalid("handler", handler, syntax.dns_label(handler))
        for name, amount in new.get("overhead", {}).get("podFixed", {}).items():
            path = f"overhead.podFixed[{name}]"
            fields.all_invalid(path, name, syntax.qualified_name(name))
            if quantity.parse(amount) < 0:
                fields.invalid(path, amount, "must be greater than or equal to 0")
        scheduling = new.get("scheduling", {})
        validate_labels(scheduling.get("nodeSelector", {}), "scheduling.nodeSelector", fields)
        tolerations = scheduling.get("tolerations", [])
        validate_tolerations(tolerations, "scheduling.tolerations", fields)
        for index, toleration in enumerate(tolerations):
            if toleration in tolerations[:index]:
                fields.duplicate(f"scheduling.tolerations[{index}]", toleration)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        fields.immutable("handler", new.get("handler"), old.get("handler"))

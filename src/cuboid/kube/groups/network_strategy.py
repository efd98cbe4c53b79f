"""Strategies of endpoints, ingresses and network policies. Source: kubernetes/pkg/apis/{core,discovery,networking}."""

from __future__ import annotations

from cuboid.kube.fields import Fields
from cuboid.kube.strategy import Object, SpecStrategy, Strategy
from cuboid.kube.validate_endpoints import validate_endpoints, validate_slice
from cuboid.kube.validate_networking import validate_ingress, validate_ingress_class, validate_policy
from cuboid.kube.validate_service import validate_balancer_status


def _default_ports(ports: list[Object]) -> None:
    for port in ports:
        port["protocol"] = port.get("protocol") or "TCP"


class EndpointsStrategy(Strategy):
    def default(self, new: Object) -> None:
        for subset in new.get("subsets", []):
            _default_ports(subset.get("ports", []))

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_endpoints(new, fields)


class SliceStrategy(Strategy):
    has_generation = True

    def default(self, new: Object) -> None:
        _default_ports(new.get("ports", []))
        for port in new.get("ports", []):
            port.setdefault("name", "")

    def changed(self, new: Object, old: Object) -> bool:
        labels = new["metadata"].get("labels") != old["metadata"].get("labels")
        return labels or any(new.get(key) != old.get(key) for key in ("endpoints", "ports"))

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_slice(new, fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        fields.immutable("addressType", new.get("addressType"), old.get("addressType"))


class IngressStrategy(SpecStrategy):
    def prepare_create(self, new: Object, now: str) -> None:
        new["status"] = {"loadBalancer": {}}

    def default(self, new: Object) -> None:
        new.setdefault("spec", {})

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_ingress(new["spec"], fields)

    def validate_status(self, new: Object, old: Object, fields: Fields) -> None:
        super().validate_status(new, old, fields)
        validate_balancer_status(new.get("status", {}), None, fields)


class _SpecAlone(Strategy):
    """A kind whose changes of `spec` are counted, and that has no status."""

    has_generation = True

    def default(self, new: Object) -> None:
        self.default_spec(new.setdefault("spec", {}))

    def default_spec(self, spec: Object) -> None: ...


class IngressClassStrategy(_SpecAlone):
    def default_spec(self, spec: Object) -> None:
        if "parameters" in spec:
            spec["parameters"].setdefault("scope", "Cluster")

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_ingress_class(new["spec"], fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        before = old.get("spec", {}).get("controller")
        fields.immutable("spec.controller", new["spec"].get("controller"), before)


class PolicyStrategy(_SpecAlone):
    def default_spec(self, spec: Object) -> None:
        for key in ("ingress", "egress"):
            for rule in spec.get(key, []):
                _default_ports(rule.get("ports", []))
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]

    def validate_body(self, new: Object, fields: Fields) -> None:
        validate_policy(new["spec"], fields)

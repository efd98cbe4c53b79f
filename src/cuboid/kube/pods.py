"""The Pod strategy: defaults, status at birth, graceful deletion, selectable fields."""

from __future__ import annotations

import time
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from cuboid.kube.entry import encode
from cuboid.kube.fields import Fields
from cuboid.kube.names import ADMITTED_AT
from cuboid.kube.pod_defaults import default_pod
from cuboid.kube.qos import qos_class
from cuboid.kube.strategy import Object, Strategy
from cuboid.kube.validate_pod import validate_pod_birth, validate_pod_spec
from cuboid.kube.validate_pod_change import validate_pod_change
from cuboid.kube.validate_pod_status import validate_pod_status
from cuboid.lib.clock import rfc3339_micro

DEFAULT_GRACE = 30
MANY_VALID = 4_096
"""Specs that are remembered as valid."""


class PodStrategy(Strategy):
    has_status = True
    has_generation = True

    def __init__(self) -> None:
        self._valid: set[bytes] = set()

    def prepare_create(self, new: Object, now: str) -> None:
        new["status"] = {"phase": "Pending", "qosClass": qos_class(new.get("spec", {}))}
        metadata = new["metadata"]
        metadata["annotations"] = {**(metadata.get("annotations") or {}), ADMITTED_AT: rfc3339_micro(time.time())}

    def default(self, new: Object) -> None:
        default_pod(new)

    def validate(self, new: Object, fields: Fields) -> None:
        super().validate(new, fields)
        validate_pod_birth(new.get("spec", {}), fields)

    def validate_body(self, new: Object, fields: Fields) -> None:
        """The pods of a Deployment or a Job have the same spec: what was found valid is not looked at again."""
        spec = new.get("spec", {})
        seen = blake2b(encode(spec), digest_size=32).digest()
        if seen in self._valid:
            return
        before = len(fields.errors)
        validate_pod_spec(spec, fields)
        if len(fields.errors) == before:
            if len(self._valid) >= MANY_VALID:
                self._valid.clear()
            self._valid.add(seen)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        validate_pod_change(new, old, fields)

    def prepare_status(self, new: Object, old: Object) -> None:
        super().prepare_status(new, old)
        status, before = new.setdefault("status", {}), old.get("status", {})
        if "qosClass" in before:
            status["qosClass"] = before["qosClass"]

    def validate_update(self, new: Object, old: Object, fields: Fields) -> None:
        """A spec that did not change was validated when it came."""
        if new.get("spec") == old.get("spec"):
            self.validate_status(new, old, fields)
        else:
            super().validate_update(new, old, fields)

    def validate_status(self, new: Object, old: Object, fields: Fields) -> None:
        super().validate_status(new, old, fields)
        status = new.get("status", {})
        if status != old.get("status", {}):
            validate_pod_status(status, fields)

    def grace_seconds(self, old: Object, asked: int | None) -> int | None:
        spec, status = old.get("spec", {}), old.get("status", {})
        grace: int = spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE) if asked is None else asked
        if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
            return 0
        return 1 if grace < 0 else grace

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        spec, status = document.get("spec", {}), document.get("status", {})
        ips = status.get("podIPs") or [{"ip": status.get("podIP", "")}]
        return {
            **super().selectable(document),
            "spec.nodeName": spec.get("nodeName", ""),
            "spec.restartPolicy": spec.get("restartPolicy", ""),
            "spec.schedulerName": spec.get("schedulerName", ""),
            "spec.serviceAccountName": spec.get("serviceAccountName", ""),
            "spec.hostNetwork": str(spec.get("hostNetwork", False)).lower(),
            "status.phase": status.get("phase", ""),
            "status.podIP": ips[0].get("ip", ""),
            "status.nominatedNodeName": status.get("nominatedNodeName", ""),
        }

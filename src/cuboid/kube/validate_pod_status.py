"""What the status of a pod may say. Source: kubernetes/pkg/apis/core/validation, ValidatePodStatusUpdate.

A container may leave the terminated state under any restart policy: a pod that was stopped can be started again. A pod
may have several addresses of one family: what its CNI plug-in gave it.
"""

from __future__ import annotations

from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields

Raw = dict[str, Any]
_NON_NEGATIVE = "must be a non-negative integer"


def validate_pod_status(status: Raw, fields: Fields) -> None:
    for index, condition in enumerate(status.get("conditions", [])):
        path, kind = f"status.conditions[{index}]", condition.get("type", "")
        fields.all_invalid(f"{path}.Type", kind, syntax.qualified_name(kind))
        if condition.get("observedGeneration", 0) < 0:
            fields.invalid(f"{path}.observedGeneration", condition["observedGeneration"], _NON_NEGATIVE)
    if node := status.get("nominatedNodeName"):
        fields.all_invalid("status.nominatedNodeName", node, syntax.dns_subdomain(node))
    if status.get("observedGeneration", 0) < 0:
        fields.invalid("status.observedGeneration", status["observedGeneration"], _NON_NEGATIVE)
    for key in ("podIPs", "hostIPs"):
        for index, item in enumerate(status.get(key, [])):
            text = item.get("ip", "")
            fields.all_invalid(f"status.{key}[{index}]", text, syntax.ip_address(text))
    hosts = status.get("hostIPs", [])
    if hosts and hosts[0].get("ip", "") != status.get("hostIP", ""):
        fields.invalid("status.hostIPs[0].ip", hosts[0].get("ip", ""), "must be equal to `hostIP`")

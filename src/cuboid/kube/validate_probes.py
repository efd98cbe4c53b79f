"""Validation of probes and hooks of containers. Source: kubernetes/pkg/apis/core/validation."""

from __future__ import annotations

from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields

Raw = dict[str, Any]
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOKS = ("exec", "httpGet", "tcpSocket", "sleep")
_NUMBERS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")


def validate_probe(probe: Raw, path: str, kind: str, fields: Fields) -> None:
    """`kind` is one of PROBES."""
    _validate_handler(probe, path, _HANDLERS, 0, fields)
    for key in _NUMBERS:
        fields.negative(f"{path}.{key}", probe.get(key))
    if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        fields.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")
    grace, where = probe.get("terminationGracePeriodSeconds"), f"{path}.terminationGracePeriodSeconds"
    if grace is not None and grace <= 0:
        fields.invalid(where, grace, "must be greater than 0")
    if grace is not None and kind == "readinessProbe":
        fields.invalid(where, grace, "must not be set for readinessProbes")


def validate_lifecycle(lifecycle: Raw, path: str, grace: int, fields: Fields) -> None:
    """`grace` is what the pod gets to end, in seconds."""
    for key in ("postStart", "preStop"):
        if key in lifecycle:
            _validate_handler(lifecycle[key], f"{path}.{key}", _HOOKS, grace, fields)


def _validate_handler(handler: Raw, path: str, known: tuple[str, ...], grace: int, fields: Fields) -> None:
    given = [key for key in known if key in handler]
    if not given:
        fields.required(path, "must specify a handler type")
    for key in given[1:]:
        fields.forbidden(f"{path}.{key}", "may not specify more than 1 handler type")
    for key in given[:1]:
        _validate_action(key, handler[key], f"{path}.{key}", grace, fields)


def _validate_action(kind: str, action: Raw, path: str, grace: int, fields: Fields) -> None:
    if kind == "exec" and not action.get("command"):
        fields.required(f"{path}.command")
    if kind == "sleep" and not 0 <= action.get("seconds", 0) <= max(grace, 0):
        why = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
        fields.invalid(path, action.get("seconds", 0), why)
    if kind == "httpGet":
        _validate_http(action, path, fields)
    if kind in ("httpGet", "tcpSocket", "grpc"):
        port = action.get("port", 0)
        check = syntax.port_number(port) if isinstance(port, int) else syntax.port_name(port)
        fields.all_invalid(f"{path}.port", port, check)


def _validate_http(action: Raw, path: str, fields: Fields) -> None:
    if not action.get("path"):
        fields.required(f"{path}.path")
    if action.get("scheme", "HTTP") not in ("HTTP", "HTTPS"):
        fields.unsupported(f"{path}.scheme", action["scheme"], ("HTTP", "HTTPS"))
    for header in action.get("httpHeaders", []):
        fields.all_invalid(f"{path}.httpHeaders", header.get("name", ""), syntax.header_name(header.get("name", "")))

"""Defaults of a pod that are visible in what the API answers. Source: kubernetes/pkg/apis/core/v1/defaults.go."""

from __future__ import annotations

from typing import Any

Raw = dict[str, Any]
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_PROBE_DEFAULTS = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}


def default_pod(pod: Raw) -> None:
    """Set what is not set. Idempotent."""
    spec: Raw = pod.setdefault("spec", {})
    default_pod_spec(spec)
    _fill(spec, enableServiceLinks=True)
    spec["serviceAccountName"] = spec["serviceAccount"] = spec.get("serviceAccountName") or "default"
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind, []):
            _default_requests(container["resources"])


def default_template(template: Raw) -> None:
    """A template of pods gets less than a pod: what depends on where and for whom it runs is decided then."""
    template.setdefault("metadata", {})
    default_pod_spec(template.setdefault("spec", {}))


def default_pod_spec(spec: Raw) -> None:
    _fill(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
    )
    spec.setdefault("securityContext", {})
    if account := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind, []):
            default_container(container)
    for volume in spec.get("volumes", []):
        _default_volume(volume)


def _fill(target: Raw, **values: Any) -> None:
    for key, value in values.items():
        target.setdefault(key, value)


def default_container(container: Raw) -> None:
    _fill(container, terminationMessagePath="/dev/termination-log", terminationMessagePolicy="File")
    container.setdefault("resources", {})
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = "Always" if _tag(container.get("image", "")) == "latest" else "IfNotPresent"
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    for variable in container.get("env", []):
        if field := variable.get("valueFrom", {}).get("fieldRef"):
            field.setdefault("apiVersion", "v1")
    for key in _PROBES:
        if key in container:
            _default_probe(container[key])
    for hook in container.get("lifecycle", {}).values():
        if isinstance(hook, dict):
            _default_http(hook)


def _default_requests(resources: Raw) -> None:
    """What is limited and not requested is requested up to its limit."""
    if limits := resources.get("limits"):
        resources["requests"] = {**limits, **resources.get("requests", {})}


def _tag(image: str) -> str:
    """The tag of a reference, "latest" if it has neither tag nor digest, "" with a digest alone."""
    name, _, digest = image.partition("@")
    last = name.rpartition("/")[2]
    if ":" in last:
        return last.rpartition(":")[2]
    return "" if digest else "latest"


def _default_probe(probe: Raw) -> None:
    for key, value in _PROBE_DEFAULTS.items():
        if not probe.get(key):
            probe[key] = value
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")
    _default_http(probe)


def _default_http(handler: Raw) -> None:
    if "httpGet" in handler:
        _fill(handler["httpGet"], path="/", scheme="HTTP")


def _default_volume(volume: Raw) -> None:
    if not any(key != "name" for key in volume):
        volume["emptyDir"] = {}
    for key in ("configMap", "secret", "downwardAPI", "projected"):
        if key in volume:
            volume[key].setdefault("defaultMode", 0o644)
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    files = list(volume.get("downwardAPI", {}).get("items", []))
    for source in volume.get("projected", {}).get("sources", []):
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        files += source.get("downwardAPI", {}).get("items", [])
    for file in files:
        if "fieldRef" in file:
            file["fieldRef"].setdefault("apiVersion", "v1")

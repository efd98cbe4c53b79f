"""One word for what a pod does, as `kubectl get pods` says it. Source: kubernetes printPod."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class PodSummary:
    """`last_restart` is when a container that was restarted ended, RFC 3339, "" if none was."""

    reason: str
    ready: int
    total: int
    restarts: int
    last_restart: str


def pod_summary(document: Raw) -> PodSummary:
    spec, status = document.get("spec", {}), document.get("status", {})
    sidecars = {c.get("name", "") for c in spec.get("initContainers", []) if c.get("restartPolicy") == "Always"}
    inits, mains = status.get("initContainerStatuses", []), status.get("containerStatuses", [])
    waiting_for = _init_reason(spec, inits, sidecars)
    counted = inits if waiting_for else [s for s in inits if s.get("name") in sidecars] + list(mains)
    ready_counted = [s for s in inits if s.get("name") in sidecars] + ([] if waiting_for else list(mains))
    return PodSummary(
        reason=_reason(document, waiting_for, mains),
        ready=sum(_is_ready(s) for s in ready_counted),
        total=len(spec.get("containers", [])) + len(sidecars),
        restarts=sum(s.get("restartCount", 0) for s in counted),
        last_restart=max((_ended(s) for s in counted), default=""),
    )


def _is_ready(status: Raw) -> bool:
    return bool(status.get("ready")) and "running" in status.get("state", {})


def _ended(status: Raw) -> str:
    return str(status.get("lastState", {}).get("terminated", {}).get("finishedAt") or "")


def _reason(document: Raw, waiting_for: str, mains: list[Raw]) -> str:
    status = document.get("status", {})
    phase = status.get("reason") or status.get("phase") or "Unknown"
    reason = waiting_for or _main_reason(phase, status, mains)
    if not document["metadata"].get("deletionTimestamp"):
        return reason
    if status.get("reason") == "NodeLost":
        return "Unknown"
    return reason if status.get("phase") in ("Succeeded", "Failed") else "Terminating"


def _init_reason(spec: Raw, inits: list[Raw], sidecars: set[str]) -> str:
    """`Init:…` while initialisation has not come to its end, else ""."""
    for index, status in enumerate(inits):
        state = status.get("state", {})
        ended = state.get("terminated")
        if ended is not None and ended.get("exitCode", 0) == 0:
            continue
        if status.get("name") in sidecars and status.get("started"):
            continue
        if ended is not None:
            return "Init:" + _ended_reason(ended)
        waiting = state.get("waiting", {}).get("reason", "")
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}"
        return f"Init:{index}/{len(spec.get('initContainers', []))}"
    return ""


def _ended_reason(ended: Raw) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


def _main_reason(phase: str, status: Raw, mains: list[Raw]) -> str:
    reason, running = phase, False
    for container in reversed(mains):
        state = container.get("state", {})
        if state.get("waiting", {}).get("reason"):
            reason = state["waiting"]["reason"]
        elif state.get("terminated"):
            reason = _ended_reason(state["terminated"])
        elif container.get("ready") and "running" in state:
            running = True
    if reason == "Completed" and running:
        ready = any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions", []))
        return "Running" if ready else "NotReady"
    return str(reason)

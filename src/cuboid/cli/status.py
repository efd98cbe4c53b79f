"""What a pod's status means in one word and one sentence. Pure: objects in, text out."""

from __future__ import annotations

import json
from typing import Any

Object = dict[str, Any]
RECEIPT = "cuboid.dev/receipt"
PAUSED = "cuboid.dev/Paused"


def containers(pod: Object) -> list[Object]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def main_container(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["name"])


def main_status(pod: Object) -> Object:
    name = main_container(pod)
    return next((row for row in pod.get("status", {}).get("containerStatuses", []) if row["name"] == name), {})


def word(pod: Object) -> str:
    """The STATUS column, chosen as kubectl chooses it: the most telling reason."""
    if pod["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = pod.get("status", {})
    for row in containers(pod):
        state = row.get("state", {})
        waiting = state.get("waiting", {}).get("reason", "")
        if waiting and waiting not in ("PodInitializing", "ContainerCreating"):
            return str(waiting)
    if status.get("reason"):
        return str(status["reason"])
    for row in status.get("containerStatuses", []):
        ended = row.get("state", {}).get("terminated")
        if ended and (ended.get("exitCode") or status.get("phase") in ("Succeeded", "Failed")):
            return str(ended.get("reason") or f"ExitCode:{ended.get('exitCode')}")
    if status.get("phase") == "Pending" and any(row.get("state", {}).get("waiting") for row in containers(pod)):
        return "ContainerCreating"
    return str(status.get("phase", "Pending"))


def paused(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(row.get("type") == PAUSED and row.get("status") == "True" for row in conditions)


def going(pod: Object) -> bool:
    """Whether it ends, or has ended."""
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return ended or bool(pod["metadata"].get("deletionTimestamp"))


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return not going(pod) and any(row.get("type") == "Ready" and row.get("status") == "True" for row in conditions)


def ready(pod: Object) -> str:
    rows = pod.get("status", {}).get("containerStatuses", [])
    return f"{sum(1 for row in rows if row.get('ready'))}/{len(pod['spec']['containers'])}"


def restarts(pod: Object) -> int:
    return sum(int(row.get("restartCount", 0)) for row in containers(pod))


def started(pod: Object) -> bool:
    """Whether the first container has run (or has ended)."""
    state = main_status(pod).get("state", {})
    return "running" in state or "terminated" in state


def exit_code(pod: Object) -> int | None:
    """Exit code of the first container once it has ended for good, else None."""
    if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
        return None
    ended = main_status(pod).get("state", {}).get("terminated")
    return int(ended["exitCode"]) if ended and "exitCode" in ended else None


def problem(pod: Object) -> tuple[str, str] | None:
    """(reason, message): the one cause why a pod does not run or has failed; None if nothing is wrong."""
    status = pod.get("status", {})
    rows = containers(pod)
    for row in rows:
        waiting = row.get("state", {}).get("waiting", {})
        if waiting.get("message"):
            return str(waiting.get("reason", "")), str(waiting["message"])
    if status.get("message") and (status.get("phase") == "Failed" or status.get("reason")):
        return str(status.get("reason", "Failed")), str(status["message"])
    for row in rows:
        for key in ("state", "lastState"):
            ended = row.get(key, {}).get("terminated")
            if ended and ended.get("exitCode", 0) != 0:
                return str(ended.get("reason", "Error")), _ended(row["name"], ended)
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("reason", "")), str(condition.get("message", ""))
    return None


def _ended(name: str, ended: Object) -> str:
    if ended.get("message"):
        return str(ended["message"])
    if ended.get("reason") == "OOMKilled":
        return f"container {name} used more memory than its limit and was killed; give it more with -m"
    how = (
        f"was killed by signal {ended['signal']}"
        if ended.get("signal")
        else f"ended with exit code {ended['exitCode']}"
    )
    return f"container {name} {how}"


def part_of(pod: Object) -> str:
    """Name of the deployment, job or other thing that made the pod; "" if nothing did."""
    owner = next((row for row in pod["metadata"].get("ownerReferences", []) if row.get("controller")), None)
    if owner is None:
        return ""
    template = pod["metadata"].get("labels", {}).get("pod-template-hash", "")
    return str(owner["name"]).removesuffix(f"-{template}") if template else str(owner["name"])


def receipt(pod: Object) -> Object | None:
    text = pod["metadata"].get("annotations", {}).get(RECEIPT)
    try:
        content = json.loads(text) if text else None
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def ports(pod: Object) -> list[tuple[str, str]]:
    """(host side, container side) of the published ports: `0.0.0.0:8080`, `80/tcp`."""
    found = []
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", []):
            if port.get("hostPort"):
                inside = f"{port['containerPort']}/{port.get('protocol', 'TCP').lower()}"
                found.append((f"{port.get('hostIP') or '0.0.0.0'}:{port['hostPort']}", inside))
    return found

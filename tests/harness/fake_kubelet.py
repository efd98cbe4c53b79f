"""A node agent without nodes: pods are bound, run, become ready, end and go when a test says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cuboid.kube import objects
from cuboid.kube.client import MERGE, NODES, PODS, Client
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import NotFoundError

Object = dict[str, Any]


class FakeKubelet:
    """Names of pods are in namespace "default" unless said otherwise. `frozen` pods are left alone by `work`."""

    def __init__(self, client: Client, now: Callable[[], float]) -> None:
        self._client = client
        self._now = now
        self.frozen: set[str] = set()
        self.dead: set[str] = set()
        """Nodes whose pods are left alone, since nobody is there."""
        self.binds = True
        """Whether `work` chooses nodes; not where a scheduler does."""
        self.makes_ready = True
        """Whether `work` makes pods ready that it starts."""

    async def work(self) -> bool:
        """Bind, start and end what waits for it; False when nothing did."""
        busy = False
        pods = (await self._client.list(PODS)).items
        nodes = [objects.name(node) for node in (await self._client.list(NODES)).items] or ["node-1"]
        taken = sum(bool(pod["spec"].get("nodeName")) for pod in pods)
        for pod in pods:
            name, namespace = objects.name(pod), objects.namespace(pod)
            if name in self.frozen or pod["spec"].get("nodeName") in self.dead:
                continue
            if not self.binds and not pod["spec"].get("nodeName"):
                continue
            if objects.deleting(pod):
                busy |= await self.gone(name, namespace)
            elif objects.phase(pod) == "Pending":
                if not pod["spec"].get("nodeName"):
                    await self.bind(name, wanted_node(pod) or nodes[taken % len(nodes)], namespace)
                    taken += 1
                await self.run(name, namespace, ready=self.makes_ready)
                busy = True
            elif objects.phase(pod) == "Running" and self.makes_ready and not objects.ready(pod):
                await self.run(name, namespace)
                busy = True
        return busy

    async def bind(self, name: str, node: str = "node-1", namespace: str = "default") -> None:
        body = {"metadata": {"name": name}, "target": {"kind": "Node", "name": node}}
        await self._client.create(PODS, body, namespace, name=name, sub="binding")

    async def run(self, name: str, namespace: str = "default", *, ready: bool = True) -> Object:
        """It runs, and is ready or not."""
        pod = await self._client.get(PODS, name, namespace)
        if not pod["spec"].get("nodeName"):
            await self.bind(name, wanted_node(pod) or "node-1", namespace)
        state = {"running": {"startedAt": rfc3339(self._now())}}
        return await self._set(pod, "Running", ready, [self._container(c, state, ready) for c in _containers(pod)])

    async def finish(
        self, name: str, namespace: str = "default", *, phase: str = "Succeeded", code: int | None = None, **status: Any
    ) -> Object:
        """All its containers end with `code` (0, or 1 for Failed); more of the status by keyword (reason, ...)."""
        pod = await self._client.get(PODS, name, namespace)
        code = (1 if phase == "Failed" else 0) if code is None else code
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": rfc3339(self._now())}
        rows = [self._container(c, {"terminated": ended}, False) for c in _containers(pod)]
        return await self._set(pod, phase, False, rows, **status)

    async def gone(self, name: str, namespace: str = "default") -> bool:
        """A pod that is asked to end has ended; False when finalizers (or its absence) leave nothing to do."""
        try:
            pod = await self._client.get(PODS, name, namespace)
        except NotFoundError:
            return False
        if pod["metadata"].get("finalizers"):
            if objects.finished(pod):
                return False
            await self.finish(name, namespace, phase="Failed")
            return True
        await self._client.delete(PODS, name, namespace, grace=0, uid=objects.uid(pod))
        return True

    async def _set(self, pod: Object, phase: str, ready: bool, containers: list[Object], **status: Any) -> Object:
        now, word = rfc3339(self._now()), str(ready)
        conditions = [dict(item) for item in pod.get("status", {}).get("conditions", [])]
        for type_ in ("Ready", "ContainersReady"):
            known = next((item for item in conditions if item["type"] == type_), None)
            if known is None:
                conditions.append({"type": type_, "status": word, "lastTransitionTime": now})
            elif known["status"] != word:
                known.update(status=word, lastTransitionTime=now)
        body = {
            "phase": phase,
            "conditions": conditions,
            "containerStatuses": containers,
            "podIP": "10.0.0.1",
            **status,
        }
        place = (objects.name(pod), {"status": body}, objects.namespace(pod))
        return await self._client.patch(PODS, *place, form=MERGE, sub="status")

    @staticmethod
    def _container(container: Object, state: Object, ready: bool) -> Object:
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": f"sha256:{container['image']}",
            "ready": ready,
            "started": "running" in state,
            "restartCount": 0,
            "state": state,
        }


def _containers(pod: Object) -> list[Object]:
    found: list[Object] = pod["spec"]["containers"]
    return found


def wanted_node(pod: Object) -> str:
    """The node that a pod of a DaemonSet names in its affinity."""
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])
    for field in (field for term in terms for field in term.get("matchFields", [])):
        if field["key"] == "metadata.name":
            return str(field["values"][0])
    return ""

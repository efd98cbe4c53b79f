"""The node agent's side of the Kubernetes API: `Api`, the events' sink, and the ConfigMaps and Secrets of pods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cuboid.kube import names, objects, types
from cuboid.kube.client import (
    CONFIG_MAPS,
    EVENTS,
    LEASES,
    MERGE,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    KubeClient,
    Resource,
)
from cuboid.kube.informer import Informer
from cuboid.lib.aio import TaskSet
from cuboid.lib.clock import Clock, rfc3339_micro
from cuboid.lib.errors import AlreadyExistsError, ConflictError, CuboidError, ForbiddenError, NotFoundError
from cuboid.lib.log import get_log
from cuboid.node.api import Change, PodChange
from cuboid.node.objects import ObjectKey
from cuboid.node.tokens import AccountTokens

log = get_log(__name__)
Raw = dict[str, Any]
CHANGES = {"ADDED": Change.SET, "MODIFIED": Change.SET, "DELETED": Change.GONE}
RESOURCES = {"ConfigMap": CONFIG_MAPS, "Secret": SECRETS}
WATCH_AGAIN_SECONDS = 5.0
ROOT_CA = "kube-root-ca.crt"  # the ConfigMap with the API's CA, in every namespace
AUTHORITY_SECONDS = 10.0


class KubeApi:
    """See `cuboid.node.api.Api` and `cuboid.node.events.EventSink`."""

    def __init__(self, client: KubeClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def watch_pods(self, node: str, on_change: Callable[[PodChange], None]) -> None:
        informer = Informer(self._client, PODS, fields=f"spec.nodeName={node}")

        async def tell_when_synced() -> None:
            await informer.synced.wait()
            uids = frozenset(str(pod["metadata"].get("uid", "")) for pod in informer.objects.values())
            on_change(PodChange(Change.SYNCED, uids=uids))

        async with TaskSet("pod-watch") as tasks:
            tasks.start(tell_when_synced(), name="synced")
            async for kind, pod in informer.events():
                on_change(PodChange(CHANGES[kind], pod))

    async def patch_pod_status(self, namespace: str, name: str, uid: str, status: Raw) -> None:
        body = {"metadata": {"uid": uid}, "status": status}
        await self._client.patch(PODS, name, body, namespace, form=MERGE, sub="status")

    async def annotate_pod(self, namespace: str, name: str, uid: str, annotations: dict[str, str]) -> None:
        body = {"metadata": {"uid": uid, "annotations": annotations}}
        await self._client.patch(PODS, name, body, namespace, form=MERGE)

    async def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        await self._client.delete(PODS, name, namespace, grace=0, uid=uid)

    async def put_node(self, node: Raw) -> bool:
        name = node["metadata"]["name"]
        lost = False
        try:
            before = await self._client.patch(NODES, name, {"metadata": node["metadata"]}, form=MERGE)
            ready = objects.condition(before, "Ready")
            lost = ready is not None and ready.get("status") == "Unknown"
        except NotFoundError:
            with suppress(AlreadyExistsError):
                await self._client.create(NODES, node)
        await self._client.patch(NODES, name, {"status": node["status"]}, form=MERGE, sub="status")
        return lost

    async def renew_lease(self, node: str, seconds: int) -> None:
        spec = {"holderIdentity": node, "leaseDurationSeconds": seconds, "renewTime": rfc3339_micro(self._clock.now())}
        try:
            await self._client.patch(LEASES, node, {"spec": spec}, names.LEASE_NAMESPACE, form=MERGE)
        except NotFoundError:
            await self._create_lease(node, spec)

    async def _create_lease(self, node: str, spec: Raw) -> None:
        lease = {
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": node, "namespace": names.LEASE_NAMESPACE}, "spec": spec,
        }  # fmt: skip
        with suppress(AlreadyExistsError, ConflictError, ForbiddenError):  # a server of ours has it from its start
            space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": names.LEASE_NAMESPACE}}
            await self._client.create(NAMESPACES, space)
        with suppress(AlreadyExistsError):
            await self._client.create(LEASES, lease, names.LEASE_NAMESPACE)

    async def create_event(self, namespace: str, event: Raw) -> None:
        await self._client.create(EVENTS, event, namespace)

    async def patch_event(self, namespace: str, name: str, changes: Raw) -> None:
        await self._client.patch(EVENTS, name, changes, namespace, form=MERGE)


class KubeObjects:
    """ConfigMaps and Secrets, read when asked for; those that volumes show are watched and their changes told.

    Also the tokens of the pods' accounts.
    """

    def __init__(self, client: KubeClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._tokens = AccountTokens(client, clock)
        self._authorities: dict[str, tuple[float, Raw]] = {}  # by namespace: until when it need not be read again
        self._watches: dict[ObjectKey, asyncio.Task[None]] = {}
        self._wanted: set[ObjectKey] = set()
        self._wake = asyncio.Event()
        self.on_change: Callable[[ObjectKey], None] = lambda key: None

    async def token(self, pod: types.Pod, wanted: types.ServiceAccountTokenProjection) -> str:
        return await self._tokens.token(pod, wanted)

    def token_due(self, pod: types.Pod, wanted: types.ServiceAccountTokenProjection) -> bool:
        return self._tokens.due(pod, wanted)

    async def config_map(self, namespace: str, name: str) -> types.ConfigMap | None:
        read = self._authority(namespace) if name == ROOT_CA else self._get(CONFIG_MAPS, namespace, name)
        found = await read
        return None if found is None else types.config_map(found)

    async def _authority(self, namespace: str) -> Raw | None:
        """Nearly every pod has it, and reads it several times in its start: it may be some seconds old. A pod that has
        started is told at once when it changes."""
        until, known = self._authorities.get(namespace, (0.0, None))
        if known is not None and self._clock.monotonic() < until:
            return known
        found = await self._get(CONFIG_MAPS, namespace, ROOT_CA)
        self._authorities.pop(namespace, None)
        if found is not None:
            self._authorities[namespace] = (self._clock.monotonic() + AUTHORITY_SECONDS, found)
        return found

    async def secret(self, namespace: str, name: str) -> types.Secret | None:
        found = await self._get(SECRETS, namespace, name)
        return None if found is None else types.secret(found)

    async def _get(self, resource: Resource, namespace: str, name: str) -> Raw | None:
        try:
            return await self._client.get(resource, name, namespace)
        except NotFoundError:
            return None

    def watch(self, keys: set[ObjectKey]) -> None:
        """The objects that matter from now on."""
        self._wanted = keys
        self._wake.set()

    async def run(self) -> None:
        """One watch per object that a volume shows, for as long as one does."""
        async with TaskSet("objects") as tasks:
            while True:
                await self._wake.wait()
                self._wake.clear()
                for key in set(self._watches) - self._wanted:
                    self._watches.pop(key).cancel()
                for key in self._wanted - set(self._watches):
                    self._watches[key] = tasks.start(self._follow(key), name=f"{key.kind}/{key.namespace}/{key.name}")

    async def _follow(self, key: ObjectKey) -> None:
        while True:
            informer = Informer(self._client, RESOURCES[key.kind], key.namespace, fields=f"metadata.name={key.name}")
            try:
                async for _ in informer.events():
                    if key.name == ROOT_CA:
                        self._authorities.pop(key.namespace, None)
                    self.on_change(key)
            except CuboidError as error:
                log.warning("cannot watch", kind=key.kind, name=key.name, error=str(error))
            await asyncio.sleep(WATCH_AGAIN_SECONDS)

"""A node agent with fakes below and beside it: an API in memory, images without content, VMs without a VMM."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cuboid.guest.base import EventHook, Guest
from cuboid.guest.client import AgentClient
from cuboid.guest.fake import FakeAgent, Script
from cuboid.images.base import Credentials, Image, ImageConfig, ProgressHook
from cuboid.kube.types import ConfigMap, Pod, Secret, ServiceAccountTokenProjection
from cuboid.lib.clock import SystemClock
from cuboid.lib.errors import ConflictError, CuboidError, NotFoundError
from cuboid.net.fake import FakeNetwork
from cuboid.node.api import Change, PodChange
from cuboid.node.boots import Boots, GuestBoot
from cuboid.node.daemon import NodeDaemon
from cuboid.node.parts import ordinary_shape
from cuboid.node.settings import NodeSettings
from cuboid.node.steps.gate import BootGate
from cuboid.node.steps.tools import Tools
from cuboid.node.volumes import VolumeRefresher
from cuboid.node.warm.machines import Bounds, WarmMachines
from cuboid.node.warm.templates import Templates
from cuboid.storage.fake import FakeDisks
from cuboid.vmm.base import Boot, Vm
from cuboid.vmm.fake import FakeDriver, FakeHost

Raw = dict[str, Any]
SETTINGS = NodeSettings(
    name="node", backoff=0.1, pull_backoff=0.2, retry=0.1, boot_seconds=5.0, drain_seconds=2.0, lost_seconds=1.0,
    heartbeat_seconds=0.2, templates=0,
)  # fmt: skip


def merge(into: Raw, patch: Raw) -> None:
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict):
            merge(into.setdefault(key, {}), value)
        else:
            into[key] = value


class FakeClaims:
    """Claims by namespace and name, volumes by name."""

    def __init__(self) -> None:
        self.claims: dict[tuple[str, str], Raw] = {}
        self.volumes: dict[str, Raw] = {}

    async def claim(self, namespace: str, name: str) -> Raw | None:
        return self.claims.get((namespace, name))

    async def volume(self, name: str) -> Raw | None:
        return self.volumes.get(name)


class FakeApi:
    """Pods of one node. `patches` counts status patches; `fail` makes the next call of a method raise."""

    def __init__(self) -> None:
        self.pods: dict[tuple[str, str], Raw] = {}
        self.node: Raw = {}
        self.lost = False
        """Whether the API takes the node for lost."""
        self.leases = 0
        self.patches = 0
        self.deleted: list[str] = []
        self.phases: list[str] = []
        self._failures: dict[str, list[CuboidError]] = {}
        self._listeners: list[Callable[[PodChange], None]] = []
        self._changed = asyncio.Event()

    def fail(self, method: str, error: CuboidError, times: int = 1) -> None:
        self._failures.setdefault(method, []).extend([error] * times)

    def _may_fail(self, method: str) -> None:
        if waiting := self._failures.get(method):
            raise waiting.pop(0)

    # --- what a user does ---

    def put(self, pod: Raw) -> None:
        meta = pod["metadata"]
        self.pods[meta["namespace"], meta["name"]] = pod
        self._tell(PodChange(Change.SET, pod))

    def change(self, name: str, patch: Raw) -> None:
        merge(self.pods["default", name], patch)
        self._tell(PodChange(Change.SET, self.pods["default", name]))

    def delete(self, name: str, grace: int = 30) -> None:
        meta = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}
        self.change(name, {"metadata": meta})

    def vanish(self, name: str) -> None:
        self._tell(PodChange(Change.GONE, self.pods.pop(("default", name))))

    def status(self, name: str) -> Raw:
        found: Raw = self.pods["default", name].get("status", {})
        return found

    async def until(self, true: Callable[[], object], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                self._changed.clear()
                await asyncio.wait([asyncio.ensure_future(self._changed.wait())], timeout=0.02)

    def _tell(self, change: PodChange) -> None:
        self._changed.set()
        for listener in self._listeners:
            listener(replace(change, pod=_copy(change.pod)))

    # --- Api ---

    async def watch_pods(self, node: str, on_change: Callable[[PodChange], None]) -> None:
        self._listeners = [on_change]
        for pod in self.pods.values():
            on_change(PodChange(Change.SET, _copy(pod)))
        on_change(PodChange(Change.SYNCED, uids=frozenset(p["metadata"]["uid"] for p in self.pods.values())))
        await asyncio.Event().wait()

    def _pod(self, namespace: str, name: str, uid: str = "") -> Raw:
        if (namespace, name) not in self.pods:
            raise NotFoundError(f'pods "{name}" not found')
        pod = self.pods[namespace, name]
        if uid and pod["metadata"]["uid"] != uid:
            raise ConflictError("another uid")
        return pod

    async def patch_pod_status(self, namespace: str, name: str, uid: str, status: Raw) -> None:
        self._may_fail("patch_pod_status")
        pod = self._pod(namespace, name, uid)
        self.patches += 1
        merge(pod.setdefault("status", {}), _copy(status))
        self.phases.append(pod["status"]["phase"])
        self._tell(PodChange(Change.SET, pod))

    async def annotate_pod(self, namespace: str, name: str, uid: str, annotations: dict[str, str]) -> None:
        self._may_fail("annotate_pod")
        merge(self._pod(namespace, name, uid)["metadata"].setdefault("annotations", {}), dict(annotations))
        self._tell(PodChange(Change.SET, self.pods[namespace, name]))

    async def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        self._may_fail("delete_pod")
        pod = self._pod(namespace, name, uid)
        self.deleted.append(uid)
        del self.pods[namespace, name]
        self._tell(PodChange(Change.GONE, pod))

    async def put_node(self, node: Raw) -> bool:
        self._may_fail("put_node")
        lost, self.lost = self.lost, False
        self.node = node
        self._changed.set()
        return lost

    async def renew_lease(self, node: str, seconds: int) -> None:
        self.leases += 1
        self._changed.set()


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


class FakeImages:
    """Every name below `known` is there or can be pulled; what is in `broken` raises."""

    def __init__(self, folder: Path) -> None:
        self._device = folder / "image.erofs"
        self._device.touch()
        self.config = ImageConfig(entrypoint=("/app",), env=("PATH=/bin",))
        self.present: set[str] = set()
        self.others: dict[str, str] = {}  # names of images with an id of their own
        self.broken: dict[str, CuboidError] = {}
        self.pulled: list[tuple[str, Credentials | None]] = []
        self.held: set[str] = set()

    def _image(self, reference: str) -> Image:
        image_id = self.others.get(reference) or (reference if reference in self.others.values() else "sha256:1")
        return Image(image_id, "sha256:2", (reference,), self._device, 1 << 20, self.config, "amd64", "")

    async def resolve(self, reference: str, *, credentials: Credentials | None = None) -> Image | None:
        known = {*self.present, "sha256:1", *self.others.values()}
        return self._image(reference) if reference in known else None

    async def pull(
        self, reference: str, *, credentials: Credentials | None = None, progress: ProgressHook | None = None
    ) -> Image:
        self.pulled.append((reference, credentials))
        if reference in self.broken:
            raise self.broken[reference]
        self.present.add(reference)
        return self._image(reference)

    async def import_archive(
        self, path: Path, *, name: str | None = None, progress: ProgressHook | None = None
    ) -> list[Image]:
        return []

    def images(self) -> list[Image]:
        return [self._image(name) for name in sorted(self.present)]

    async def remove(self, reference: str) -> list[str]:
        return []

    def hold(self, image: Image, pod_uid: str) -> None:
        self.held.add(pod_uid)

    def release(self, pod_uid: str) -> None:
        self.held.discard(pod_uid)

    def holders(self) -> set[str]:
        return set(self.held)

    async def sweep(self) -> None:
        return None


class FileDisks(FakeDisks):
    """Fake disks whose paths name (empty) files: the fake driver looks for them."""

    async def create_writable(self, pod_uid: str, size_bytes: int) -> Path:
        return _touch(await super().create_writable(pod_uid, size_bytes))

    async def acquire_volume(self, namespace: str, name: str, pod_uid: str, size_bytes: int, *, pod: str = "") -> Path:
        return _touch(await super().acquire_volume(namespace, name, pod_uid, size_bytes, pod=pod))


def _touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


class FakeObjects:
    def __init__(self) -> None:
        self.secrets: dict[str, Secret] = {}
        self.config_maps: dict[str, ConfigMap] = {}

    async def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        return self.config_maps.get(name)

    async def secret(self, namespace: str, name: str) -> Secret | None:
        return self.secrets.get(name)

    async def token(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> str:
        return f"token of {pod.metadata.uid} for {wanted.audience}"

    def token_due(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> bool:
        return False


class FakeRecorder:
    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def normal(self, pod: Pod, reason: str, message: str, *, container: str = "") -> None:
        self.events.append((reason, message))

    def warning(self, pod: Pod, reason: str, message: str, *, container: str = "") -> None:
        self.events.append((reason, message))


@dataclass
class Host:
    """What outlives a node agent: VMs with their agents, networks, disks, images, the API."""

    folder: Path
    scripts: dict[str, Script] = field(default_factory=dict)
    api: FakeApi = field(default_factory=FakeApi)
    vms: FakeHost = field(default_factory=FakeHost)
    network: FakeNetwork = field(default_factory=FakeNetwork)
    objects: FakeObjects = field(default_factory=FakeObjects)
    claims: FakeClaims = field(default_factory=FakeClaims)
    recorder: FakeRecorder = field(default_factory=FakeRecorder)
    agents: dict[str, FakeAgent] = field(default_factory=dict)
    watchers: list[asyncio.Future[None]] = field(default_factory=list)
    boot_id: str = "boot-1"
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.disks = FileDisks(self.folder / "disks")
        self.images = FakeImages(self.folder)
        self.driver = FakeDriver(self.folder / "run", agent=self._agent, host=self.vms)
        self.kernel = _touch(self.folder / "kernel")
        boot = Boot(self.kernel, self.kernel)
        self.guest = GuestBoot("minimal", boot, boot, overhead_mib=32, min_memory_mib=64)

    async def _agent(self, path: Path) -> Callable[[], Awaitable[None]]:
        agent = FakeAgent(path, self.scripts)
        self.agents[path.stem] = agent
        # Before anything is awaited: a node agent that is killed here leaves a whole machine, as a real one would be.
        self.watchers.append(asyncio.ensure_future(self._powers_off(agent, path.stem)))
        await asyncio.shield(asyncio.ensure_future(agent.__aenter__()))

        async def stop() -> None:
            self.agents.pop(path.stem, None)
            await agent.__aexit__()

        return stop

    async def _powers_off(self, agent: FakeAgent, vm_id: str) -> None:
        await agent.shut_down.wait()
        if vm_id in self.vms.machines:
            await self.driver.guest_power_off(vm_id)

    def agent(self) -> FakeAgent:
        """The only guest's."""
        (agent,) = self.agents.values()
        return agent

    def vm(self) -> str:
        (vm,) = self.vms.machines
        return vm

    def tools(self, settings: NodeSettings = SETTINGS) -> Tools:
        gate, clock = BootGate(4), SystemClock()
        templates = Templates(
            self.folder / "templates", self.driver, _client, gate, clock, boot_seconds=settings.boot_seconds,
            keep=settings.templates,
        )  # fmt: skip
        bounds = Bounds(settings.warm_min, settings.warm_max, settings.warm_percent, machine_mib=1)
        warm = WarmMachines(
            templates, self.driver, self.network, self.disks, _client, gate, clock, bounds=bounds,
            image=self.folder / "rehearsal.erofs", boot_seconds=settings.boot_seconds,
        )  # fmt: skip
        if settings.warm_min:
            warm.favour(ordinary_shape(settings, self.guest, self.driver), disk_bytes=64 << 20)
        return Tools(
            settings=settings, driver=self.driver, network=self.network, disks=self.disks, images=self.images,
            objects=self.objects, api=self.api, recorder=self.recorder, refresher=VolumeRefresher(self.objects),
            guest=_client, boots=Boots(self.guest),
            gate=gate, templates=templates, warm=warm, clock=clock, node="node",
            host_ip="192.0.2.1", cpus=2,
        )  # fmt: skip

    @asynccontextmanager
    async def agent_running(self, settings: NodeSettings = SETTINGS) -> AsyncIterator[NodeDaemon]:
        """A node agent for the length of the block; it ends as by SIGTERM."""
        daemon, stop = (
            NodeDaemon(self.tools(settings), self.folder / "state", self.claims, boot_id=self.boot_id),
            asyncio.Event(),
        )
        async with asyncio.TaskGroup() as group:
            task = group.create_task(daemon.run(stop))
            try:
                yield daemon
            finally:
                stop.set()
                await task

    async def end(self) -> None:
        for watcher in self.watchers:
            watcher.cancel()
        for vm in list(self.vms.machines):
            await self.driver.clean(vm)
        for agent in list(self.agents.values()):  # of starts that were cut off before anybody could stop them
            if agent._server is not None:
                await agent.__aexit__()

    def pod(self, name: str = "demo", *, containers: list[Raw] | None = None, **spec: Any) -> Raw:
        annotations = spec.pop("annotations", {})
        uid = f"00000000-0000-4000-8000-{next(self.numbers):012d}"
        given = containers or [{"name": "app", "image": "demo:1"}]
        meta = {"name": name, "namespace": "default", "uid": uid, "annotations": annotations, "generation": 1}
        return {
            "apiVersion": "v1", "kind": "Pod", "metadata": meta,
            "spec": {"containers": given, "nodeName": "node", "terminationGracePeriodSeconds": 5, **spec},
        }  # fmt: skip

    def leftovers(self) -> list[str]:
        """Everything that exists for a pod."""
        pods = self.folder / "state" / "pods"
        records = [path.name for path in pods.iterdir()] if pods.exists() else []
        return [
            *self.vms.machines, *self.network.attachments(), *self.disks.writable_pods(), *self.images.holders(),
            *records,
        ]  # fmt: skip


def _client(vm: Vm, on_event: EventHook, *, on_final: Callable[[CuboidError], None]) -> Guest:
    return AgentClient(vm.open_channel, on_event, on_final=on_final, name=vm.id)


def container(status: Raw, name: str = "app") -> Raw:
    found = [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]
    return next((c for c in found if c["name"] == name), {})


def ready(status: Raw) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))

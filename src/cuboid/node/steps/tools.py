"""What the steps work with, the same for all pods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cuboid.images.base import ImageStore
from cuboid.kube.types import Pod
from cuboid.lib.clock import Clock
from cuboid.net.base import Network
from cuboid.node.api import Api
from cuboid.node.boots import Boots
from cuboid.node.metrics import NodeMetrics
from cuboid.node.objects import VolumeReader
from cuboid.node.settings import NodeSettings
from cuboid.node.spec import ClusterDns
from cuboid.node.steps.gate import BootGate
from cuboid.node.volumes import VolumeRefresher
from cuboid.node.warm.machines import WarmMachines
from cuboid.node.warm.relay import GuestFactory
from cuboid.node.warm.templates import Templates
from cuboid.storage.base import Disks
from cuboid.vmm.base import Driver


class Recorder(Protocol):
    """See `cuboid.node.events.EventRecorder`."""

    def normal(self, pod: Pod, reason: str, message: str, *, container: str = "") -> None: ...

    def warning(self, pod: Pod, reason: str, message: str, *, container: str = "") -> None: ...


@dataclass(frozen=True)
class Tools:
    settings: NodeSettings
    driver: Driver
    network: Network
    disks: Disks
    images: ImageStore
    objects: VolumeReader
    api: Api
    recorder: Recorder
    refresher: VolumeRefresher
    guest: GuestFactory
    boots: Boots
    gate: BootGate
    templates: Templates
    warm: WarmMachines
    clock: Clock
    node: str
    host_ip: str
    cpus: int
    metrics: NodeMetrics = field(default_factory=NodeMetrics)
    dns: ClusterDns | None = None
    service_env: Callable[[Pod], Mapping[str, str]] = lambda pod: {}

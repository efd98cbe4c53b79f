"""What the layers above know of networks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class PortMapping:
    """A published port: host_ip "" means every address of the host, loopback included."""

    host_port: int
    container_port: int
    protocol: str = "tcp"  # tcp, udp, sctp
    host_ip: str = ""


@dataclass(frozen=True)
class Route:
    destination: str  # CIDR
    gateway: str = ""


@dataclass(frozen=True)
class Bandwidth:
    """Limits of a pod's traffic in bits/s, to it and from it; 0 is no limit. `net.bandwidth` reads annotations."""

    ingress: int = 0
    egress: int = 0


NO_LIMITS = Bandwidth()


@dataclass(frozen=True)
class Attachment:
    """A pod on its network. JSON-able by `to_json`/`from_json`."""

    pod_uid: str
    netns: Path
    tap: str  # in that namespace, owned by the uid that `attach` was given
    mac: str
    mtu: int
    addresses: tuple[str, ...]  # CIDR, IPv4 first
    routes: tuple[Route, ...]
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    result: dict[str, Any] = field(default_factory=dict)  # the CNI result, cached

    @property
    def ip(self) -> str:
        """The pod IP."""
        return self.addresses[0].partition("/")[0] if self.addresses else ""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "netns": str(self.netns)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Attachment:
        """The inverse of `to_json`; KeyError or TypeError for anything else."""
        lists = {key: tuple(value[key]) for key in ("addresses", "nameservers", "search", "options")}
        routes = tuple(Route(**route) for route in value["routes"])
        return cls(**{**value, **lists, "netns": Path(value["netns"]), "routes": routes})


class Network(Protocol):
    async def attach(
        self, pod_uid: str, *, namespace: str, name: str, ports: tuple[PortMapping, ...] = (), tap_uid: int = 0,
        limits: Bandwidth = NO_LIMITS,
    ) -> Attachment:  # fmt: skip
        """Namespace, CNI ADD, tap wired to the CNI interface. Idempotent per pod_uid. On failure nothing is left.

        ConflictError when a published port is taken (also by a process of the host), ExhaustedError when
        addresses are out, InvalidError for a wrong network configuration, UnsupportedError when a plugin is missing
        or the kernel cannot keep `limits`.
        """
        ...

    @property
    def prepares(self) -> bool:
        """Whether an attachment can be made before its pod is known: only on the built-in network, for third-party
        plugins look at the pod's name."""
        ...

    async def prepare(self, slot: str) -> Attachment:
        """An attachment for a pod to come, under the id `slot` (a UUID) instead of a pod's uid. Else as `attach`."""
        ...

    async def adopt(
        self, slot: str, *, namespace: str, name: str, ports: tuple[PortMapping, ...] = (),
        limits: Bandwidth = NO_LIMITS,
    ) -> Attachment:  # fmt: skip
        """Give a prepared attachment to a pod. It keeps `slot` as its id, which the pod's record holds: nothing durable
        is written here. `ports` are published and `limits` set now. ConflictError for a taken port, NotFoundError if
        the slot is not whole or was given away already; what fails leaves it as it was. If that could not be undone
        the slot is not whole any more: the next `adopt` says NotFoundError, and its holder has to `detach` it."""
        ...

    async def hold(self, pod_uid: str, *, frozen: bool) -> None:
        """The pod's machine stands still and answers no question for its address, or no longer. While it does, the host
        takes it for being there, so that who connects waits. Idempotent; nothing for a pod that is not attached."""
        ...

    async def detach(self, pod_uid: str) -> None:
        """CNI DEL, namespace and tap removed. Idempotent, also when nothing is known of this pod."""
        ...

    async def check(self, pod_uid: str) -> None:
        """CNI CHECK; raises if the attachment is broken."""
        ...

    def attachment(self, pod_uid: str) -> Attachment | None:
        """That of a pod uid or slot, None unless it is whole. One of many pods costs what a single one costs."""
        ...

    def attachments(self) -> dict[str, Attachment]:
        """By pod uid or slot, from the records on disk."""
        ...

    async def clean(self, known: set[str]) -> list[str]:
        """CNI GC and removal of every namespace, address, rule of pods not in `known`. Returns their uids."""
        ...

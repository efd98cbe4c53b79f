"""`FakeNetwork`: the contract of `Network` in memory, with failures on demand. Its namespaces name no files."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from cuboid.lib.errors import (
    ConflictError,
    CuboidError,
    ExhaustedError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from cuboid.net import ports as published
from cuboid.net.base import NO_LIMITS, Attachment, Bandwidth, PortMapping, Route
from cuboid.net.records import valid_uid


class FakeNetwork:
    """`calls`: every call as (method, pod uid or slot). `fail(method, error)` makes its next call raise, `break_pod`
    makes `check` and `adopt` fail for one of them until it is attached anew. Without `prepares` it is as a network of
    third-party plugins."""

    def __init__(
        self, subnet: str = "10.77.0.0/24", *, root: Path = Path("/fake/netns"), prepares: bool = True
    ) -> None:
        self._prepares = prepares
        self.limits: dict[str, Bandwidth] = {}  # of the pods that are attached
        self.held: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self._subnet = ipaddress.ip_network(subnet)
        self._hosts = map(str, self._subnet.hosts())
        self._gateway = next(self._hosts)
        self._freed: list[str] = []
        self._root = root
        self._failures: dict[str, CuboidError] = {}
        self._attached: dict[
            str, tuple[Attachment, tuple[PortMapping, ...], str]
        ] = {}  # the pod's name: "" if prepared
        self._broken: set[str] = set()

    def fail(self, method: str, error: CuboidError) -> None:
        if not hasattr(self, method):
            raise ValueError(f"there is no method {method!r}")
        self._failures[method] = error

    def break_pod(self, pod_uid: str) -> None:
        self._broken.add(pod_uid)

    def _called(self, method: str, pod_uid: str) -> None:
        self.calls.append((method, pod_uid))
        if error := self._failures.pop(method, None):
            raise error

    async def attach(
        self, pod_uid: str, *, namespace: str, name: str, ports: tuple[PortMapping, ...] = (), tap_uid: int = 0,
        limits: Bandwidth = NO_LIMITS,
    ) -> Attachment:  # fmt: skip
        valid_uid(pod_uid)
        ports = published.validated(ports)
        self._called("attach", pod_uid)
        if pod_uid in self._attached and pod_uid not in self._broken and self._attached[pod_uid][2]:
            return self._attached[pod_uid][0]
        self._forget(pod_uid)
        self._require_free(ports)
        attachment = self._attachment(pod_uid, self._free_address())
        self._attached[pod_uid] = (attachment, ports, f"{namespace}/{name}")
        self.limits[pod_uid] = limits
        return attachment

    def _require_free(self, ports: tuple[PortMapping, ...]) -> None:
        for _, taken, pod in self._attached.values():
            for port in ports:
                if any(published.overlap(port, other) for other in taken):
                    raise ConflictError(
                        f"port {port.host_port}/{port.protocol} is taken by the pod {pod}", reason="PortTaken"
                    )

    def _free_address(self) -> str:
        address = self._freed.pop(0) if self._freed else next(self._hosts, None)
        if address is None:
            raise ExhaustedError(f"no IP addresses available in {self._subnet}")
        return address

    def _forget(self, uid: str) -> None:
        self._broken.discard(uid)
        self.limits.pop(uid, None)
        if uid in self._attached:
            self._freed.append(self._attached.pop(uid)[0].ip)

    def _attachment(self, pod_uid: str, address: str) -> Attachment:
        packed = ipaddress.ip_address(address).packed
        return Attachment(
            pod_uid=pod_uid,
            netns=self._root / pod_uid,
            tap="tap0",
            mac="02:00:" + packed.hex(":"),
            mtu=1500,
            addresses=(f"{address}/{self._subnet.prefixlen}",),
            routes=(Route("0.0.0.0/0", self._gateway),),
            nameservers=("192.0.2.53",),
            result={"cniVersion": "1.0.0"},
        )

    @property
    def prepares(self) -> bool:
        return self._prepares

    async def prepare(self, slot: str) -> Attachment:
        valid_uid(slot)
        self._called("prepare", slot)
        if not self._prepares:
            raise UnsupportedError("this network prepares nothing")
        if slot in self._attached and slot not in self._broken:
            attachment, _, pod = self._attached[slot]
            if pod:
                raise ConflictError(f"the network slot {slot} belongs to the pod {pod}")
            return attachment
        self._forget(slot)
        attachment = self._attachment(slot, self._free_address())
        self._attached[slot] = (attachment, (), "")
        return attachment

    async def adopt(
        self, slot: str, *, namespace: str, name: str, ports: tuple[PortMapping, ...] = (),
        limits: Bandwidth = NO_LIMITS,
    ) -> Attachment:  # fmt: skip
        valid_uid(slot)
        ports = published.validated(ports)
        self._called("adopt", slot)
        attachment, _, pod = self._attached.get(slot, (None, (), ""))
        if attachment is None or pod or slot in self._broken:
            raise NotFoundError(f"there is no prepared network slot {slot}")
        self._require_free(ports)
        self._attached[slot] = (attachment, ports, f"{namespace}/{name}")
        self.limits[slot] = limits
        return attachment

    async def hold(self, pod_uid: str, *, frozen: bool) -> None:
        self._called("hold", pod_uid)
        self.held = (self.held | {pod_uid}) & self._attached.keys() if frozen else self.held - {pod_uid}

    async def detach(self, pod_uid: str) -> None:
        valid_uid(pod_uid)
        self.held -= {pod_uid}
        self._called("detach", pod_uid)
        self._forget(pod_uid)

    async def check(self, pod_uid: str) -> None:
        self._called("check", pod_uid)
        if pod_uid not in self._attached:
            raise InvalidError(f"the pod {pod_uid} is not attached to a network")
        if pod_uid in self._broken:
            raise UnavailableError(f"the tap of {pod_uid} is gone")

    def attachment(self, pod_uid: str) -> Attachment | None:
        return self._attached[pod_uid][0] if pod_uid in self._attached else None

    def attachments(self) -> dict[str, Attachment]:
        return {uid: attachment for uid, (attachment, _, _) in self._attached.items()}

    async def clean(self, known: set[str]) -> list[str]:
        self._called("clean", "")
        gone = sorted(set(self._attached) - known)
        for uid in gone:
            self._forget(uid)
        return gone

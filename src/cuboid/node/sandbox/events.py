"""What happens to a pod. `at` is when, in seconds since the epoch."""

from __future__ import annotations

import enum

import msgspec

from cuboid.node.sandbox.plan import Plan


class Base(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    at: float


class Failure(Base, frozen=True, kw_only=True):
    """Something asked for could not be done. `fatal`: asking again is of no use, the pod has failed."""

    reason: str
    message: str
    fatal: bool = False


class Admitted(Base, frozen=True, kw_only=True):
    pass


class Updated(Base, frozen=True, kw_only=True):
    """The pod object changed. `deleted_grace`: seconds, once the API wants it deleted."""

    plan: Plan
    refusal: tuple[str, str] | None = None  # reason and message: its machine cannot give the resources it asks for now
    deleted_grace: float | None = None


class Vanished(Base, frozen=True, kw_only=True):
    """The API no longer has this pod."""


class Shutdown(Base, frozen=True, kw_only=True):
    """The node ends for good and takes its pods with it."""


class TimerFired(Base, frozen=True, kw_only=True):
    pass


class NetworkAttached(Base, frozen=True, kw_only=True):
    ips: tuple[str, ...]
    id: str = ""  # under which the network knows it: a prepared one's; empty: the pod's uid


class NetworkFailed(Failure, frozen=True, kw_only=True):
    pass


class NetworkDetached(Base, frozen=True, kw_only=True):
    pass


class DiskReady(Base, frozen=True, kw_only=True):
    pass


class DiskFailed(Failure, frozen=True, kw_only=True):
    pass


class DiskRemoved(Base, frozen=True, kw_only=True):
    pass


class ImagePulled(Base, frozen=True, kw_only=True):
    name: str  # of the container
    image_id: str
    digest: str


class ImageFailed(Failure, frozen=True, kw_only=True):
    name: str


class ImagesReleased(Base, frozen=True, kw_only=True):
    pass


class VmCreated(Base, frozen=True, kw_only=True):
    attempt: int


class VmFailed(Failure, frozen=True, kw_only=True):
    attempt: int


class VmEnded(Base, frozen=True, kw_only=True):
    """It ended by itself. `cause` is one of Kubernetes-like reasons: VMMDied, GuestPanic, HostOutOfMemory…"""

    attempt: int
    cause: str
    detail: str = ""


class VmGone(Base, frozen=True, kw_only=True):
    """It has ended and nothing of it is left on the host."""

    attempt: int


class VmPaused(Base, frozen=True, kw_only=True):
    attempt: int


class VmPauseFailed(Failure, frozen=True, kw_only=True):
    attempt: int


class VmResumed(Base, frozen=True, kw_only=True):
    attempt: int


class VmResumeFailed(Failure, frozen=True, kw_only=True):
    attempt: int


class ClockSet(Base, frozen=True, kw_only=True):
    """The guest's clock is right again after a pause."""

    attempt: int


class FoundContainer(msgspec.Struct, frozen=True):
    """A container as its guest tells of it."""

    name: str
    attempt: int
    running: bool
    started_at: float = 0.0
    startup_ok: bool = False
    readiness_ok: bool = False
    liveness_ok: bool = True
    code: int = 0
    signal: int = 0
    oom: bool = False
    finished_at: float = 0.0
    message: str = ""


class SetupDone(Base, frozen=True, kw_only=True):
    attempt: int
    found: tuple[FoundContainer, ...] = ()


class SetupFailed(Failure, frozen=True, kw_only=True):
    """`again`: the VM is well, only ask again later (a ConfigMap is missing)."""

    attempt: int
    again: bool = False


class Started(Base, frozen=True, kw_only=True):
    name: str
    attempt: int
    started_at: float


class StartFailed(Failure, frozen=True, kw_only=True):
    """`code` 0: the container could not even be described (CreateContainerConfigError), nothing was tried."""

    name: str
    attempt: int
    code: int = 0


class Exited(Base, frozen=True, kw_only=True):
    name: str
    attempt: int
    code: int
    signal: int = 0
    oom: bool = False
    started_at: float = 0.0
    finished_at: float = 0.0
    message: str = ""


class Check(enum.StrEnum):
    STARTUP = "startup"
    LIVENESS = "liveness"
    READINESS = "readiness"


class ProbeChanged(Base, frozen=True, kw_only=True):
    name: str
    attempt: int
    check: Check
    ok: bool
    message: str = ""


class ProbeFailed(Base, frozen=True, kw_only=True):
    """One failure, below the threshold: only worth an event."""

    name: str
    attempt: int
    check: Check
    message: str = ""


class Evicted(Base, frozen=True, kw_only=True):
    """The pod takes more of something than it may, and ends for it."""

    message: str


class HookPoint(enum.StrEnum):
    POST_START = "postStart"
    PRE_STOP = "preStop"


class HookDone(Base, frozen=True, kw_only=True):
    name: str
    attempt: int
    point: HookPoint
    ok: bool = True
    message: str = ""


class Recovered(Base, frozen=True, kw_only=True):
    """The node agent has started again: what it found on the host."""

    network: bool
    disk: bool
    vm: bool
    vm_frozen: bool = False  # it is there, but its guest does not run
    ips: tuple[str, ...] = ()
    rebooted: bool = False
    taken_down: bool = False  # with the whole platform, on purpose


class Resized(Base, frozen=True, kw_only=True):
    """The containers have their new resources."""

    attempt: int  # of the VM
    names: tuple[str, ...]


class ResizeFailed(Failure, frozen=True, kw_only=True):
    attempt: int


class PodDeleted(Base, frozen=True, kw_only=True):
    """The API has forgotten the pod."""


Event = (
    Admitted | Updated | Vanished | Shutdown | TimerFired | NetworkAttached | NetworkFailed | NetworkDetached
    | DiskReady | DiskFailed | DiskRemoved | ImagePulled | ImageFailed | ImagesReleased | VmCreated | VmFailed
    | VmEnded | VmGone | VmPaused | VmPauseFailed | VmResumed | VmResumeFailed | ClockSet
    | SetupDone | SetupFailed | Started | StartFailed | Exited | ProbeChanged | ProbeFailed
    | Evicted | HookDone | Recovered | Resized | ResizeFailed | PodDeleted
)  # fmt: skip

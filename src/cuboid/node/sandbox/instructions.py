"""What is to be done for a pod. Each is idempotent: after an interruption it may be given again."""

from __future__ import annotations

import msgspec

from cuboid.node.sandbox.events import HookPoint


class Base(msgspec.Struct, frozen=True, tag=True):
    pass


class AttachNetwork(Base, frozen=True):
    pass


class DetachNetwork(Base, frozen=True):
    pass


class CreateDisk(Base, frozen=True):
    """The writable device, and the named volumes held."""


class RemoveDisk(Base, frozen=True):
    pass


class PullImage(Base, frozen=True):
    name: str  # of the container


class CancelPull(Base, frozen=True):
    name: str


class ReleaseImages(Base, frozen=True):
    pass


class CreateVm(Base, frozen=True):
    attempt: int


class Setup(Base, frozen=True):
    """Speak with the guest's agent; set its machine up unless that has been done."""

    attempt: int


class PauseVm(Base, frozen=True):
    """Let it stand still; its memory stays."""

    attempt: int


class ResumeVm(Base, frozen=True):
    attempt: int


class Confine(Base, frozen=True):
    """The pod has started: from now on its VMM has no more of the host than the pod may have."""

    attempt: int


class ApplyResources(Base, frozen=True):
    """The limits of the pod's VMM, and of these containers in the guest, as they are now."""

    attempt: int
    names: tuple[str, ...]


class SetClock(Base, frozen=True):
    """Tell the guest the time, which went on without it."""

    attempt: int


class KillVm(Base, frozen=True):
    """End it, whatever stage it is in, and remove all of it. `clean`: let the guest write its disks first."""

    attempt: int
    clean: bool = False


class StartContainer(Base, frozen=True):
    name: str
    attempt: int
    keep_root: bool = False


class StopSignal(Base, frozen=True):
    """The container's stop signal, or SIGKILL."""

    name: str
    attempt: int
    kill: bool = False


class RunHook(Base, frozen=True):
    name: str
    attempt: int
    point: HookPoint
    seconds: float  # at most


class SetTimer(Base, frozen=True):
    """Fire at this time; replaces the timer that was set before. 0: none."""

    at: float


class PatchStatus(Base, frozen=True):
    pass


class RecordEvent(Base, frozen=True):
    reason: str
    message: str
    warning: bool = False


class WriteReceipt(Base, frozen=True):
    """The timeline of this VM's start. `ready`: the pod has become ready, else only its containers have started."""

    attempt: int
    ready: bool


class DeletePod(Base, frozen=True):
    """Final status, then delete it from the API with grace 0."""


class Forget(Base, frozen=True):
    """Remove the record; this pod is over."""


Instruction = (
    AttachNetwork | DetachNetwork | CreateDisk | RemoveDisk | PullImage | CancelPull | ReleaseImages | CreateVm | Setup
    | PauseVm | ResumeVm | SetClock | Confine | ApplyResources
    | KillVm | StartContainer | StopSignal | RunHook | SetTimer | PatchStatus | RecordEvent | WriteReceipt | DeletePod
    | Forget
)  # fmt: skip

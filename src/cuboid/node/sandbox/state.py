"""The state of one pod's sandbox: frozen, JSON-able, complete. Times are seconds since the epoch, 0 means never."""

from __future__ import annotations

import enum

import msgspec

from cuboid.kube.types import ResourceRequirements
from cuboid.node.sandbox.plan import ContainerPlan, Plan


class Rules(msgspec.Struct, frozen=True):
    """Times of Kubernetes that tests make shorter. Seconds."""

    backoff: float = 10.0  # of the second restart; doubles with each
    backoff_max: float = 300.0
    backoff_reset: float = 600.0  # running this long forgets earlier failures
    pull_backoff: float = 10.0
    retry: float = 5.0  # of what waits for something outside (a ConfigMap, an address)
    min_grace: float = 2.0  # for SIGTERM when a preStop hook has used up the grace period
    kill_patience: float = 10.0  # after SIGKILL, before the whole VM is ended


class Stage(enum.StrEnum):
    """Of a resource on the host."""

    ABSENT = "absent"
    ASKED = "asked"
    PRESENT = "present"
    REMOVING = "removing"
    REMOVED = "removed"  # for good: the pod ends


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """A resource of the pod on the host (network, disk, an image's device)."""

    stage: Stage = Stage.ABSENT
    failures: int = 0
    failed_at: float = 0.0
    retry_at: float = 0.0
    reason: str = ""  # of the last failure
    message: str = ""


class VmStage(enum.StrEnum):
    ABSENT = "absent"
    CREATING = "creating"
    SETTING_UP = "setting-up"  # it boots, or we have just found it again and have not yet spoken with its agent
    UP = "up"
    ENDING = "ending"


class Pause(enum.StrEnum):
    """Whether the VM stands still. Under way counts as standing still: its guest may be silent at any moment."""

    NONE = ""
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"


class Machine(msgspec.Struct, frozen=True, omit_defaults=True):
    """The pod's VM. Each new one has a new `attempt`."""

    stage: VmStage = VmStage.ABSENT
    attempt: int = -1
    failures: int = 0
    retry_at: float = 0.0
    up_at: float = 0.0
    setup_retry_at: float = 0.0
    reason: str = ""
    message: str = ""
    confined: bool = False  # the limits of a pod that has started are asked for
    pause: Pause = Pause.NONE
    paused_at: float = 0.0  # until the guest's clock has been set after the pause
    pause_failures: int = 0
    pause_retry_at: float = 0.0


class RunStage(enum.StrEnum):
    WAITING = "waiting"  # never started in its present life
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"


class Hook(enum.StrEnum):
    NONE = "none"
    RUNNING = "running"
    DONE = "done"


class Why(enum.StrEnum):
    """Why a container is being stopped."""

    ENDING = "ending"  # the pod ends
    STOPPED = "stopped"  # `cuboid stop`
    RESTART = "restart"  # `cuboid restart`
    RESIZE = "resize"  # of a container whose new resources need it
    UNHEALTHY = "unhealthy"  # startup or liveness probe, postStart hook


class Stopping(msgspec.Struct, frozen=True, omit_defaults=True):
    why: Why
    deadline: float
    hook: Hook = Hook.NONE
    term_sent: bool = False
    kill_sent: bool = False


class Ended(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one attempt of a container ended."""

    code: int
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    attempt: int = 0


class Run(msgspec.Struct, frozen=True, omit_defaults=True):
    """One container."""

    name: str
    stage: RunStage = RunStage.WAITING
    attempt: int = -1  # of the guest; also Kubernetes' restartCount
    started_at: float = 0.0
    startup_ok: bool = False
    readiness_ok: bool = False
    hook: Hook = Hook.NONE  # postStart
    stopping: Stopping | None = None
    ended: Ended | None = None  # while EXITED: the present state
    last: Ended | None = None  # of the attempt before
    failures: int = 0
    retry_at: float = 0.0
    reason: str = ""  # why it waits
    message: str = ""
    done: bool = False  # will not be started again
    keep_root: bool = False
    image: Part = Part()
    image_id: str = ""
    image_digest: str = ""

    @property
    def alive(self) -> bool:
        return self.stage in (RunStage.STARTING, RunStage.RUNNING)

    @property
    def started(self) -> bool:
        """Running, its postStart hook and its startup probe are through."""
        return self.stage is RunStage.RUNNING and self.startup_ok and self.hook is not Hook.RUNNING


class Cause(enum.StrEnum):
    """Why a pod ends."""

    DELETED = "deleted"
    VANISHED = "vanished"  # deleted from the API without waiting for us
    COMPLETED = "completed"
    FAILED = "failed"
    SHUTDOWN = "shutdown"  # the node


class Ending(msgspec.Struct, frozen=True, omit_defaults=True):
    cause: Cause
    deadline: float  # of the containers' grace period
    at_once: bool = False  # no grace at all


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an attempt of a container had before, and has until its new resources are in place."""

    attempt: int
    resources: ResourceRequirements


class Resize(msgspec.Struct, frozen=True, omit_defaults=True):
    """A change of the containers' resources that is not done yet."""

    wanted: dict[str, ContainerPlan] = {}  # what the machine cannot give now
    reason: str = ""  # why: Deferred, Infeasible
    message: str = ""
    held: dict[str, Held] = {}  # what is given, but not in place yet
    restart: tuple[str, ...] = ()  # containers that get it by a restart
    due: bool = False
    asked: bool = False
    failure: str = ""
    retry_at: float = 0.0


class Sandbox(msgspec.Struct, frozen=True, omit_defaults=True):
    plan: Plan
    runs: tuple[Run, ...]
    rules: Rules = Rules()
    admitted_at: float = 0.0
    network: Part = Part()
    network_id: str = ""  # of the attachment, if it was prepared before the pod was known; else it has the pod's uid
    ips: tuple[str, ...] = ()
    disk: Part = Part()
    machine: Machine = Machine()
    initialized: bool = False  # init containers are through, in this VM
    phase: str = ""  # Succeeded or Failed, once decided
    reason: str = ""
    message: str = ""
    ending: Ending | None = None
    deleted: bool = False  # the API wants it gone
    stop_deadline: float = 0.0  # of `cuboid stop`
    vanished: bool = False  # the API no longer has it
    restart_due: bool = False  # `cuboid restart` of a paused pod: when it goes on
    began: bool = False  # every container has started at some time
    receipt: int = -1  # VM attempt whose receipt has been asked for
    receipt_ready: int = -1  # the same, with the pod ready
    images: Stage = Stage.PRESENT  # the holds on the images, as one
    finalizing: bool = False  # the API has been asked to forget it
    resize: Resize = Resize()
    gone: bool = False  # nothing is left to do
    timer: float = 0.0

    def run(self, name: str) -> Run | None:
        return next((run for run in self.runs if run.name == name), None)

    def container(self, name: str) -> ContainerPlan:
        return next(c for c in self.plan.containers if c.name == name)

    @property
    def pairs(self) -> list[tuple[ContainerPlan, Run]]:
        return list(zip(self.plan.containers, self.runs, strict=True))

    @property
    def terminal(self) -> bool:
        return bool(self.phase)

    @property
    def frozen(self) -> bool:
        """The VM stands still, or is about to: nothing is to be asked of its guest."""
        return self.machine.pause is not Pause.NONE

    @property
    def shown_paused(self) -> bool:
        """What users are told: the VM stands still, or its agent is not yet spoken with after that, or there is none
        because the pod is paused."""
        machine = self.machine
        if machine.stage is VmStage.ABSENT:
            return self.plan.paused and not self.plan.stopped and self.ending is None
        resuming = bool(machine.paused_at) and machine.stage is VmStage.SETTING_UP
        return resuming or machine.pause in (Pause.PAUSED, Pause.RESUMING)


RULES = Rules()


def new(plan: Plan, rules: Rules = RULES) -> Sandbox:
    return Sandbox(plan=plan, runs=tuple(Run(c.name) for c in plan.containers), rules=rules)


def to_json(state: Sandbox) -> bytes:
    return msgspec.json.encode(state)


def from_json(data: bytes) -> Sandbox:
    """Raises msgspec.DecodeError or ValidationError for anything else than what `to_json` wrote."""
    return msgspec.json.decode(data, type=Sandbox)


def validate(state: Sandbox) -> None:
    """AssertionError if the state contradicts itself. Called by tests after every step."""
    machine = state.machine
    assert len(state.runs) == len(state.plan.containers)
    if machine.stage in (VmStage.SETTING_UP, VmStage.UP):
        assert state.network.stage is Stage.PRESENT, "a VM runs without its network"
        assert state.disk.stage is Stage.PRESENT, "a VM runs without its disk"
    if state.frozen:
        assert machine.stage in (VmStage.SETTING_UP, VmStage.UP), "a VM that does not run stands still"
    for container, run in state.pairs:
        assert run.name == container.name
        if run.alive:
            assert machine.stage in (VmStage.SETTING_UP, VmStage.UP, VmStage.ENDING), f"{run.name} runs without a VM"
            assert run.attempt >= 0 and run.ended is None and not run.done
        assert (run.ended is not None) == (run.stage is RunStage.EXITED), f"{run.name}: ended and stage disagree"
        assert not (run.done and run.stage is not RunStage.EXITED), f"{run.name} is done but has not exited"
        assert run.stopping is None or run.alive, f"{run.name} is being stopped but does not run"
        assert run.stopping is None or run.stopping.term_sent or not run.stopping.kill_sent
    if state.terminal:
        assert state.ending is not None, "a phase was decided without an ending"
    if state.gone:
        assert machine.stage is VmStage.ABSENT
        assert {state.network.stage, state.disk.stage, state.images} == {Stage.REMOVED}, "something is left"

"""What a pod asks for, reduced to what decisions about its life need."""

from __future__ import annotations

import enum

import msgspec

from cuboid.kube import names
from cuboid.kube.types import Container, Pod, ResourceRequirements
from cuboid.lib.errors import InvalidError
from cuboid.node import limits
from cuboid.node.spec import kernel_args, kernel_choice

DEFAULT_GRACE = 30  # seconds, Kubernetes' terminationGracePeriodSeconds
STOP_DIGITS = 6  # of seconds that an annotation may give
_UNSUPPORTED_HOST = "its machine is the pod's own, there is no host to share"


class Role(enum.StrEnum):
    INIT = "init"
    SIDECAR = "sidecar"  # an init container with restartPolicy Always
    APP = "app"
    DEBUG = "debug"  # an ephemeral container: comes while the pod runs, starts once, and has no say in the pod's life


class ContainerPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    role: Role
    image: str
    pull_policy: str = "IfNotPresent"
    post_start: bool = False
    pre_stop: bool = False
    startup: bool = False
    liveness: bool = False
    readiness: bool = False
    startup_grace: int | None = None  # seconds
    liveness_grace: int | None = None
    resources: ResourceRequirements | None = None  # that it has been given; None: of a record that is older than this
    restart_on: tuple[str, ...] = ()  # cpu, memory: a change of these begins with a restart


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    uid: str
    namespace: str
    name: str
    containers: tuple[ContainerPlan, ...]  # init containers and sidecars in their order, the others, ephemeral ones
    restart_policy: str = "Always"
    grace: int = DEFAULT_GRACE
    stop_grace: int = DEFAULT_GRACE  # of a stop or restart that is not the pod's end
    active_deadline: int | None = None  # seconds after the start
    init_timeout: float | None = None  # seconds after admission
    stopped: bool = False
    paused: bool = False
    restarted_at: str = ""
    generation: int = 0
    refusal: tuple[str, str] | None = None  # reason, message: cannot run here at all


def plan(pod: Pod) -> Plan:
    """The plan of a pod. What cannot run here is said in `refusal`, never raised."""
    meta, spec = pod.metadata, pod.spec
    inits = [_container(c, Role.SIDECAR if c.restart_policy == "Always" else Role.INIT) for c in spec.init_containers]
    grace = spec.termination_grace_period_seconds
    grace = DEFAULT_GRACE if grace is None else max(grace, 0)
    refusal, timeout = _refusal(pod) or _annotations_refusal(pod), None
    try:
        timeout = _init_timeout(meta.annotations.get(names.INIT_TIMEOUT, ""))
    except InvalidError as error:
        refusal = refusal or (error.reason, str(error))
    return Plan(
        uid=meta.uid, namespace=meta.namespace, name=meta.name,
        containers=(
            *inits,
            *(_container(c, Role.APP) for c in spec.containers),
            *(_container(c, Role.DEBUG) for c in spec.ephemeral_containers),
        ),
        restart_policy=spec.restart_policy or "Always",
        grace=grace,
        stop_grace=_stop_grace(meta.annotations.get(names.STOP_SECONDS, ""), grace),
        active_deadline=spec.active_deadline_seconds,
        init_timeout=timeout,
        stopped=meta.annotations.get(names.STATE) == names.STATE_STOPPED,
        paused=meta.annotations.get(names.STATE) == names.STATE_PAUSED,
        restarted_at=meta.annotations.get(names.RESTARTED_AT, ""),
        generation=meta.generation,
        refusal=refusal,
    )  # fmt: skip


def _container(container: Container, role: Role) -> ContainerPlan:
    hooks, startup, liveness = container.lifecycle, container.startup_probe, container.liveness_probe
    return ContainerPlan(
        name=container.name, role=role, image=container.image,
        pull_policy=container.image_pull_policy or default_pull_policy(container.image),
        post_start=hooks is not None and hooks.post_start is not None,
        pre_stop=hooks is not None and hooks.pre_stop is not None,
        startup=startup is not None, liveness=liveness is not None, readiness=container.readiness_probe is not None,
        startup_grace=startup.termination_grace_period_seconds if startup else None,
        liveness_grace=liveness.termination_grace_period_seconds if liveness else None,
        resources=container.resources,
        restart_on=tuple(p.resource_name for p in container.resize_policy if p.restart_policy == "RestartContainer"),
    )  # fmt: skip


def default_pull_policy(image: str) -> str:
    """Kubernetes' rule: `Always` for the tag latest (or none), `IfNotPresent` for any other tag or a digest."""
    if "@" in image:
        return "IfNotPresent"
    _, colon, tag = image.rpartition("/")[2].partition(":")
    return "Always" if not colon or tag == "latest" else "IfNotPresent"


def _stop_grace(text: str, own: int) -> int:
    """The annotation's whole seconds; the pod's own grace period for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= STOP_DIGITS else own


def _init_timeout(text: str) -> float | None:
    if not text:
        return None
    try:
        seconds = float(text.removesuffix("s"))
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise InvalidError(f"annotation {names.INIT_TIMEOUT} is {text[:40]!r}, not a number of seconds")
    return seconds


def _annotations_refusal(pod: Pod) -> tuple[str, str] | None:
    try:
        limits.check(pod)
        kernel_choice(pod)
        kernel_args(pod)
    except InvalidError as error:
        return error.reason, f"{error.message}; {error.hint}" if error.hint else error.message
    return None


def _refusal(pod: Pod) -> tuple[str, str] | None:
    spec = pod.spec
    shares = {"hostNetwork": spec.host_network, "hostPID": spec.host_pid, "hostIPC": spec.host_ipc}
    for field, wanted in shares.items():
        if wanted:
            return f"Unsupported{field[0].upper()}{field[1:]}", f"{field} is not supported: {_UNSUPPORTED_HOST}"
    for volume in spec.volumes:
        if volume.host_path is not None:
            return "UnsupportedHostPath", (
                f"volume {volume.name!r} is a hostPath ({volume.host_path.path}): the host's files are not reachable "
                "from a pod's machine; copy them with `cuboid cp`, or mount them from an NFS server"
            )
    return None

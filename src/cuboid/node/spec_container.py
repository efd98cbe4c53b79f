"""What the guest is told to start a container: Pod, Container and image configuration merged. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cuboid.guest import agent_pb2 as pb
from cuboid.images.base import Image, ImageConfig
from cuboid.kube import names, quantity
from cuboid.kube.types import Container, HTTPGetAction, IntOrString, Pod, Probe, SeccompProfile, SecurityContext
from cuboid.lib.errors import InvalidError
from cuboid.node.env import expand, expand_args
from cuboid.node.limits import cpu_weight

READABLE_DEVICES = (("/dev/fuse", 10, 229), ("/dev/net/tun", 10, 200))
"""In every container: the machine is the pod's own, so FUSE and tunnels need no privilege on any host."""
TTY_LIMIT = 10_000
USER_LIMIT = 128  # characters of NAME[:GROUP]


class CreateContainerError(InvalidError):
    """The container cannot be described to the guest; trying again without a change is of no use."""

    reason = "CreateContainerError"


def start_container(
    pod: Pod, container: Container, image: Image, env: Sequence[str], *, attempt: int, keep_root: bool
) -> pb.StartContainer:
    """CreateContainerError if there is nothing to run, or a mount or port has no such volume or name."""
    rows, cols = tty_size(pod.metadata.annotations.get(names.TTY_SIZE, ""))
    return pb.StartContainer(
        name=container.name, attempt=attempt, image=image.id,
        args=command(container, image.config, env), env=env,
        cwd=container.working_dir or image.config.working_dir or "/",
        user=user(pod, container, image.config), security=security(pod, container),
        mounts=mounts(pod, container, env), resources=resources(container),
        tty=container.tty, stdin=container.stdin, stdin_once=container.stdin_once, tty_rows=rows, tty_cols=cols,
        termination_message_path=container.termination_message_path, keep_root=keep_root,
        probes=probes(container), devices=_devices(), await_attach=_awaits_attach(pod, attempt),
    )  # fmt: skip


def _awaits_attach(pod: Pod, attempt: int) -> bool:
    return attempt == 0 and pod.metadata.annotations.get(names.ATTACH) == "true"


def command(container: Container, config: ImageConfig, env: Sequence[str]) -> list[str]:
    """A given command replaces ENTRYPOINT and drops CMD; given args alone replace CMD."""
    if container.command:
        args = [*container.command, *container.args]
    elif container.args:
        args = [*config.entrypoint, *container.args]
    else:
        return _something([*config.entrypoint, *config.cmd], container)
    return _something(expand_args(args, env), container)


def _something(args: list[str], container: Container) -> list[str]:
    if not args or not args[0]:
        raise CreateContainerError(
            f"container {container.name} has no command: neither the pod nor the image names one", hint="set command"
        )
    return args


def user(pod: Pod, container: Container, config: ImageConfig) -> pb.User:
    """The container's securityContext wins over the pod's, over the annotation's name, over the image's USER."""
    own, shared = container.security_context or SecurityContext(), pod.spec.security_context
    named = pod.metadata.annotations.get(names.USER, "")
    if len(named) > USER_LIMIT:
        raise CreateContainerError(f"annotation {names.USER} is longer than {USER_LIMIT} characters")
    result = pb.User(name=named or config.user)
    uid = _first(own.run_as_user, shared.run_as_user if shared else None)
    gid = _first(own.run_as_group, shared.run_as_group if shared else None)
    if uid is not None:
        result.uid = _id(uid, "runAsUser")
    if gid is not None:
        result.gid = _id(gid, "runAsGroup")
    if shared:
        groups = [*shared.supplemental_groups, *([shared.fs_group] if shared.fs_group is not None else [])]
        result.supplementary.extend(_id(group, "supplementalGroups") for group in groups)
    result.must_be_non_root = bool(_first(own.run_as_non_root, shared.run_as_non_root if shared else None))
    return result


def _first(*values: int | bool | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _id(number: int, what: str) -> int:
    if not 0 <= number < 1 << 31:
        raise CreateContainerError(f"{what} is {number}, not between 0 and {(1 << 31) - 1}")
    return number


def security(pod: Pod, container: Container) -> pb.Security:
    own = container.security_context or SecurityContext()
    shared = pod.spec.security_context
    profile = own.seccomp_profile or (shared.seccomp_profile if shared else None)
    return pb.Security(
        privileged=own.privileged, read_only_root=own.read_only_root_filesystem,
        no_new_privileges=own.allow_privilege_escalation is False,
        add_capabilities=[_capability(name) for name in (own.capabilities.add if own.capabilities else [])],
        drop_capabilities=[_capability(name) for name in (own.capabilities.drop if own.capabilities else [])],
        seccomp_unconfined=own.privileged or _unconfined(profile), unmasked=own.proc_mount == "Unmasked",
    )  # fmt: skip


def _capability(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def _unconfined(profile: SeccompProfile | None) -> bool:
    if profile is not None and profile.type == "Localhost":
        raise CreateContainerError(
            f"seccomp profile {profile.localhost_profile!r} is on no host of this pod",
            hint="RuntimeDefault and Unconfined are supported",
        )
    return profile is not None and profile.type == "Unconfined"


def mounts(pod: Pod, container: Container, env: Sequence[str]) -> list[pb.Mount]:
    volumes = {volume.name for volume in pod.spec.volumes}
    if container.volume_devices:
        raise CreateContainerError(
            f"container {container.name}: volumeDevices are not supported", hint="use volumeMounts"
        )
    result = []
    for mount in container.volume_mounts:
        if mount.name not in volumes:
            raise CreateContainerError(
                f"container {container.name} mounts the volume {mount.name!r}, which is not there"
            )
        sub = expand(mount.sub_path_expr, dict(line.split("=", 1) for line in env)) or mount.sub_path
        if sub.startswith("/") or ".." in sub.split("/"):
            raise CreateContainerError(f"subPath {sub!r} must be relative and without '..'")
        result.append(
            pb.Mount(
                volume=mount.name,
                path=mount.mount_path,
                sub_path=sub,
                read_only=mount.read_only,
                propagation=mount.mount_propagation,
            )
        )
    return result


def resources(container: Container) -> pb.Resources:
    limits, requests = container.resources.limits, container.resources.requests
    asked = requests.get("cpu") or limits.get("cpu") or "0"
    return pb.Resources(
        cpu_millis=quantity.to_millis(limits["cpu"]) if limits.get("cpu") else 0,
        cpu_weight=cpu_weight(quantity.to_millis(asked)),
        memory_bytes=quantity.to_int(limits["memory"]) if limits.get("memory") else 0,
    )


def tty_size(text: str) -> tuple[int, int]:
    """`ROWSxCOLS`; 0, 0 for anything else."""
    rows, _, cols = text.partition("x")
    if not (rows.isdecimal() and cols.isdecimal() and len(text) < 16):
        return 0, 0
    return min(int(rows), TTY_LIMIT), min(int(cols), TTY_LIMIT)


def _devices() -> list[pb.DeviceNode]:
    return [
        pb.DeviceNode(path=path, type="c", major=major, minor=minor, mode=0o666)
        for path, major, minor in READABLE_DEVICES
    ]


# --- probes ----------------------------------------------------------------------------------------------------------


def probes(container: Container) -> list[pb.Probe]:
    given = (
        (pb.Probe.STARTUP, container.startup_probe),
        (pb.Probe.LIVENESS, container.liveness_probe),
        (pb.Probe.READINESS, container.readiness_probe),
    )
    return [_probe(kind, probe, container) for kind, probe in given if probe is not None]


def _probe(kind: pb.Probe.Kind, probe: Probe, container: Container) -> pb.Probe:
    result = pb.Probe(
        kind=kind, initial_delay_ms=_millis(probe.initial_delay_seconds, 0),
        period_ms=_millis(probe.period_seconds, 10), timeout_ms=_millis(probe.timeout_seconds, 1),
        success_threshold=max(probe.success_threshold, 1), failure_threshold=max(probe.failure_threshold, 1),
    )  # fmt: skip
    if probe.exec:
        result.exec.args.extend(probe.exec.command)
    elif probe.http_get:
        result.http.CopyFrom(http_action(probe.http_get, container))
    elif probe.tcp_socket:
        result.tcp.CopyFrom(pb.TcpAction(host=probe.tcp_socket.host, port=port(probe.tcp_socket.port, container)))
    elif probe.grpc:
        result.grpc.CopyFrom(pb.GrpcAction(port=probe.grpc.port, service=probe.grpc.service))
    return result


def http_action(action: HTTPGetAction, container: Container) -> pb.HttpAction:
    path = action.path or "/"
    return pb.HttpAction(
        host=action.host, port=port(action.port, container), path=path if path.startswith("/") else f"/{path}",
        tls=action.scheme.upper() == "HTTPS",
        headers=[pb.Header(name=header.name, value=header.value) for header in action.http_headers],
    )  # fmt: skip


def _millis(seconds: int, default: int) -> int:
    return min((seconds or default) * 1000, 0xFFFF_FFFF)


def port(given: IntOrString, container: Container) -> int:
    """A number, or the name of one of the container's ports."""
    if isinstance(given, str) and not given.isdecimal():
        named = next((p.container_port for p in container.ports if p.name == given), None)
        if named is None:
            raise CreateContainerError(f"container {container.name} has no port named {given!r}")
        return named
    if not 0 < int(given) < 65536:
        raise CreateContainerError(f"{given} is not a port")
    return int(given)

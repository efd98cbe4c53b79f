"""`cuboid run`'s options as a Pod object. Pure: InvalidError names the option that is wrong and what would be right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cuboid.lib.errors import InvalidError

Object = dict[str, Any]
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
PORT = re.compile(
    r"(?:(?P<ip>\d+\.\d+\.\d+\.\d+|\[[0-9a-fA-F:]+\]):)?(?:(?P<host>\d+):)?(?P<inside>\d+)(?:/(?P<kind>tcp|udp|sctp))?"
)
MEMORY = re.compile(r"(?P<count>\d+(\.\d+)?)(?P<unit>[bkmgtBKMGT]?)(i?[bB])?|(?P<quantity>\d+(Ki|Mi|Gi|Ti))")
USER = "cuboid.dev/user"
USER_IDS = re.compile(r"[0-9]{1,10}(:[0-9]{1,10})?")
USER_NAMES = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?")
RESTART = {"no": "Never", "never": "Never", "on-failure": "OnFailure", "always": "Always", "unless-stopped": "Always"}
PULL = {"missing": "IfNotPresent", "always": "Always", "never": "Never"}
KERNELS = {"general": "general"}
VOLUME_DRIVER = "volume.cuboid.dev"
ADJECTIVES = "amber brisk calm clear cobalt crisp eager fair fleet fresh gentle golden keen light lucid mellow neat nimble plain quick quiet rapid silver snug solid steady sunny swift tidy vivid".split()  # noqa: E501
NOUNS = "anchor arch bay birch brook cedar cliff cove dune elm fern field fjord glade grove harbor heath hill isle lake ledge maple marsh mesa oak pine reef ridge river stone".split()  # noqa: E501


class RunOptions(NamedTuple):
    image: str
    args: tuple[str, ...] = ()
    name: str = ""
    namespace: str = "default"
    tty: bool = False
    stdin: bool = False
    env: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    cpus: str = ""
    memory: str = ""
    disk: str = ""
    entrypoint: str | None = None
    workdir: str = ""
    user: str = ""
    restart: str = "no"
    init_timeout: float = 0
    labels: tuple[str, ...] = ()
    pull: str = "missing"
    privileged: bool = False
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    hostname: str = ""
    kernel: str = ""
    kernel_args: tuple[str, ...] = ()
    tty_size: str = ""
    attach: bool = False  # the caller attaches at once
    pull_secret: str = ""


def pod(options: RunOptions) -> Object:
    """The Pod for these options."""
    name = options.name or invent_name()
    if not NAME.fullmatch(name):
        raise InvalidError(f"{name!r} is no name for a pod", hint="lower-case letters, digits and '-', at most 63")
    volumes, mounts = _volumes(options)
    spec: Object = {
        "restartPolicy": _choice("--restart", options.restart, RESTART),
        "terminationGracePeriodSeconds": 10,
        "containers": [_container(options, mounts)],
    }
    if volumes:
        spec["volumes"] = volumes
    if options.hostname:
        spec["hostname"] = options.hostname
    if options.pull_secret:
        spec["imagePullSecrets"] = [{"name": options.pull_secret}]
    metadata: Object = {"name": name, "namespace": options.namespace, "labels": _labels(options.labels)}
    annotations = {}
    if options.init_timeout:
        annotations["cuboid.dev/init-timeout"] = f"{options.init_timeout:g}"
    if options.tty_size:
        annotations["cuboid.dev/tty-size"] = options.tty_size
    if options.attach:
        annotations["cuboid.dev/attach"] = "true"
    if options.user and not USER_IDS.fullmatch(options.user):
        annotations[USER] = options.user
    if options.kernel:
        annotations["cuboid.dev/kernel"] = _choice("--kernel", options.kernel, KERNELS)
    if options.kernel_args:
        annotations["cuboid.dev/kernel-args"] = " ".join(options.kernel_args)
    if annotations:
        metadata["annotations"] = annotations
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def invent_name() -> str:
    import secrets

    return f"{secrets.choice(ADJECTIVES)}-{secrets.choice(NOUNS)}-{secrets.randbelow(10000):04d}"


def _container(options: RunOptions, mounts: list[Object]) -> Object:
    container: Object = {
        "name": "main",
        "image": options.image,
        "imagePullPolicy": _choice("--pull", options.pull, PULL),
    }
    if options.entrypoint is not None:
        import shlex

        container["command"] = shlex.split(options.entrypoint) or [""]
    if options.args:
        container["args"] = list(options.args)
    optional = {
        "env": [env_row(text) for text in options.env],
        "ports": [port_row(text) for text in options.ports],
        "volumeMounts": mounts,
        "workingDir": options.workdir,
        "stdin": options.stdin,
        "stdinOnce": options.stdin and options.attach and not options.tty,  # a terminal can be left and taken again
        "tty": options.tty,
        "resources": _resources(options),
        "securityContext": _security(options),
    }
    return container | {key: value for key, value in optional.items() if value}


def _choice(option: str, value: str, known: dict[str, str]) -> str:
    if value not in known:
        raise InvalidError(f"{option} {value}: unknown", hint=f"one of {', '.join(known)}")
    return known[value]


def env_row(text: str) -> Object:
    """`KEY=VALUE`, or `KEY` for the caller's own value (resolved before by `read_env`)."""
    key, _, value = text.partition("=")
    if not key or "\0" in text:
        raise InvalidError(f"-e {text!r}: not of the form KEY=VALUE")
    return {"name": key, "value": value}


def read_env(given: Sequence[str], files: Sequence[str], environ: dict[str, str]) -> tuple[str, ...]:
    """All variables, files first; `KEY` alone takes the caller's value and is left out where there is none."""
    rows: list[str] = []
    for name in files:
        try:
            content = Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidError(f"--env-file {name}: {error}") from error
        rows += [line.strip() for line in content.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    merged: dict[str, str] = {}
    for row in [*rows, *given]:
        key, separator, value = row.partition("=")
        if separator:
            merged[key] = value
        elif key in environ:
            merged[key] = environ[key]
    return tuple(f"{key}={value}" for key, value in merged.items())


def port_row(text: str) -> Object:
    """`[IP:][HOST:]CONTAINER[/PROTOCOL]`; without HOST the same port is published."""
    found = PORT.fullmatch(text)
    if not found:
        raise InvalidError(f"-p {text}: not a port", hint="like -p 8080:80, -p 127.0.0.1:8080:80 or -p 53:53/udp")
    inside, host = int(found["inside"]), int(found["host"] or found["inside"])
    for number in (inside, host):
        if not 1 <= number <= 65535:
            raise InvalidError(f"-p {text}: {number} is no port", hint="1 to 65535")
    row: Object = {"containerPort": inside, "hostPort": host, "protocol": (found["kind"] or "tcp").upper()}
    if found["ip"]:
        row["hostIP"] = found["ip"].strip("[]")
    return row


def memory_quantity(option: str, text: str) -> str:
    """Docker's `512m`, `1g`, or Kubernetes' `512Mi`, as a Kubernetes quantity."""
    found = MEMORY.fullmatch(text)
    if not found:
        raise InvalidError(f"{option} {text}: not a size", hint="like 256m, 1g or 512Mi")
    if found["quantity"]:
        return text
    unit = found["unit"].lower()
    scale = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}[unit]
    count = float(found["count"]) * scale
    for suffix, step in (("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)):
        if count >= step and count % step == 0:
            return f"{int(count // step)}{suffix}"
    return str(int(count))


def _resources(options: RunOptions) -> Object:
    limits: Object = {}
    if options.cpus:
        try:
            if not 0 < float(options.cpus) < 1e6:
                raise ValueError
        except ValueError as error:
            raise InvalidError(f"--cpus {options.cpus}: not a number of CPUs", hint="like 0.5 or 2") from error
        limits["cpu"] = f"{round(float(options.cpus) * 1000)}m"
    if options.memory:
        limits["memory"] = memory_quantity("-m", options.memory)
    if options.disk:
        limits["ephemeral-storage"] = memory_quantity("--disk", options.disk)
    return {"limits": limits} if limits else {}


def _security(options: RunOptions) -> Object:
    context: Object = {}
    if options.user:
        context |= _user(options.user)
    if options.privileged:
        context["privileged"] = True
    if options.read_only:
        context["readOnlyRootFilesystem"] = True
    added = {"add": list(options.cap_add)} if options.cap_add else {}
    dropped = {"drop": list(options.cap_drop)} if options.cap_drop else {}
    if added or dropped:
        context["capabilities"] = added | dropped
    return context


def _user(text: str) -> Object:
    """Numbers are the securityContext's; names are looked up in the image, by way of an annotation."""
    if not USER_NAMES.fullmatch(text):
        raise InvalidError(f"-u {text}: not a user", hint="like -u 1000, -u 1000:1000, -u www-data or -u app:staff")
    if not USER_IDS.fullmatch(text):
        return {}
    uid, _, gid = text.partition(":")
    return {"runAsUser": int(uid)} | ({"runAsGroup": int(gid)} if gid else {})


def _volumes(options: RunOptions) -> tuple[list[Object], list[Object]]:
    volumes: list[Object] = []
    mounts: list[Object] = []
    for text in options.volumes:
        source, path, read_only = parse_volume(text)
        name = f"volume-{source}"
        if name not in [row["name"] for row in volumes]:
            volumes.append({"name": name, "csi": {"driver": VOLUME_DRIVER, "volumeAttributes": {"name": source}}})
        mounts.append({"name": name, "mountPath": path} | ({"readOnly": True} if read_only else {}))
    for number, text in enumerate(options.tmpfs):
        path, _, size = text.partition(":")
        source_: Object = {"medium": "Memory"}
        if size:
            source_["sizeLimit"] = memory_quantity("--tmpfs", size.removeprefix("size="))
        volumes.append({"name": f"tmpfs-{number}", "emptyDir": source_})
        mounts.append({"name": f"tmpfs-{number}", "mountPath": path})
    return volumes, mounts


def parse_volume(text: str) -> tuple[str, str, bool]:
    """(name, path, read only) of `NAME:/path[:ro]`."""
    source, _, rest = text.partition(":")
    path, _, mode = rest.partition(":")
    if source.startswith(("/", ".", "~")):
        raise InvalidError(
            f"-v {text}: a path of the host cannot be mounted, the pod is a machine of its own",
            hint="copy files with `cuboid cp`, keep data in a named volume (-v NAME:/path), or share by an NFS volume",
        )
    if not path.startswith("/") or mode not in ("", "ro", "rw"):
        raise InvalidError(f"-v {text}: not a volume", hint="like -v data:/var/lib/data or -v data:/data:ro")
    if not NAME.fullmatch(source):
        raise InvalidError(f"-v {text}: {source!r} is no name for a volume", hint="lower-case letters, digits and '-'")
    return source, path, mode == "ro"


def _labels(given: Sequence[str]) -> dict[str, str]:
    labels = {}
    for text in given:
        key, _, value = text.partition("=")
        if not key:
            raise InvalidError(f"--label {text!r}: not of the form KEY=VALUE")
        labels[key] = value
    return labels

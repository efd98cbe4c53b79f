"""`cuboid deploy`'s options as a Deployment and its Services. Pure; InvalidError names the option that is wrong.

What an earlier deploy of the same name was told and this one is not, stays: the image may be changed alone.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from cuboid.cli import manifest
from cuboid.lib.errors import ConflictError, InvalidError

Object = dict[str, Any]
MANAGED = "app.kubernetes.io/managed-by"
BY = "cuboid"
PUBLIC = "-public"  # the name of the Service by which a deployment is reached from outside ends with it
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
STEADY = 3  # seconds that a program without a check has to run until it is taken for one that goes on
DRAIN = 2  # seconds that a container still serves after it was told to end, until nobody is led to it any more
_KEPT = (
    "image", "imagePullPolicy", "command", "args", "env", "ports", "volumeMounts", "workingDir", "resources",
    "securityContext", "readinessProbe", "livenessProbe", "startupProbe", "lifecycle",
)  # fmt: skip


class Options(NamedTuple):
    """`run` has what containers of `cuboid run` have too. None and empty: not said."""

    run: manifest.RunOptions
    replicas: int | None = None
    ports: tuple[str, ...] = ()
    publish: tuple[str, ...] = ()
    health: str = ""


class Port(NamedTuple):
    """`outside` is 0 for a port that is not published."""

    outside: int
    inside: int
    protocol: str = "TCP"


def name_of(image: str) -> str:
    """`nginx` for `localhost:5000/demo/nginx:1@sha256:…`."""
    last = image.partition("@")[0].rsplit("/", 1)[-1].partition(":")[0].lower()
    name = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:50].strip("-")
    return checked_name(name if name[:1].isalpha() else f"app-{name}".strip("-"))


def checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidError(
            f"{name!r} is no name for a deployment", hint="a letter, then lower-case letters, digits, '-'"
        )
    return name


def parse_port(text: str) -> Port:
    """`--port`: the port that the program listens on, like 80 or 53/udp."""
    number, _, protocol = text.partition("/")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536) or protocol not in ("", "tcp", "udp"):
        raise InvalidError(f"--port {text}: not a port", hint="like --port 80 or --port 53/udp")
    return Port(0, int(number), (protocol or "tcp").upper())


def parse_publish(text: str) -> Port:
    """`--publish`: HOST:CONTAINER; one number is both."""
    row = manifest.port_row(text)
    if "hostIP" in row:
        raise InvalidError(
            f"--publish {text}: a deployment is published on every address of the host",
            hint="HOST:CONTAINER, like 8080:80",
        )
    return Port(row["hostPort"], row["containerPort"], row["protocol"])


def inside_ports(options: Options) -> list[Port]:
    """What the program listens on, as far as it was said: `--port`, and the second half of `--publish`."""
    rows = [parse_port(text) for text in options.ports]
    rows += [parse_publish(text)._replace(outside=0) for text in options.publish if text != "none"]
    return sorted(set(rows))


def deployment(options: Options, before: Object | None = None, *, fresh: bool = False) -> Object:
    """What to apply. `before` is the Deployment of that name as it is; `fresh` takes nothing over from it.
    ConflictError if it is another tool's."""
    name, namespace = options.run.name, options.run.namespace
    if before is not None:
        _own(before, f"deployment {name}")
    before = None if fresh else before
    pod = manifest.pod(options.run._replace(ports=(), tty_size="", attach=False))
    old: Object = before["spec"]["template"] if before else {}
    spec: Object = _pod_spec(options, pod["spec"], old.get("spec", {}))
    metadata: Object = {"labels": {"app": name}}
    if annotations := _annotations(pod["metadata"], old.get("metadata", {})):
        metadata["annotations"] = annotations
    replicas = options.replicas if options.replicas is not None else before["spec"].get("replicas", 1) if before else 1
    alone = _is_alone(spec)
    if alone and replicas > 1:
        raise InvalidError(
            f"{replicas} replicas can not share the volume: it is of one pod at a time",
            hint="--replicas 1, mount it read-only (-v NAME:/path:ro), or share files by an NFS volume",
        )
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name, MANAGED: BY}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": _strategy(alone),
            "minReadySeconds": 0 if "readinessProbe" in spec["containers"][0] else STEADY,
            "template": {"metadata": metadata, "spec": spec},
        },
    }


def _own(before: Object, what: str) -> None:
    if before["metadata"].get("deletionTimestamp"):
        raise ConflictError(f"{what} is being removed", hint="again in a moment, or another --name")
    if before["metadata"].get("labels", {}).get(MANAGED) != BY:
        raise ConflictError(
            f"{what} was not made by cuboid deploy",
            hint="choose another --name, or change it with cuboid apply -f FILE",
        )


def _strategy(alone: bool) -> Object:
    """New pods are ready before old ones go; where two can not be at once, the old one goes first."""
    if alone:
        return {"type": "Recreate"}
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": "25%"}}


def _is_alone(spec: Object) -> bool:
    """Whether a named volume is written to: it is of one pod at a time."""
    named = {
        row["name"] for row in spec.get("volumes", []) if row.get("csi", {}).get("driver") == manifest.VOLUME_DRIVER
    }
    mounts = spec["containers"][0].get("volumeMounts", [])
    return any(row["name"] in named and not row.get("readOnly") for row in mounts)


def _annotations(new: Object, old: Object) -> Object:
    """Of the template: what options of `run` have become, and what a restart has left."""
    return {**(old.get("annotations") or {}), **new.get("annotations", {})}


def _pod_spec(options: Options, new: Object, old: Object) -> Object:
    wanted = new["containers"][0]
    before: Object = next((row for row in old.get("containers", []) if row["name"] == wanted["name"]), {})
    container = _container(options, wanted, before)
    volumes = _by(old.get("volumes", []), new.get("volumes", []), "name")
    used = {row["name"] for row in container.get("volumeMounts", [])}
    grace = new["terminationGracePeriodSeconds"] + DRAIN
    spec: Object = {"restartPolicy": "Always", "terminationGracePeriodSeconds": grace, "containers": [container]}
    optional = {
        "volumes": [row for row in volumes if row["name"] in used],
        "hostname": new.get("hostname") or old.get("hostname"),
        "imagePullSecrets": new.get("imagePullSecrets") or old.get("imagePullSecrets"),
    }
    return spec | {key: value for key, value in optional.items() if value}


def _container(options: Options, new: Object, old: Object) -> Object:
    container = {key: old[key] for key in _KEPT if key in old} | new
    limits = old.get("resources", {}).get("limits", {}) | new.get("resources", {}).get("limits", {})
    merged = {
        "env": _by(old.get("env", []), new.get("env", []), "name"),
        "volumeMounts": _by(old.get("volumeMounts", []), new.get("volumeMounts", []), "mountPath"),
        "resources": {"limits": limits} if limits else {},
    }
    container |= {key: value for key, value in merged.items() if value}
    if ports := inside_ports(options):
        container["ports"] = [{"containerPort": port.inside, "protocol": port.protocol} for port in ports]
    return container | _probes(options, container) | {"lifecycle": {"preStop": {"sleep": {"seconds": DRAIN}}}}


def _probes(options: Options, container: Object) -> Object:
    """A pod gets requests once it answers: on the path of `--health`, else once its first TCP port is open."""
    tcp = [row["containerPort"] for row in container.get("ports", []) if row.get("protocol", "TCP") == "TCP"]
    if options.health:
        path, port = parse_health(options.health, tcp)
        check: Object = {"httpGet": {"path": path, "port": port}, "timeoutSeconds": 2}
        return {
            "readinessProbe": check | {"periodSeconds": 1, "failureThreshold": 3},
            "livenessProbe": check | {"periodSeconds": 10, "failureThreshold": 3, "timeoutSeconds": 5},
            "startupProbe": check | {"periodSeconds": 1, "failureThreshold": 300},
        }
    if tcp and "httpGet" not in container.get("readinessProbe", {}):
        return {"readinessProbe": {"tcpSocket": {"port": tcp[0]}, "periodSeconds": 1, "failureThreshold": 3}}
    return {}


def parse_health(text: str, ports: list[int]) -> tuple[str, int]:
    """(path, port) of `--health /path` or `PORT/path`."""
    number, slash, path = text.partition("/")
    if not slash or (number and not (number.isascii() and number.isdigit() and 0 < int(number) < 65536)):
        raise InvalidError(f"--health {text}: not a path", hint="like --health /healthz, or 8081/healthz")
    if not number and not ports:
        raise InvalidError(f"--health {text}: on which port?", hint="--port 80 as well, or --health 8081/healthz")
    return f"/{path}", int(number) if number else ports[0]


def _by(old: list[Object], new: list[Object], key: str) -> list[Object]:
    """Rows of both, the new one where both have one of a key."""
    return list(({row[key]: row for row in old} | {row[key]: row for row in new}).values())


def service(options: Options, before: Object | None = None) -> Object | None:
    """By which other pods reach it under its name; None if no port was said."""
    if before is not None and (options.ports or options.publish):
        _own(before, f"service {options.run.name}")
    ports = [(port.inside, port) for port in inside_ports(options)]
    return _service(options, options.run.name, "ClusterIP", ports) if ports else None


def public_service(options: Options, before: Object | None = None) -> Object | None:
    """By which it is reached from outside; None if nothing was said of that."""
    published = [parse_publish(text) for text in options.publish if text != "none"]
    name = options.run.name + PUBLIC
    if before is not None and options.publish:
        _own(before, f"service {name}")
    if not published:
        return None
    found = _service(options, name, "LoadBalancer", [(port.outside, port) for port in published])
    found["spec"]["allocateLoadBalancerNodePorts"] = False
    return found


def _service(options: Options, name: str, kind: str, ports: list[tuple[int, Port]]) -> Object:
    app = options.run.name
    rows = [
        {
            "name": f"{port.protocol.lower()}-{number}",
            "port": number,
            "targetPort": port.inside,
            "protocol": port.protocol,
        }
        for number, port in ports
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": options.run.namespace, "labels": {"app": app, MANAGED: BY}},
        "spec": {"type": kind, "selector": {"app": app}, "ports": rows},
    }

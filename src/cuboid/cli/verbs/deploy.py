"""`deploy IMAGE | ls | rm`: an image in several pods that are kept running, under one name."""

from __future__ import annotations

import errno
import os
import socket
from typing import Annotated, Any

import typer

from cuboid.cli import common, deleting, manifest, pull_secret, resources, status, waiting, workloads
from cuboid.cli.api import Api
from cuboid.cli.output import Format, age, print_lines, progress, show, table
from cuboid.cli.resources import DEPLOYMENTS, PODS, SERVICES
from cuboid.lib.errors import ConflictError, InvalidError, NotFoundError

Object = dict[str, Any]
_EXAMPLE = """Run an image in several pods that are kept running, under one name.

Again with another image it is rolled out anew without a failed request; what is not said again stays as it was.

Example: cuboid deploy localhost:5000/demo/nginx:1 --name web --replicas 3 --port 80 --publish 8080:80
"""


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        cls=common.Short,
        help="Keep an image running in several pods: deploy IMAGE, or ls, rm.\n\n"
        "All options: cuboid deploy image -h.\n\nExample: cuboid deploy nginx --name web --replicas 3 --port 80",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("image", help=_EXAMPLE)(deploy)
    group.command("ls", help="List what is deployed.\n\nExample: cuboid deploy ls")(ls)
    group.command("rm", help="Remove deployments with their pods and names.\n\nExample: cuboid deploy rm web")(rm)
    app.add_typer(group, name="deploy")


def deploy(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image, like localhost:5000/demo/nginx:1.")],
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[-- COMMAND…]", help="Replaces the image's CMD.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="Its name; the image's if not given.")] = "",
    replicas: Annotated[
        int | None, typer.Option("--replicas", "-r", min=0, help="How many pods.", show_default="1")
    ] = None,
    port: Annotated[
        list[str] | None, typer.Option("--port", help="Port it listens on: other pods reach it as NAME:PORT.")
    ] = None,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            "--publish", "-p", help="HOST:CONTAINER, a port of this machine that leads to it; none ends that."
        ),
    ] = None,
    health: Annotated[
        str, typer.Option("--health", help="Path that answers 200 once it can serve, like /healthz or 8081/healthz.")
    ] = "",
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="KEY=VALUE, or KEY for your own value.")] = None,
    env_file: Annotated[list[str] | None, typer.Option("--env-file", help="File of KEY=VALUE lines.")] = None,
    volume: Annotated[list[str] | None, typer.Option("--volume", "-v", help="NAME:/path[:ro], a named volume.")] = None,
    cpus: Annotated[str, typer.Option("--cpus", "--cpu", help="Limit of each pod, like 0.5 or 2.")] = "",
    memory: Annotated[str, typer.Option("--memory", "-m", help="Limit of each pod, like 256m or 1g.")] = "",
    disk: Annotated[str, typer.Option("--disk", help="Size of the writable layer, like 2g.")] = "",
    entrypoint: Annotated[str | None, typer.Option("--entrypoint", help="Replaces the image's ENTRYPOINT.")] = None,
    workdir: Annotated[str, typer.Option("--workdir", "-w", help="Working directory.")] = "",
    user: Annotated[str, typer.Option("--user", "-u", help="NAME or UID, with :GROUP if wanted.")] = "",
    pull: Annotated[str, typer.Option("--pull", help="missing, always or never.")] = "missing",
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what earlier deploys of this name were told.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not wait until it runs.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait until it runs.")] = 600,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    run = manifest.RunOptions(
        image=image, args=tuple(command or ()), name=workloads.checked_name(name or workloads.name_of(image)),
        namespace=namespace, env=manifest.read_env(env or (), env_file or (), dict(os.environ)),
        volumes=tuple(volume or ()), cpus=cpus, memory=memory, disk=disk, entrypoint=entrypoint, workdir=workdir,
        user=user, pull=pull, pull_secret=pull_secret.ensure(api, namespace, image),
    )  # fmt: skip
    options = workloads.Options(run, replicas, tuple(port or ()), tuple(publish or ()), health)
    made = _apply(api, options, fresh)
    if not detach:
        with progress(quiet) as line:
            made = waiting.rolled_out(api, DEPLOYMENTS, namespace, run.name, timeout, line).workload
    show(made, output, lambda: print_lines(_told(api, namespace, made, detach)))


def _apply(api: Api, options: workloads.Options, fresh: bool) -> Object:
    """Services first: a pod finds the name of what it is a part of."""
    namespace, name = options.run.namespace, options.run.name
    old = _existing(api, DEPLOYMENTS, namespace, name)
    old_service = _existing(api, SERVICES, namespace, name)
    old_public = _existing(api, SERVICES, namespace, name + workloads.PUBLIC)
    wanted = workloads.deployment(options, old, fresh=fresh)
    inside, public = workloads.service(options, old_service), workloads.public_service(options, old_public)
    if public is not None:
        _check_free(api, public, old_public)
    rows = [(SERVICES, row) for row in (inside, public) if row is not None] + [(DEPLOYMENTS, wanted)]
    for dry_run in (True, False):  # what is refused is refused before anything is changed
        for kind, row in rows:
            made: Object = api.apply(kind.path(namespace, row["metadata"]["name"]), row, dry_run=dry_run)
    if "none" in options.publish and old_public is not None:
        api.delete(SERVICES.path(namespace, name + workloads.PUBLIC))
    return made


def _existing(api: Api, resource: resources.Resource, namespace: str, name: str) -> Object | None:
    try:
        found: Object = api.get(resource.path(namespace, name))
    except NotFoundError:
        return None
    return found


def _ports(service: Object | None) -> set[tuple[int, str]]:
    return {(row["port"], row.get("protocol", "TCP")) for row in (service or {}).get("spec", {}).get("ports", [])}


def _check_free(api: Api, public: Object, before: Object | None) -> None:
    """ConflictError for a port that another service has, or a program of this machine, where that can be seen."""
    wanted = _ports(public) - _ports(before)
    if not wanted:
        return
    me = (public["metadata"]["namespace"], public["metadata"]["name"])
    for other in api.get(SERVICES.path(me[0]))["items"]:
        place = (other["metadata"]["namespace"], other["metadata"]["name"])
        taken = wanted & _ports(other) if other["spec"].get("type") == "LoadBalancer" and place != me else set()
        for number, _ in sorted(taken):
            whose = place[1].removesuffix(workloads.PUBLIC)
            raise ConflictError(
                f"port {number} is published by {whose}", hint="another HOST in --publish HOST:CONTAINER"
            )
    for pod in api.get(PODS.path(me[0]))["items"]:
        if taken := wanted & _host_ports(pod):
            raise ConflictError(
                f"port {min(taken)[0]} is published by pod {pod['metadata']['name']}",
                hint="another HOST in --publish HOST:CONTAINER",
            )
    if api.connection.socket:  # the platform is on this machine
        for number, protocol in sorted(wanted):
            _check_unused(number, protocol)


def _host_ports(pod: Object) -> set[tuple[int, str]]:
    if status.going(pod):
        return set()
    rows = [row for container in pod["spec"]["containers"] for row in container.get("ports", [])]
    return {(row["hostPort"], row.get("protocol", "TCP")) for row in rows if row.get("hostPort")}


def _check_unused(number: int, protocol: str) -> None:
    kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", number))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConflictError(
                    f"port {number} of this machine is taken by a program",
                    hint="another HOST in --publish HOST:CONTAINER",
                ) from error


def _told(api: Api, namespace: str, made: Object, detached: bool) -> list[str]:
    """What a person wants to know now: that it runs, and where."""
    name, replicas = made["metadata"]["name"], made["spec"]["replicas"]
    image = made["spec"]["template"]["spec"]["containers"][0]["image"]
    lines = [f"{name}: {'asked for' if detached else 'running'}, {replicas} × {image}"]
    inside = _existing(api, SERVICES, namespace, name)
    public = _existing(api, SERVICES, namespace, name + workloads.PUBLIC)
    lines += [f"  inside   {address(name, row)}" for row in (inside or {}).get("spec", {}).get("ports", [])]
    lines += [f"  outside  {address('localhost', row)}" for row in (public or {}).get("spec", {}).get("ports", [])]
    if len(lines) == 1:
        lines.append(f"  to reach it from other pods: cuboid deploy {image} --name {name} --port PORT")
    return lines


def address(host: str, port: Object) -> str:
    """`http://web` for the web's own port and those that lead to it, else `web:5432`."""
    if port.get("protocol", "TCP") == "UDP":
        return f"{host}:{port['port']}/udp"
    inside = port.get("targetPort", port["port"])
    if inside in (80, 8080, 8000, 3000, 5000):
        return f"http://{host}" if port["port"] == 80 else f"http://{host}:{port['port']}"
    return f"{host}:{port['port']}"


def ls(
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of every namespace.")] = False,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    namespace = "" if all_namespaces else namespace
    answer = api.get(DEPLOYMENTS.path(namespace))
    services = api.get(SERVICES.path(namespace))["items"]

    def as_text() -> None:
        columns = ("NAMESPACE", "NAME", "IMAGE", "READY", "INSIDE", "OUTSIDE", "AGE")
        rows = [_row(item, services) for item in answer["items"]]
        start = 0 if all_namespaces else 1
        table(columns[start:], [row[start:] for row in rows])

    show(answer, output, as_text)


def _row(item: Object, services: list[Object]) -> list[object]:
    metadata, spec, told = item["metadata"], item["spec"], item.get("status", {})
    name, namespace = metadata["name"], metadata["namespace"]
    found = {row["metadata"]["name"]: row for row in services if row["metadata"]["namespace"] == namespace}
    inside = ", ".join(address(name, row) for row in found.get(name, {}).get("spec", {}).get("ports", []))
    public = found.get(name + workloads.PUBLIC, {}).get("spec", {}).get("ports", [])
    outside = ", ".join(address("localhost", row) for row in public)
    image = spec["template"]["spec"]["containers"][0]["image"]
    ready = f"{told.get('readyReplicas', 0)}/{spec.get('replicas', 1)}"
    return [namespace, name, image, ready, inside or "-", outside or "-", age(metadata.get("creationTimestamp"))]


def complete(incomplete: str) -> list[str]:
    return common.complete(DEPLOYMENTS.path, incomplete)


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", autocompletion=complete, help="Names of deployments.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until their pods are gone.")] = True,
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    done = []
    for name in names:
        found = resources.get(api, DEPLOYMENTS, namespace, name)
        if found["metadata"].get("labels", {}).get(workloads.MANAGED) != workloads.BY:
            raise InvalidError(f"{name} was not made by cuboid deploy", hint=f"cuboid delete deployment {name}")
        for service in (name + workloads.PUBLIC, name):
            row = _existing(api, SERVICES, namespace, service)
            if row is not None and row["metadata"].get("labels", {}).get(workloads.MANAGED) == workloads.BY:
                api.delete(SERVICES.path(namespace, service))
        with progress() as line:
            line.update(f"removing {name}")
            deleting.delete(api, DEPLOYMENTS, namespace, name, line, wait=wait)
        done.append({"kind": "Deployment", "metadata": {"name": name, "namespace": namespace}})
    show({"items": done}, output, lambda: print_lines(names))

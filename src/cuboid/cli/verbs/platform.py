"""`up`, `down`, `version`, `kubeconfig`, `doctor`."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cuboid import __version__
from cuboid.cli import config, daemons
from cuboid.cli.api import Api
from cuboid.cli.common import Output
from cuboid.cli.output import Format, Progress, paint, progress, show
from cuboid.lib.errors import CuboidError, DeadlineError, ForbiddenError, UnauthorizedError, UnavailableError
from cuboid.lib.paths import Paths, write_atomic

if TYPE_CHECKING:
    from cuboid.server.kubeconfig import Access

Object = dict[str, Any]
READY_TIMEOUT = 120.0  # seconds; a first start boots a kernel to see what the host can do
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
LOOK_AGAIN = 0.05  # seconds between looks while a process starts


def register(app: typer.Typer) -> None:
    app.command("up", help="Start the platform on this machine.\n\nExample: sudo cuboid up")(up)
    app.command("down", help="Stop it, with its virtual machines.\n\nExample: sudo cuboid down")(down)
    app.command("version", help="Versions of the parts.\n\nExample: cuboid version -o json")(version)
    app.command("kubeconfig", help="Print a kubeconfig.\n\nExample: cuboid kubeconfig > config")(kubeconfig)
    app.command("doctor", help="Check this machine, with the fix for each finding.\n\nExample: cuboid doctor")(doctor)


def _access(connection: config.Connection) -> Access:
    from cuboid.server.kubeconfig import Access

    return Access(connection.server, connection.ca.encode(), connection.token)


def _need_root(verb: str) -> None:
    if os.geteuid() != 0:
        raise ForbiddenError(f"cuboid {verb} needs root", hint=f"sudo cuboid {verb}")


def _server_url() -> str:
    from cuboid.lib import settings
    from cuboid.server.settings import ServerSettings

    row = settings.load(ServerSettings, "server")
    host = "127.0.0.1" if row.host in ("0.0.0.0", "") else row.host
    return f"https://{host}:{row.port}"


def _daemons(paths: Paths) -> tuple[daemons.Daemon, daemons.Daemon]:
    return (
        daemons.Daemon("cuboid-server", "cuboid.server"),
        daemons.Daemon("cuboid-node", "cuboid.node", ("--server", f"unix:{paths.api_socket}")),
    )


def up(
    no_kubeconfig: Annotated[bool, typer.Option("--no-kubeconfig", help="Leave the user's kubeconfig alone.")] = False,
    output: Output = Format.TABLE,
) -> None:
    _need_root("up")
    paths, server = Paths.default().make(), _server_url()
    with progress() as line:
        asyncio.run(_start(paths, server, line))
    connection = config.find()
    node = Api(connection).get("/api/v1/nodes")["items"][0]
    if not no_kubeconfig:
        from cuboid.server import kubeconfig as files

        files.merge_into(config.kubeconfig_path(), _access(connection))
    _tell_up(server, node, None if no_kubeconfig else config.kubeconfig_path(), output)


def _tell_up(server: str, node: Object, kubeconfig_file: Path | None, output: Format) -> None:
    annotations = node["metadata"].get("annotations", {})
    accel = {"accel": annotations.get("cuboid.dev/accel", ""), "reason": annotations.get("cuboid.dev/accel-reason", "")}
    answer = {"server": server, "node": node["metadata"]["name"], **accel, "kubeconfig": str(kubeconfig_file or "")}

    def as_text() -> None:
        print(f"Cuboid {__version__} is up: {server}, node {answer['node']}")
        print(f"virtual machines: {answer['accel']}{' (' + answer['reason'] + ')' if answer['reason'] else ''}")
        if kubeconfig_file:
            print(f"kubectl: context {config.CONTEXT!r} in {kubeconfig_file}")

    show(answer, output, as_text)


async def _start(paths: Paths, server: str, line: Progress) -> None:
    api_daemon, node_daemon = _daemons(paths)
    if daemons.running_pid(paths, api_daemon) is None:
        line.update("starting the API server")
        _let_the_node_in(paths)
    if daemons.systemd_runs():
        await daemons.systemd_start(paths, (api_daemon, node_daemon), f"unix:{paths.api_socket}")
    else:
        await daemons.start(paths, api_daemon)
    pki = paths.state / "server"
    row = {
        "server": server, "token_file": str(pki / "admin.token"), "ca_file": str(pki / "ca.crt"),
        "socket": str(paths.api_socket),
    }  # fmt: skip
    write_atomic(config.client_file(paths), json.dumps(row).encode(), mode=0o600)
    _wait(paths, api_daemon, _api_answers, "the API server")
    before: set[str] = set()
    if not daemons.systemd_runs() and daemons.running_pid(paths, node_daemon) is None:
        before = _heartbeats()
        line.update("starting the node agent", "(the first time it boots a kernel to see what this machine can do)")
        await daemons.start(paths, node_daemon)
    _wait(paths, node_daemon, lambda: _node_ready(before), "the node")


def _let_the_node_in(paths: Paths) -> None:
    """Its own token for the node agent, before the server reads who there is."""
    from cuboid.lib.settings import load
    from cuboid.node.settings import NodeSettings
    from cuboid.server.tokens import node_credential

    node_credential(paths.state / "server", load(NodeSettings, "node").name or socket.gethostname().lower())


def _wait(paths: Paths, daemon: daemons.Daemon, ready: Any, what: str) -> None:
    until = time.monotonic() + READY_TIMEOUT
    while not ready():
        daemons.check_alive(paths, daemon)
        if time.monotonic() > until:
            raise DeadlineError(
                f"{what} is not ready after {READY_TIMEOUT:g} s", hint=f"see {daemons.log_file(paths, daemon)}"
            )
        time.sleep(LOOK_AGAIN)


def _api_answers() -> bool:
    try:
        connection = config.find()
        if not connection.token:
            return False
        Api(connection).get("/api/v1/namespaces/default")
    except (CuboidError, OSError):
        return False
    return True


def _heartbeats() -> set[str]:
    leases = Api(config.find()).get(LEASES)["items"]
    return {str(lease.get("spec", {}).get("renewTime", "")) for lease in leases}


def _node_ready(before: set[str]) -> bool:
    """A node says that it is ready, in a heartbeat that is not of `before`: of an agent that was killed, say."""
    try:
        if _heartbeats() <= before:
            return False
        nodes = Api(config.find()).get("/api/v1/nodes")["items"]
    except (UnavailableError, UnauthorizedError):
        return False
    conditions = [row for node in nodes for row in node.get("status", {}).get("conditions", [])]
    return any(row["type"] == "Ready" and row["status"] == "True" for row in conditions)


def down(
    keep_pods: Annotated[
        bool, typer.Option("--keep-pods", help="Virtual machines run on until the next `up`.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    _need_root("down")
    paths = Paths.default()
    with progress() as line:
        stopped = asyncio.run(_stop(paths, keep_pods, line))
    show({"stopped": stopped}, output, lambda: print("Cuboid is down" if stopped else "Cuboid was not up"))


async def _stop(paths: Paths, keep_pods: bool, line: Progress) -> bool:
    from cuboid.lib import proc

    api_daemon, node_daemon = _daemons(paths)
    ran = False
    if daemons.systemd_runs():
        await daemons.systemd_stop((node_daemon, api_daemon))
    for daemon in (node_daemon, api_daemon):
        line.update(f"stopping {daemon.name}")
        ran = daemons.stop(paths, daemon) or ran
    if not keep_pods:
        line.update("ending virtual machines")
        command = [sys.executable, "-m", "cuboid.node", "--clean"]
        await proc.run(command, timeout=120, env=daemons.environment())
    return ran


def version(output: Output = Format.TABLE) -> None:
    rows: Object = {"cuboid": __version__}
    try:
        answer = Api(config.find())
        rows["api"] = answer.get("/version")["gitVersion"]
        for node in answer.get("/api/v1/nodes")["items"]:
            info = node.get("status", {}).get("nodeInfo", {})
            rows[f"node {node['metadata']['name']}"] = (
                f"{info.get('kubeletVersion', '?')}, {info.get('containerRuntimeVersion', '?')}"
            )
    except CuboidError as error:
        rows["api"] = f"does not answer: {error.message}"

    def as_text() -> None:
        for key, value in rows.items():
            print(f"{key:<12} {value}")

    show(rows, output, as_text)


def kubeconfig(output: Output = Format.TABLE) -> None:
    from cuboid.server import kubeconfig as files

    connection = config.find()
    text = files.render(_access(connection))
    if output is Format.JSON:
        import yaml

        print(json.dumps(yaml.safe_load(text), indent=2))
    else:
        print(text, end="")


def doctor(output: Output = Format.TABLE) -> None:
    from cuboid.cli import doctor as checks

    findings = checks.examine(Paths.default())

    def as_text() -> None:
        for row in findings:
            mark = {"ok": paint("ok  ", "Running"), "warn": paint("warn", "Pending"), "fail": paint("FAIL", "Failed")}[
                row.level
            ]
            print(f"{mark} {row.name}: {row.text}")
            if row.fix:
                print(f"       fix: {row.fix}")

    show({"findings": [row.__dict__ for row in findings]}, output, as_text)
    if any(row.level == "fail" for row in findings):
        raise typer.Exit(1)

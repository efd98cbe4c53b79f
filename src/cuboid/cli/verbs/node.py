"""`node ls|cordon|uncordon|drain`: the machines that pods run on."""

from __future__ import annotations

import time
from typing import Annotated, Any, NamedTuple

import typer

from cuboid.cli import common, nodes, resources
from cuboid.cli.api import Api, pods_path
from cuboid.cli.output import Format, Progress, age, clean, print_lines, progress, show, size, table
from cuboid.cli.resources import NODES
from cuboid.lib.errors import ConflictError, CuboidError, DeadlineError, ExhaustedError, NotFoundError

Object = dict[str, Any]
_AGAIN = 2.0  # seconds until a budget is asked again


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The machines that pods run on.", no_args_is_help=True, rich_markup_mode=None)
    group.command("ls", help="List nodes with the room that is left.\n\nExample: cuboid node ls")(ls)
    group.command("cordon", help="No new pods on these nodes.\n\nExample: cuboid node cordon node-1")(cordon)
    group.command("uncordon", help="New pods again.\n\nExample: cuboid node uncordon node-1")(uncordon)
    group.command(
        "drain",
        help="Move the pods of a node elsewhere, as budgets allow, and let no new ones in.\n\n"
        "Example: cuboid node drain node-1 && cuboid node uncordon node-1",
    )(drain)
    app.add_typer(group, name="node")


def complete(incomplete: str) -> list[str]:
    return common.complete(lambda _: NODES.path(), incomplete)


Names = Annotated[list[str], typer.Argument(metavar="NODE…", help="Names of nodes.", autocompletion=complete)]


def ls(output: common.Output = Format.TABLE) -> None:
    api, _ = common.connect()
    answer = api.get(NODES.path())

    def as_text() -> None:
        pods = api.get(pods_path(""))["items"]
        columns = ("NAME", "STATUS", "PODS", "CPU", "MEMORY", "AGE", "VERSION")
        table(columns, [_row(item, pods) for item in answer["items"]])

    show(answer, output, as_text)


def _row(node: Object, pods: list[Object]) -> list[object]:
    """What pods have asked for of what there is."""
    name, told = node["metadata"]["name"], node.get("status", {})
    mine = [pod for pod in pods if pod["spec"].get("nodeName") == name and not nodes.has_ended(pod)]
    room, asked = told.get("allocatable", {}), nodes.requests(mine)
    cpu = f"{asked['cpu']:.1f}/{nodes.amount(room.get('cpu', '0')):.1f}"
    memory = f"{size(asked['memory'])}/{size(nodes.amount(room.get('memory', '0')))}"
    version = told.get("nodeInfo", {}).get("kubeletVersion", "")
    count = f"{len(mine)}/{room.get('pods', '?')}"
    return [name, nodes.word(node), count, cpu, memory, age(node["metadata"].get("creationTimestamp")), version]


def cordon(names: Names, output: common.Output = Format.TABLE) -> None:
    _cordon(names, True, output)


def uncordon(names: Names, output: common.Output = Format.TABLE) -> None:
    _cordon(names, False, output)


def _cordon(names: list[str], wanted: bool, output: Format) -> None:
    api, _ = common.connect()
    found = [_set_cordoned(api, name, wanted) for name in names]
    word = "cordoned: no new pods" if wanted else "takes new pods"
    show({"items": found}, output, lambda: print_lines(f"{name}: {word}" for name in names))


def _set_cordoned(api: Api, name: str, wanted: bool) -> Object:
    resources.get(api, NODES, "", name)
    found: Object = api.patch(NODES.path("", name), {"spec": {"unschedulable": wanted or None}})
    return found


class _Left(NamedTuple):
    """Pods that are still to be asked to go, those that were, and what each budget holds back."""

    to_ask: list[Object]
    asked: dict[str, Object]
    held: dict[str, str]


def drain(
    name: Annotated[str, typer.Argument(metavar="NODE", help="Name of the node.", autocompletion=complete)],
    force: Annotated[
        bool, typer.Option("--force", help="Pods that nobody makes again as well: they are lost.")
    ] = False,
    grace: Annotated[
        int, typer.Option("--grace-period", help="Seconds from SIGTERM to SIGKILL.", show_default="each pod's own")
    ] = -1,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds until it is given up.")] = 600,
    output: common.Output = Format.TABLE,
) -> None:
    api, _ = common.connect()
    _set_cordoned(api, name, True)
    pods = api.get(pods_path(""), fieldSelector=f"spec.nodeName={name}")["items"]
    movable, staying, lost = nodes.sort_out(pods)
    if lost and not force:
        shown = ", ".join(pod["metadata"]["name"] for pod in lost[:5])
        raise ConflictError(
            f"{name} is cordoned, and its pods run on: nobody would make {shown} again",
            hint=f"cuboid rm -f {shown.replace(',', '')}, or cuboid node drain {name} --force",
        )
    left = _Left(movable + lost, {}, {})
    with progress() as line:
        _empty(api, name, left, grace, timeout, line)
    moved = [pod["metadata"]["name"] for pod in movable + lost]
    answer = {"node": name, "moved": moved, "stay": [pod["metadata"]["name"] for pod in staying]}
    show(answer, output, lambda: print_lines(_told(name, answer)))


def _told(name: str, answer: Object) -> list[str]:
    lines = [f"{name} is drained: {len(answer['moved'])} pods left it"]
    if answer["stay"]:
        lines.append(f"  of DaemonSets, and stay: {', '.join(answer['stay'])}")
    return [*lines, f"  let pods in again: cuboid node uncordon {name}"]


def _empty(api: Api, name: str, left: _Left, grace: int, timeout: float, line: Progress) -> None:
    until, total = time.monotonic() + timeout, len(left.to_ask)
    while left.to_ask or left.asked:
        for pod in list(left.to_ask):
            _ask(api, pod, left, grace)
        for uid in [uid for uid, pod in left.asked.items() if _gone(api, pod)]:
            del left.asked[uid]
        gone = total - len(left.to_ask) - len(left.asked)
        held = f", {len(left.to_ask)} held back by {_budgets(left)}" if left.to_ask else ""
        line.update(f"draining {name}: {gone} of {total} gone{held}")
        if not left.to_ask and not left.asked:
            return
        if time.monotonic() > until:
            raise _too_long(name, left, timeout)
        time.sleep(min(_AGAIN if left.to_ask else 0.5, max(0.1, until - time.monotonic())))


def _budgets(left: _Left) -> str:
    waiting = [pod["metadata"]["uid"] for pod in left.to_ask]
    return "; ".join(sorted({left.held.get(uid, "a budget") for uid in waiting}))


def _too_long(name: str, left: _Left, timeout: float) -> DeadlineError:
    if left.to_ask:
        pods = ", ".join(pod["metadata"]["name"] for pod in left.to_ask[:5])
        return DeadlineError(
            f"{name} is not empty after {timeout:g} s: {pods} held back by {_budgets(left)}",
            hint="more replicas make room in the budget: cuboid scale NAME COUNT",
        )
    pods = ", ".join(pod["metadata"]["name"] for pod in list(left.asked.values())[:5])
    return DeadlineError(f"{name} is not empty after {timeout:g} s: {pods} not ended yet", hint="--timeout SECONDS")


def _ask(api: Api, pod: Object, left: _Left, grace: int) -> None:
    """An eviction. What a budget refuses is asked again later; what is gone is gone."""
    metadata = pod["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    options: Object = {"preconditions": {"uid": metadata["uid"]}}
    if grace >= 0:
        options["gracePeriodSeconds"] = grace
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
        "deleteOptions": options,
    }
    try:
        api.post(pods_path(namespace, name, "eviction"), body)
    except ExhaustedError:
        left.held[metadata["uid"]] = _why_held(api, pod)
        return
    except (NotFoundError, ConflictError):
        pass  # gone, or another one of its name
    left.to_ask.remove(pod)
    left.asked[metadata["uid"]] = pod


def _why_held(api: Api, pod: Object) -> str:
    """The budget, and what it asks for."""
    try:
        rows = api.get(f"/apis/policy/v1/namespaces/{pod['metadata']['namespace']}/poddisruptionbudgets")["items"]
    except CuboidError:
        return "a disruption budget"
    found = [row for row in rows if nodes.covers(row, pod)]
    if not found:
        return "a disruption budget"
    told = found[0].get("status", {})
    need = f"{told.get('currentHealthy', '?')} of {told.get('desiredHealthy', '?')} needed pods are healthy"
    return clean(f"budget {found[0]['metadata']['name']} ({need})")


def _gone(api: Api, pod: Object) -> bool:
    try:
        found = api.get(pods_path(pod["metadata"]["namespace"], pod["metadata"]["name"]))
    except NotFoundError:
        return True
    return bool(found["metadata"]["uid"] != pod["metadata"]["uid"])

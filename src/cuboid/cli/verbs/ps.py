"""`cuboid ps` and `cuboid inspect`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cuboid.cli import common, status
from cuboid.cli.api import pods_path
from cuboid.cli.output import Format, age, show, table

Object = dict[str, Any]


def register(app: typer.Typer) -> None:
    app.command("ps", help="List pods.\n\nExample: cuboid ps -a -o wide")(ps)
    app.command("inspect", help="All that is known of pods.\n\nExample: cuboid inspect web -o yaml")(inspect)


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Ended pods as well.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Names only.")] = False,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Pods of every namespace.")] = False,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Label selector, like app=web.")] = "",
    namespace: common.Namespace = "",
    output: common.Output = Format.TABLE,
) -> None:
    api, namespace = common.connect(namespace)
    answer = api.get(pods_path("" if all_namespaces else namespace), labelSelector=selector)
    pods = [
        pod
        for pod in answer["items"]
        if everything or pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    ]
    if quiet or output is Format.NAME:
        for pod in pods:
            print(pod["metadata"]["name"])
        return
    show({**answer, "items": pods}, output, lambda: _table(pods, all_namespaces, output is Format.WIDE))


def _table(pods: list[Object], with_namespace: bool, wide: bool) -> None:
    with_owner = any(map(status.part_of, pods))
    columns = [
        *(["NAMESPACE"] if with_namespace else []),
        "NAME",
        *(["PART OF"] if with_owner else []),
        "IMAGE",
        "STATUS",
        "READY",
        "RESTARTS",
        "AGE",
        "PORTS",
    ]
    columns += ["IP", "NODE", "START"] if wide else []
    table(columns, [_row(pod, with_namespace, with_owner, wide) for pod in pods])


def _row(pod: Object, with_namespace: bool, with_owner: bool, wide: bool) -> list[object]:
    metadata, spec = pod["metadata"], pod["spec"]
    row: list[object] = [metadata["namespace"]] if with_namespace else []
    published = ", ".join(f"{outside}->{inside}" for outside, inside in status.ports(pod)) or "-"
    row += [metadata["name"], *([status.part_of(pod) or "-"] if with_owner else [])]
    row += [spec["containers"][0]["image"], status.word(pod), status.ready(pod), status.restarts(pod)]
    row += [age(metadata.get("creationTimestamp")), published]
    if wide:
        row += [pod.get("status", {}).get("podIP", "-"), spec.get("nodeName", "-"), _start(status.receipt(pod))]
    return row


def _start(receipt: Object | None) -> str:
    """How long the last start took, and how the machine came up."""
    if not receipt or "totalSeconds" not in receipt:
        return "-"
    return f"{receipt['totalSeconds']:.2f}s {receipt.get('start', '')}".rstrip()


def inspect(
    pods: common.PodNames,
    namespace: common.Namespace = "",
    output: common.Output = Format.JSON,
) -> None:
    api, namespace = common.connect(namespace)
    found = [common.get_pod(api, namespace, name) for name in pods]
    show(found if len(found) > 1 else found[0], output, lambda: _table(found, True, True))

"""`cuboid why`: where the time of a start went, and the one cause of a failure."""

from __future__ import annotations

from typing import Any

import typer

from cuboid.cli import common, status, target
from cuboid.cli.api import Api
from cuboid.cli.output import Format, clean, colour_wanted, show

Object = dict[str, Any]
WIDTH = 40  # characters of the time line
STARTS = {
    "warm": "a machine that waited was given the pod", "restored": "the machine was restored from a template",
    "cold": "the machine booted its kernel",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    app.command("why", help="Why a pod started as fast as it did, or did not.\n\nExample: cuboid why web")(why)


def why(pod: target.PodOf, namespace: common.Namespace = "", output: common.Output = Format.TABLE) -> None:
    api, namespace = common.connect(namespace)
    pod = target.pod_of(api, namespace, pod, troubled=True)
    found = common.get_pod(api, namespace, pod)
    problem = status.problem(found)
    cause = {"reason": problem[0], "message": problem[1]} if problem else None
    answer = {"pod": pod, "status": status.word(found), "cause": cause, "receipt": status.receipt(found)}
    show(answer, output, lambda: _print(api, namespace, found, answer))


def _print(api: Api, namespace: str, pod: Object, answer: Object) -> None:
    print(f"{answer['pod']}: {clean(answer['status'])}")
    if answer["cause"]:
        bold = ("\033[1m", "\033[0m") if colour_wanted() else ("", "")
        print(f"\n{bold[0]}{clean(answer['cause']['reason'])}{bold[1]}: {clean(answer['cause']['message'])}")
        warnings = _warnings(api, namespace, pod)
        for row in warnings[-3:]:
            print(f"  {clean(row.get('reason', ''))}: {clean(row.get('message', ''))}")
    if answer["receipt"]:
        print()
        print_receipt(answer["receipt"])


def _warnings(api: Api, namespace: str, pod: Object) -> list[Object]:
    uid = pod["metadata"]["uid"]
    answer = api.get(f"/api/v1/namespaces/{namespace}/events", fieldSelector=f"involvedObject.uid={uid}")
    return [row for row in answer["items"] if row.get("type") == "Warning"]


def print_receipt(receipt: Object) -> None:
    """The phases of a start as a time line; those side by side overlap."""
    total = float(receipt.get("totalSeconds", 0)) or 1e-9
    how = ", ".join(clean(str(receipt[key])) for key in ("driver", "accel") if receipt.get(key))
    print(f"start receipt: {total:.3f} s ({how}) at {clean(str(receipt.get('startedAt', '?')))}")
    if kind := clean(str(receipt.get("start", ""))):
        print(f"start: {kind}" + (f" ({STARTS[kind]})" if kind in STARTS else ""))
    for phase in receipt.get("phases", []):
        offset, seconds = float(phase.get("offsetSeconds", 0)), float(phase.get("seconds", 0))
        before = min(WIDTH - 1, int(WIDTH * offset / total))
        length = max(1, min(WIDTH - before, round(WIDTH * seconds / total)))
        bar = (" " * before + "█" * length).ljust(WIDTH)
        print(f"  {clean(str(phase.get('name', '?'))):<18} {bar} {seconds:8.3f} s")
    for note in receipt.get("notes", []):
        print(f"  note: {clean(str(note))}")

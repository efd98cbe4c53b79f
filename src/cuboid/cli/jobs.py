"""Work that ends: its objects (pure), and following it to its end."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from cuboid.cli import manifest, rollouts, status, waiting
from cuboid.cli.api import Api
from cuboid.cli.output import Progress
from cuboid.cli.podlogs import Logs, after_name
from cuboid.cli.resources import JOBS
from cuboid.lib.errors import ConflictError, DeadlineError, InvalidError

Object = dict[str, Any]
FOREVER = 10 * 365 * 86400.0  # seconds: a job ends by itself, or by its own time limit
MANUAL = "cronjob.kubernetes.io/instantiate"


class Options(NamedTuple):
    """`timeout` in seconds, 0 for none; `retries` of each part."""

    run: manifest.RunOptions
    parts: int = 1
    parallel: int = 0
    retries: int = 0
    timeout: int = 0


def invent_name(base: str) -> str:
    return f"{base[:50]}-{secrets.token_hex(3)}"


def spec(options: Options) -> Object:
    """Of a Job; each of several parts finds its number in JOB_COMPLETION_INDEX, and a bad one does not end the rest."""
    if options.parallel and options.parallel > options.parts:
        raise InvalidError(
            f"--parallel {options.parallel} of --count {options.parts}", hint="--count is how many in all"
        )
    pod = manifest.pod(options.run._replace(ports=(), tty_size="", attach=False))
    template: Object = {"metadata": {"labels": {"app": options.run.name}}, "spec": pod["spec"]}
    if annotations := pod["metadata"].get("annotations"):
        template["metadata"]["annotations"] = annotations
    found: Object = {"backoffLimit": options.retries, "template": template}
    if options.parts > 1:
        found |= {
            "completions": options.parts, "parallelism": options.parallel or options.parts,
            "completionMode": "Indexed", "backoffLimitPerIndex": options.retries,
        }  # fmt: skip
        del found["backoffLimit"]
    if options.timeout:
        found["activeDeadlineSeconds"] = options.timeout
    return found


def job(options: Options) -> Object:
    metadata = {"name": options.run.name, "namespace": options.run.namespace, "labels": {"app": options.run.name}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec(options)}


def of_cron(cron: Object, name: str) -> Object:
    """One run of a CronJob, now. It goes with the CronJob, when that goes."""
    given = cron["spec"]["jobTemplate"]
    metadata = given.get("metadata", {})
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": cron["metadata"]["name"]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": cron["metadata"]["namespace"],
            "labels": metadata.get("labels", {}),
            "annotations": {**metadata.get("annotations", {}), MANUAL: "manual"},
            "ownerReferences": [{**owner, "uid": cron["metadata"]["uid"], "blockOwnerDeletion": True}],
        },
        "spec": given["spec"],
    }


def ended(found: Object) -> tuple[str, str, str] | None:
    """(Complete or Failed, reason, message) of a Job that has ended."""
    for row in found.get("status", {}).get("conditions", []):
        if row["type"] in ("Complete", "Failed") and row["status"] == "True":
            return row["type"], str(row.get("reason", "")), str(row.get("message", ""))
    return None


def word(found: Object) -> str:
    """The STATUS column."""
    if end := ended(found):
        return end[0]
    if found["spec"].get("suspend"):
        return "Suspended"
    return "Running" if found.get("status", {}).get("active") else "Pending"


def exit_code(pods: Sequence[Object]) -> int:
    """Of the program that failed last; 1 if none did."""
    rows = [status.main_status(pod).get("state", {}).get("terminated", {}) for pod in pods]
    failed = [row for row in rows if row.get("exitCode")]
    last = max(failed, key=lambda row: str(row.get("finishedAt", "")), default={"exitCode": 1})
    return int(last["exitCode"])


def follow(api: Api, made: Object, line: Progress) -> int:
    """What its pods write, until it has ended; its exit code. Raises what keeps it from running, and DeadlineError."""
    namespace, name = made["metadata"]["namespace"], made["metadata"]["name"]
    named = made["spec"].get("completions", 1) > 1
    with Logs(api, namespace, {"follow": "true"}, after_name if named else None) as logs:
        for seen in waiting.looks(api, JOBS, namespace, name, FOREVER):
            pods = rollouts.owned(seen.pods, seen.workload)
            logs.see(pods)
            if any(status.started(pod) for pod in pods):
                line.done()
            else:
                line.update(f"{name}: {_step(pods)}")
            if end := ended(seen.workload):
                logs.finish()
                return _code(name, end, pods)
            _check(name, pods)
    raise AssertionError("unreachable")


def _check(name: str, pods: Sequence[Object]) -> None:
    """ConflictError for what keeps one of them from starting and will not mend itself."""
    for pod in pods:
        failed = rollouts.stuck(pod)
        if failed and failed.reason not in rollouts.MAY_PASS:
            raise ConflictError(f"{name} does not run: {failed.message}", hint=f"cuboid job rm {name}")


def _step(pods: Sequence[Object]) -> str:
    from cuboid.cli.following import step

    return step(pods[0]) if pods else "waiting for its pod"


def _code(name: str, end: tuple[str, str, str], pods: Sequence[Object]) -> int:
    kind, reason, message = end
    if kind == "Complete":
        return 0
    if reason == "DeadlineExceeded":
        raise DeadlineError(f"{name} took too long and was ended", hint="--timeout SECONDS gives it more time")
    print(f"cuboid: {name} failed: {message}", file=sys.stderr)
    return exit_code(pods)

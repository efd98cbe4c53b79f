"""kubectl's other verbs on workloads that really run: looked at, changed in every way, waited for, followed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from tests.e2e.conftest import image
from tests.harness import pods as kube
from tests.harness.platform import VENV, Object, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
LIVE = "trap 'exit 0' TERM; while true; do sleep 1; done"
KUBECTL = str(VENV / "kubectl")


def deployment(**labels: str) -> Object:
    selector = {"app": "desk"}
    container = {
        "name": "main",
        "image": image("busybox"),
        "command": ["sh", "-c", LIVE],
        "env": [{"name": "COLOR", "value": "red"}],
    }
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": selector},
        "template": {
            "metadata": {"labels": {**selector, **labels}},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 5},
        },
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "desk"}, "spec": spec}


@pytest.fixture(scope="module")
def desk(place: Platform) -> Iterator[Platform]:
    """A Deployment of one pod runs."""
    kube.apply(place, deployment())
    rolled(place)
    yield place
    place.kubectl("delete", "deployment", "desk", timeout=60)
    kube.until(lambda: not get(place, "pods")["items"], "its pods are gone", 60)
    assert place.leftovers() == []


def get(place: Platform, *words: str) -> Any:
    return json.loads(place.kubectl("get", *words, "-o", "json").stdout)


def rolled(place: Platform) -> None:
    place.kubectl("rollout", "status", "deployment/desk", "--timeout=90s", timeout=100)


def color(place: Platform) -> str:
    """What the newest pod really has in its environment."""
    kube.until(lambda: len(get(place, "pods", "-l", "app=desk")["items"]) == 1, "the others have ended", 60)
    return kube.shell(place, "deployment/desk", "echo $COLOR").strip()


def lines(following: Popen[str], wanted: str, seconds: float = 60) -> list[str]:
    """What is printed until a line has the pattern; the test's own deadline ends a wait for nothing."""
    assert following.stdout is not None
    seen: list[str] = []
    end = time.monotonic() + seconds
    while not seen or not re.search(wanted, seen[-1]):
        assert time.monotonic() < end, seen
        line = following.stdout.readline()
        assert line, seen
        seen.append(line)
    return seen


def test_the_kinds_and_their_fields_are_told(desk: Platform) -> None:
    kinds = desk.kubectl("api-resources", "--no-headers").stdout
    for name in ("deployments", "statefulsets", "daemonsets", "jobs", "cronjobs", "poddisruptionbudgets"):
        assert re.search(rf"^{name} .* true ", kinds, re.MULTILINE), kinds
    assert "apps/v1" in desk.kubectl("api-versions").stdout.split()
    told = desk.kubectl("explain", "deployment.spec.strategy.rollingUpdate.maxSurge").stdout
    assert "FIELD: maxSurge <IntOrString>" in told
    assert "podFailurePolicy" in desk.kubectl("explain", "job.spec", "--recursive").stdout


def test_who_may_do_what_is_told(desk: Platform) -> None:
    assert desk.kubectl("auth", "can-i", "delete", "deployments").stdout == "yes\n"
    desk.kubectl("create", "serviceaccount", "reader")
    desk.kubectl("create", "role", "reads", "--verb=get,list", "--resource=pods")
    desk.kubectl("create", "rolebinding", "reads", "--role=reads", "--serviceaccount=default:reader")
    as_reader = "--as=system:serviceaccount:default:reader"
    assert desk.kubectl("auth", "can-i", "list", "pods", as_reader).stdout == "yes\n"
    refused = desk.kubectl("auth", "can-i", "delete", "pods", as_reader, check=False)
    assert (refused.returncode, refused.stdout) == (1, "no\n")
    assert re.search(
        r"^pods +\[\] +\[\] +\[get list\]", desk.kubectl("auth", "can-i", "--list", as_reader).stdout, re.M
    )
    assert "Forbidden" in desk.kubectl("delete", "deployment", "desk", as_reader, check=False).stderr
    desk.kubectl("delete", "serviceaccount,role,rolebinding", "reader", "reads", "--ignore-not-found")
    assert "admin" in desk.kubectl("auth", "whoami").stdout


def test_use_and_history_of_a_workload_are_told(desk: Platform) -> None:
    kube.until(lambda: len(get(desk, "pods", "-l", "app=desk")["items"]) == 1, "an earlier roll is over", 60)
    (pod,) = get(desk, "pods", "-l", "app=desk")["items"]
    name = pod["metadata"]["name"]
    kube.until(lambda: name in desk.kubectl("top", "pods", "-l", "app=desk", check=False).stdout, "use is measured", 30)
    row = desk.kubectl("top", "pods", "-l", "app=desk", "--no-headers").stdout.split()
    assert re.fullmatch(r"\d+m", row[1]) and re.fullmatch(r"\d+Mi", row[2]), row
    events = desk.kubectl("events", "--for", "deployment/desk").stdout
    assert "ScalingReplicaSet" in events
    described = desk.kubectl("describe", "deployment", "desk").stdout
    assert "NewReplicaSet:" in described and "1 available" in described


def test_a_manifest_is_compared_and_applied_by_both_ways(desk: Platform, tmp_path: Path) -> None:
    changed = deployment()
    changed["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "green"
    manifest = tmp_path / "desk.json"
    manifest.write_text(json.dumps(changed))
    difference = desk.kubectl("diff", "-f", str(manifest), check=False)
    assert difference.returncode == 1
    assert re.search(r"^-\s+value: [a-z]+$", difference.stdout, re.M), difference.stdout
    assert re.search(r"^\+\s+value: green$", difference.stdout, re.M)
    desk.kubectl("apply", "-f", str(manifest))
    assert desk.kubectl("diff", "-f", str(manifest)).stdout == ""
    rolled(desk)
    assert color(desk) == "green"
    changed["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "blue"
    desk.kubectl("apply", "--server-side", "--field-manager=other", "--force-conflicts", "-f", "-",
                 stdin=json.dumps(changed))  # fmt: skip
    rolled(desk)
    assert color(desk) == "blue"
    refused = desk.kubectl("apply", "--server-side", "--field-manager=third", "-f", str(manifest), check=False)
    assert refused.returncode == 1
    assert 'conflict with "other"' in refused.stderr


def test_a_workload_is_edited_patched_labelled_and_annotated(desk: Platform, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/value: [a-z]*$/value: violet/' \"$1\"\n")
    editor.chmod(0o755)
    assert (
        "deployment.apps/desk edited"
        in desk.run(["env", f"KUBE_EDITOR={editor}", KUBECTL, "edit", "deploy/desk"]).stdout
    )
    rolled(desk)
    assert color(desk) == "violet"
    strategic = {
        "spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "MORE", "value": "x"}]}]}}}
    }
    desk.kubectl("patch", "deployment", "desk", "-p", json.dumps(strategic))
    found = get(desk, "deployment", "desk")["spec"]["template"]["spec"]["containers"][0]
    assert {row["name"] for row in found["env"]} == {"COLOR", "MORE"}
    change = [{"op": "replace", "path": "/spec/revisionHistoryLimit", "value": 3}]
    desk.kubectl("patch", "deployment", "desk", "--type=json", "-p", json.dumps(change))
    rolled(desk)
    (pod,) = (p for p in get(desk, "pods", "-l", "app=desk")["items"] if "deletionTimestamp" not in p["metadata"])
    name = pod["metadata"]["name"]
    desk.kubectl("label", "pod", name, "tier=front")
    desk.kubectl("annotate", "pod", name, "note=seen")
    assert desk.kubectl("get", "pods", "-l", "tier=front", "-o", "name").stdout == f"pod/{name}\n"
    assert "already has a value" in desk.kubectl("label", "pod", name, "tier=back", check=False).stderr
    desk.kubectl("label", "pod", name, "tier-")
    assert get(desk, "pod", name)["metadata"]["annotations"]["note"] == "seen"


def test_a_pod_that_loses_its_label_is_replaced_and_left_to_itself(desk: Platform) -> None:
    kube.until(lambda: len(get(desk, "pods", "-l", "app=desk")["items"]) == 1, "the others have ended", 60)
    (pod,) = get(desk, "pods", "-l", "app=desk")["items"]
    name = pod["metadata"]["name"]
    desk.kubectl("label", "pod", name, "app=quarantine", "--overwrite")
    rolled(desk)
    kube.until(lambda: len(get(desk, "pods", "-l", "app=desk")["items"]) == 1, "another takes its place", 30)
    alone = get(desk, "pod", name)
    assert "ownerReferences" not in alone["metadata"]
    assert alone["status"]["phase"] == "Running"
    desk.kubectl("delete", "pod", name, timeout=60)


def test_a_scaling_is_watched_as_a_table_and_waited_for(desk: Platform) -> None:
    with desk.started([KUBECTL, "get", "pods", "-l", "app=desk", "-w"]) as pods, \
         desk.started([KUBECTL, "get", "deployment", "desk", "-w", "--no-headers"]) as table:  # fmt: skip
        assert lines(pods, "desk")[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
        desk.kubectl("scale", "deployment/desk", "--replicas=2", "--current-replicas=1")
        desk.kubectl("wait", "--for=jsonpath={.status.readyReplicas}=2", "deployment/desk", "--timeout=60s", timeout=70)
        seen = lines(table, r"^desk +2/2")
        assert [line.split()[1] for line in seen][-2:] == ["1/2", "2/2"]
        states = [line.split()[2] for line in lines(pods, r" 1/1 +Running")]
        assert states[0] in ("Pending", "ContainerCreating") and states[-1] == "Running"
        desk.kubectl("scale", "deployment/desk", "--replicas=1")
        assert "Terminating" in lines(pods, "Terminating")[-1]
    refused = desk.kubectl("scale", "deployment/desk", "--replicas=3", "--current-replicas=7", check=False)
    assert "Expected replicas to be 7" in refused.stderr

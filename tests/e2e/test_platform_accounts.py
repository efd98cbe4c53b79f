"""Pods with the token of their service account on a whole platform: what it opens, and when it ends."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from tests.e2e.conftest import image
from tests.harness.platform import Platform

Object = dict[str, Any]
pytestmark = [pytest.mark.e2e, pytest.mark.vm, pytest.mark.timeout(300)]
PLACE = "/var/run/secrets/kubernetes.io/serviceaccount"
CALL = (
    f'curl -sS --max-time 20 --cacert {PLACE}/ca.crt -H "Authorization: Bearer $(cat {PLACE}/token)" '
    "-o /dev/null -w '%{http_code}\\n' https://kubernetes.default.svc/api/v1/namespaces/default/"
)


def pod(name: str, image_name: str, **spec: Any) -> Object:
    container = {"name": "main", "image": image(image_name), "command": ["sleep", "infinity"]}
    body = {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": body}


def running(found: Object) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in found["status"].get("conditions", []))


def claims(token: str) -> Object:
    middle = token.split(".")[1]
    found: Object = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    return found


def reader_of_pods() -> list[Object]:
    rbac = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    subjects = [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": "reader"}, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1", "kind": "RoleBinding", "metadata": {"name": "reader"}, "subjects": subjects,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "reader"},
        },
    ]  # fmt: skip


def apply(place: Platform, *documents: Object) -> None:
    body = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
    place.kubectl("apply", "-f", "-", stdin=json.dumps(body))


def test_a_pod_may_do_with_its_token_what_its_role_says_until_it_is_gone(pods: Platform) -> None:
    apply(pods, *reader_of_pods(), pod("asker", "services", serviceAccountName="reader"))
    pods.wait("asker", running)
    answers = [pods.cuboid("exec", "asker", "sh", "-c", CALL + what).stdout for what in ("pods", "secrets")]
    assert answers == ["200\n", "403\n"], "pods may be read, secrets not; the API's certificate is good for its name"
    namespace = pods.cuboid("exec", "asker", "cat", f"{PLACE}/namespace").stdout
    token = pods.cuboid("exec", "asker", "cat", f"{PLACE}/token").stdout
    assert namespace == "default"
    assert claims(token)["kubernetes.io"]["pod"]["name"] == "asker"
    assert listed(pods, token) == 200
    pods.cuboid("rm", "-f", "asker")
    assert listed(pods, token) == 401, "the token of a pod that is gone opens nothing"


def listed(place: Platform, token: str) -> int:
    """The answer's code to a list of pods, asked from the host."""
    server = json.loads((place.state / "client.json").read_text())["server"]
    url = f"{server}/api/v1/namespaces/default/pods"
    command = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Authorization: Bearer {token}", url]
    return int(place.run(command).stdout)


def test_a_pod_that_wants_no_token_has_none_and_one_of_another_audience_has_its_own(pods: Platform) -> None:
    sources = [{"serviceAccountToken": {"path": "vault", "audience": "vault", "expirationSeconds": 600}}]
    volume = {"name": "tokens", "projected": {"sources": sources}}
    own = pod("own", "busybox", automountServiceAccountToken=False, volumes=[volume])
    own["spec"]["containers"][0]["volumeMounts"] = [{"name": "tokens", "mountPath": "/tokens"}]
    apply(pods, own)
    pods.wait("own", running)
    assert pods.cuboid("exec", "own", "ls", PLACE, check=False).returncode != 0
    found = claims(pods.cuboid("exec", "own", "cat", "/tokens/vault").stdout)
    assert found["aud"] == ["vault"]
    assert found["exp"] - time.time() < 601


def test_pods_that_run_have_fresh_tokens_after_a_restart_of_the_node_agent(pods: Platform) -> None:
    apply(pods, pod("stays", "busybox"))
    pods.wait("stays", running)
    before = pods.cuboid("exec", "stays", "cat", f"{PLACE}/token").stdout
    pods.kill_daemon("cuboid-node")
    pods.up()
    end = time.monotonic() + 30
    while pods.cuboid("exec", "stays", "cat", f"{PLACE}/token", check=False).stdout in ("", before):
        assert time.monotonic() < end, "no new token"
        time.sleep(0.3)

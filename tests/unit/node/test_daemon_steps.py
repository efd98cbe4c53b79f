"""Steps that meet the outside: hooks, messages, start errors, pull secrets, boots at once, hostile guests."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.fake import Script
from cuboid.kube.types import secret
from cuboid.lib.errors import InvalidError, UnsupportedError
from cuboid.node.records import Record, Records
from cuboid.node.sandbox import events as ev
from cuboid.node.sandbox import state as st
from cuboid.node.sandbox.plan import plan
from cuboid.node.steps import guest_events
from cuboid.node.steps.gate import BootGate
from tests.harness.node import make_pod
from tests.harness.node_world import FakeRecorder, Host, container, ready


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    made = Host(tmp_path)
    yield made
    await made.end()


def with_hook(point: str, handler: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": "app", "image": "demo:1", "lifecycle": {point: handler}}]


def reasons(host: Host) -> set[str]:
    return {reason for reason, _ in host.recorder.events}


async def test_a_pre_stop_command_runs_before_the_signal(host: Host) -> None:
    host.api.put(host.pod(containers=with_hook("preStop", {"exec": {"command": ["true"]}})))
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        host.api.delete("demo")
        await host.api.until(lambda: not host.api.pods)
        assert "FailedPreStopHook" not in reasons(host)


async def test_a_pre_stop_command_that_fails_is_told_and_holds_nothing_up(host: Host) -> None:
    host.api.put(host.pod(containers=with_hook("preStop", {"exec": {"command": ["sh", "-c", "exit 3"]}})))
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        host.api.delete("demo")
        await host.api.until(lambda: not host.api.pods)
        (message,) = [text for reason, text in host.recorder.events if reason == "FailedPreStopHook"]
        assert "code 3" in message


async def test_a_post_start_command_that_fails_restarts_the_container(host: Host) -> None:
    host.api.put(host.pod(containers=with_hook("postStart", {"exec": {"command": ["false"]}})))
    async with host.agent_running():
        await host.api.until(lambda: container(host.api.status("demo")).get("restartCount", 0) >= 1)
        assert "FailedPostStartHook" in reasons(host)


@pytest.mark.parametrize(("answer", "good"), [(b"HTTP/1.1 204 ok\r\n\r\n", True), (b"HTTP/1.1 500 no\r\n\r\n", False),
                                              (b"x" * 100_000, False), (b"", False)])  # fmt: skip
async def test_an_http_hook_takes_any_status_below_400(host: Host, answer: bytes, good: bool) -> None:
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    hook = {"httpGet": {"host": "127.0.0.1", "port": port, "path": "/hook"}}
    host.api.put(host.pod(containers=with_hook("postStart", hook)))
    async with server, host.agent_running():
        await host.api.until(lambda: "FailedPostStartHook" in reasons(host) or ready(host.api.status("demo")))
        assert ready(host.api.status("demo")) == good
    assert asked[0] == b"GET /hook HTTP/1.1\r\n"


async def test_a_message_falls_back_to_the_end_of_the_log(host: Host) -> None:
    host.scripts["app"] = Script(output=[(2, b"cannot open the database")], exit_after=0.05, exit_code=1)
    app = {"name": "app", "image": "demo:1", "terminationMessagePolicy": "FallbackToLogsOnError"}
    host.api.put(host.pod(containers=[app], restartPolicy="Never"))
    async with host.agent_running():
        await host.api.until(lambda: host.api.status("demo").get("phase") == "Failed")
        end = container(host.api.status("demo"))["state"]["terminated"]
        assert end["message"] == "cannot open the database"


async def test_a_missing_entrypoint_is_told_as_docker_does(host: Host) -> None:
    error = pb.Error(code=pb.Error.COMMAND_NOT_FOUND, message="/nope: no such file")
    host.scripts["app"] = Script(start_error=error)
    host.api.put(host.pod(restartPolicy="Never"))
    async with host.agent_running():
        await host.api.until(lambda: host.api.status("demo").get("phase") == "Failed")
        end = container(host.api.status("demo"))["state"]["terminated"]
        assert (end["exitCode"], end["reason"], end["message"]) == (127, "ContainerCannotRun", "/nope: no such file")


@pytest.mark.parametrize("code", [pb.Error.INVALID, pb.Error.USER_NOT_FOUND])
async def test_what_the_guest_finds_wrong_with_a_container_is_a_configuration_error(
    host: Host, code: pb.Error.Code
) -> None:
    host.scripts["app"] = Script(start_error=pb.Error(code=code, message="the container has no user www"))
    host.api.put(host.pod())
    async with host.agent_running():
        waits = {"reason": "CreateContainerConfigError", "message": "the container has no user www"}
        await host.api.until(lambda: waiting(host) == waits)


async def test_a_missing_secret_key_waits_and_uses_up_no_attempt(host: Host) -> None:
    reference = {"name": "s", "key": "k"}
    app = {"name": "app", "image": "demo:1", "env": [{"name": "X", "valueFrom": {"secretKeyRef": reference}}]}
    host.api.put(host.pod(containers=[app]))
    async with host.agent_running():
        await host.api.until(lambda: "waiting" in container(host.api.status("demo")).get("state", {}) and
                             container(host.api.status("demo"))["state"]["waiting"]["reason"]
                             == "CreateContainerConfigError")  # fmt: skip
        value = base64.b64encode(b"v").decode()
        host.objects.secrets["s"] = secret({"metadata": {"name": "s"}, "data": {"k": value}})
        await host.api.until(lambda: ready(host.api.status("demo")))
        assert container(host.api.status("demo"))["restartCount"] == 0
        assert "X=v" in host.agent().containers["app"].call.env


async def test_images_are_pulled_with_the_pods_secret(host: Host) -> None:
    entries = {"auths": {"r.example.com": {"username": "u", "password": "p"}}}
    data = {".dockerconfigjson": base64.b64encode(json.dumps(entries).encode()).decode()}
    host.objects.secrets["pull"] = secret({"metadata": {"name": "pull"}, "data": data})
    app = {"name": "app", "image": "r.example.com/app:1"}
    host.api.put(host.pod(containers=[app], imagePullSecrets=[{"name": "pull"}]))
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        ((reference, credentials),) = host.images.pulled
        assert reference == "r.example.com/app:1" and credentials is not None and credentials.username == "u"


@pytest.mark.parametrize(("policy", "present", "pulls", "reason"), [
    ("Always", True, 1, ""), ("IfNotPresent", True, 0, ""), ("Never", True, 0, ""),
    ("Never", False, 0, "ErrImageNeverPull"),
])  # fmt: skip
async def test_the_pull_policy_decides(host: Host, policy: str, present: bool, pulls: int, reason: str) -> None:
    if present:
        host.images.present.add("demo:1")
    host.api.put(host.pod(containers=[{"name": "app", "image": "demo:1", "imagePullPolicy": policy}]))
    async with host.agent_running():
        await host.api.until(
            lambda: (
                container(host.api.status("demo")).get("state", {}).get("waiting", {}).get("reason") == reason
                if reason
                else ready(host.api.status("demo"))
            )
        )
        assert len(host.images.pulled) == pulls


async def test_a_claim_that_is_not_there_is_waited_for_and_said_in_one_sentence(host: Host) -> None:
    host.api.put(host.pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]))
    async with host.agent_running():
        await host.api.until(lambda: "FailedMount" in reasons(host))
        await host.api.until(lambda: host.api.status("demo").get("phase") == "Pending")
        assert host.leftovers() == []


async def test_a_driver_that_cannot_boot_leaves_nothing_and_is_asked_again(host: Host) -> None:
    host.driver.fail_next("start", OSError("no memory"))
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        assert host.vm().endswith("-1")


async def test_a_driver_that_can_never_boot_it_fails_the_pod(host: Host) -> None:
    host.driver.fail_next("create", UnsupportedError("no such machine"))
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: host.api.status("demo").get("phase") == "Failed")
        await host.api.until(lambda: not host.network.attachments())


async def test_boots_are_let_in_one_after_the_other_and_slots_come_back_once() -> None:
    gate, order = BootGate(1), []
    first = await gate.enter()

    async def boot(number: int) -> None:
        slot = await gate.enter()
        order.append(number)
        slot.leave()

    tasks = [asyncio.ensure_future(boot(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert order == []
    first.leave()
    first.leave()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2]
    slot = await gate.enter()
    waiting = asyncio.ensure_future(gate.enter())
    await asyncio.sleep(0)
    assert not waiting.done()
    slot.leave()
    (await waiting).leave()


# --- records ---------------------------------------------------------------------------------------------------------


def test_a_record_comes_back_as_it_was_saved_and_a_broken_one_is_put_aside(tmp_path: Path) -> None:
    records = Records(tmp_path)
    pod = make_pod()
    record = Record(st.new(plan(pod)), {"kind": "Pod"}, {"id": "x"}, "boot")
    records.save("good", record)
    (tmp_path / "pods" / "bad").mkdir()
    (tmp_path / "pods" / "bad" / "record.json").write_bytes(b'{"sandbox":')
    (tmp_path / "pods" / "begun").mkdir()
    assert records.load() == {"good": record}
    assert sorted(path.name for path in (tmp_path / "pods").iterdir()) == ["bad", "good"]
    records.remove("good")
    assert records.load() == {}


@pytest.mark.parametrize("uid", ["..", "a/b", "", ".x", "a" * 64])
def test_a_uid_that_could_leave_the_folder_is_refused(tmp_path: Path, uid: str) -> None:
    with pytest.raises(InvalidError):
        Records(tmp_path).folder(uid)


# --- hostile guests --------------------------------------------------------------------------------------------------

NUMBERS = some.integers(0, 2**63)


@given(some.integers(-(2**31), 2**31 - 1), some.integers(-(2**31), 2**31 - 1), NUMBERS, some.text(max_size=9000))
async def test_whatever_a_guest_tells_of_an_end_stays_within_bounds(
    code: int, signal: int, moment: int, message: str
) -> None:
    work = cast(Any, SimpleNamespace(
        now=1_700_000_000.0, pod=make_pod(), pumps={}, guest=None, tools=SimpleNamespace(recorder=FakeRecorder())
    ))  # fmt: skip
    status = pb.ExitStatus(code=code, signal=signal, finished_unix_ns=moment, started_unix_ns=moment)
    status.message = message.encode(errors="ignore").decode()
    event = pb.Event(exited=pb.ContainerExited(name="app", attempt=1, exit=status))
    told = cast(Any, await guest_events.convert(work, event))
    assert 0 <= told.code <= 255 and 0 <= told.signal < 128 and len(told.message) <= 4096
    assert told.finished_at <= work.now + guest_events.CLOCK_SKEW


async def test_a_volume_beyond_its_limit_evicts_only_if_the_pod_gave_it_one() -> None:
    volumes = [{"name": "small", "emptyDir": {"sizeLimit": "10Mi"}}, {"name": "free", "emptyDir": {}}]
    work = cast(Any, SimpleNamespace(now=1.0, pod=make_pod(volumes=volumes)))
    told = [await guest_events.convert(work, over_limit(name)) for name in ("small", "free", "other")]
    text = 'Usage of EmptyDir volume "small" exceeds the limit "10Mi".'
    assert told == [ev.Evicted(at=1.0, message=text), None, None]


def over_limit(name: str) -> pb.Event:
    return pb.Event(volume_over_limit=pb.VolumeOverLimit(volume=name, limit_bytes=1))


def test_a_logs_end_is_its_last_lines_without_prefixes(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("".join(f"2026-01-01T00:00:00Z stdout F line {n}\n" for n in range(500)))
    text = guest_events.log_text(path)
    assert text.endswith("line 499") and len(text.encode()) <= 2048


def waiting(host: Host) -> Any:
    """Why the container waits, None while it does not or nothing is known of it."""
    rows = host.api.status("demo").get("containerStatuses", [])
    return rows[0]["state"].get("waiting") if rows else None


# --- ephemeral containers --------------------------------------------------------------------------------------------


def debug(name: str, image: str = "tools:1") -> dict[str, Any]:
    return {"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "targetContainerName": "app"}


def ephemeral(host: Host, name: str) -> dict[str, Any]:
    rows = host.api.status("demo").get("ephemeralContainerStatuses", [])
    return next((row["state"] for row in rows if row["name"] == name), {})


async def test_the_image_of_an_ephemeral_container_goes_into_the_machine_that_runs(host: Host) -> None:
    host.images.others["tools:1"] = "sha256:tools"
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        host.api.change("demo", {"spec": {"ephemeralContainers": [debug("tools")]}})
        await host.api.until(lambda: "running" in ephemeral(host, "tools"))
        call = host.agent().containers["tools"].call
        assert (call.process_target, call.image_device.serial, call.image) == ("app", "ro1", "sha256:tools")
        host.images.others["more:1"] = "sha256:more"
        both = [debug("tools"), debug("second", "more:1")]
        host.api.change("demo", {"spec": {"ephemeralContainers": both}})
        await host.api.until(lambda: "terminated" in ephemeral(host, "second"))
        assert ephemeral(host, "second")["terminated"]["reason"] == "NoRoomForImage"


async def test_an_ephemeral_container_goes_on_over_a_restart_of_the_agent(host: Host) -> None:
    host.images.others["tools:1"] = "sha256:tools"
    host.api.put(host.pod())
    async with host.agent_running():
        await host.api.until(lambda: ready(host.api.status("demo")))
        host.api.change("demo", {"spec": {"ephemeralContainers": [debug("tools")]}})
        await host.api.until(lambda: "running" in ephemeral(host, "tools"))
    async with host.agent_running():
        both = [debug("tools"), debug("again")]
        host.api.change("demo", {"spec": {"ephemeralContainers": both}})
        await host.api.until(lambda: "running" in ephemeral(host, "again"))
        assert "running" in ephemeral(host, "tools")
        host.api.delete("demo")
        await host.api.until(lambda: not host.api.pods and host.leftovers() == [])

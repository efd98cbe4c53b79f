from __future__ import annotations

import asyncio
import base64
from typing import Any, cast

import pytest

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import Guest
from cuboid.kube.types import ConfigMap, Pod, Secret, ServiceAccountTokenProjection, config_map, pod, secret
from cuboid.lib.errors import CuboidError, ExhaustedError, ForbiddenError, InvalidError, NotFoundError, UnavailableError
from cuboid.node import volumes
from cuboid.node.objects import ObjectKey, PodFacts
from cuboid.node.volumes import VolumeError, VolumeRefresher, is_files_volume, volume_files

FACTS = PodFacts(node_name="node-1", pod_ips=("10.1.2.3", "fd77::3"), cpu_millis=2000)
MAP = ObjectKey("ConfigMap", "default", "m")


class Objects:
    def __init__(self) -> None:
        self.maps: dict[str, dict[str, str]] = {"m": {"a": "1", "b": "2"}}
        self.secrets: dict[str, dict[str, bytes]] = {"s": {"key": b"\x00\xff"}}
        self.failure: CuboidError | None = None
        self.due, self.number = True, 1

    async def config_map(self, namespace: str, name: str) -> ConfigMap | None:
        if self.failure:
            raise self.failure
        found = self.maps.get(name)
        binary = {"bin": base64.b64encode(b"\xff").decode()} if name == "binary" else {}
        return None if found is None else config_map({"data": found, "binaryData": binary})

    async def secret(self, namespace: str, name: str) -> Secret | None:
        found = self.secrets.get(name)
        encoded = {key: base64.b64encode(value).decode() for key, value in (found or {}).items()}
        return None if found is None else secret({"data": encoded})

    async def token(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> str:
        if self.failure:
            raise self.failure
        self.due = False
        return f"{pod.spec.service_account_name}/{wanted.audience}/{wanted.expiration_seconds}/{self.number}"

    def token_due(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> bool:
        return self.due


def make(*sources: dict[str, Any], labels: dict[str, str] | None = None) -> Pod:
    specs = [{"name": f"v{n}", **source} for n, source in enumerate(sources)]
    metadata = {"name": "web", "namespace": "default", "uid": "u", "labels": labels or {"app": "x"}}
    return pod({"metadata": metadata, "spec": {"containers": [{"name": "main"}], "volumes": specs}})


async def files(source: dict[str, Any], objects: Objects | None = None) -> dict[str, tuple[bytes, int]]:
    made = make(source)
    found = await volume_files(made, made.spec.volumes[0], objects or Objects(), FACTS)
    assert [file.path for file in found] == sorted(file.path for file in found)
    return {file.path: (file.content, file.mode) for file in found}


async def test_a_config_map_becomes_files() -> None:
    assert await files({"configMap": {"name": "m"}}) == {"a": (b"1", 0o644), "b": (b"2", 0o644)}


async def test_items_choose_keys_paths_and_modes() -> None:
    source = {
        "name": "m",
        "defaultMode": 0o400,
        "items": [{"key": "a", "path": "x/y"}, {"key": "b", "path": "z", "mode": 0o755}],
    }
    assert await files({"configMap": source}) == {"x/y": (b"1", 0o400), "z": (b"2", 0o755)}


async def test_bytes_that_are_no_text_arrive_as_they_are() -> None:
    assert await files({"secret": {"secretName": "s"}}) == {"key": (b"\x00\xff", 0o644)}
    objects = Objects()
    objects.maps["binary"] = {"t": "é"}
    assert (await files({"configMap": {"name": "binary"}}, objects))["bin"][0] == b"\xff"


async def test_the_downward_api_as_files() -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu"}, "mode": 0o600},
    ]
    assert await files({"downwardAPI": {"items": items}}) == {"labels": (b'app="x"', 0o644), "cpu": (b"2", 0o600)}


async def test_a_projection_joins_its_sources() -> None:
    sources = [
        {"configMap": {"name": "m", "items": [{"key": "a", "path": "a"}]}},
        {"secret": {"name": "s"}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
        {"configMap": {"name": "none", "optional": True}},
    ]
    found = await files({"projected": {"sources": sources, "defaultMode": 0o440}})
    assert found == {"a": (b"1", 0o440), "key": (b"\x00\xff", 0o440), "name": (b"web", 0o440)}


TOKEN = {"projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}}


async def test_a_token_of_the_pods_account_is_a_file() -> None:
    assert await files(TOKEN) == {"token": (b"//3607/1", 0o644)}


@pytest.mark.parametrize("error", [NotFoundError("no such account"), ForbiddenError("no pod of this node")])
async def test_a_token_that_cannot_be_had_yet_is_waited_for(error: CuboidError) -> None:
    objects = Objects()
    objects.failure = error
    with pytest.raises(VolumeError, match="no token for the service account 'default'"):
        await files(TOKEN, objects)


@pytest.mark.parametrize(
    ("source", "kind", "text"),
    [
        ({"configMap": {"name": "none"}}, VolumeError, 'configmap "none" not found'),
        ({"secret": {"secretName": "none"}}, VolumeError, 'secret "none" not found'),
        (
            {"configMap": {"name": "m", "items": [{"key": "k", "path": "k"}]}},
            VolumeError,
            'configmap "m" references non-existent config key: k',
        ),
        ({"configMap": {"name": "m", "items": [{"key": "a", "path": "../x"}]}}, InvalidError, "relative path"),
        ({"configMap": {"name": "m", "items": [{"key": "a", "path": "/x"}]}}, InvalidError, "relative path"),
    ],
)
async def test_what_cannot_be_filled_says_why(source: dict[str, Any], kind: type[CuboidError], text: str) -> None:
    with pytest.raises(kind, match=text):
        await files(source)


async def test_a_volume_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "FILES_LIMIT", 1)
    with pytest.raises(ExhaustedError):
        await files({"configMap": {"name": "m"}})


def test_which_volumes_are_files() -> None:
    made = make({"configMap": {"name": "m"}}, {"emptyDir": {}}, {"downwardAPI": {}})
    assert [is_files_volume(volume) for volume in made.spec.volumes] == [True, False, True]


# --- refresh ---------------------------------------------------------------------------------------------------------


class FakeGuest:
    def __init__(self) -> None:
        self.written: list[pb.WriteVolume] = []
        self.failures: list[Exception] = []
        self.changed = asyncio.Event()

    async def write_volume(self, call: pb.WriteVolume) -> None:
        if self.failures:
            raise self.failures.pop()
        self.written.append(call)
        self.changed.set()

    async def next(self) -> pb.WriteVolume:
        async with asyncio.timeout(5):
            await self.changed.wait()
        self.changed.clear()
        return self.written[-1]


class World:
    def __init__(self) -> None:
        self.objects, self.guest = Objects(), FakeGuest()
        self.watched: set[ObjectKey] = set()
        self.refresher = VolumeRefresher(self.objects, watched=self._watch, look=0.01)

    def _watch(self, keys: set[ObjectKey]) -> None:
        self.watched = keys

    def track(self, made: Pod, given: dict[str, list[pb.File]] | None = None) -> None:
        self.refresher.track(made, cast(Guest, self.guest), FACTS, given)

    async def __aenter__(self) -> World:
        self.task = asyncio.get_running_loop().create_task(self.refresher.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_a_change_is_pushed_once_and_what_the_guest_has_is_not() -> None:
    async with World() as world:
        made = make({"configMap": {"name": "m"}}, {"secret": {"secretName": "s"}})
        given = {v.name: await volume_files(made, v, world.objects, FACTS) for v in made.spec.volumes}
        world.track(made, given)
        await asyncio.sleep(0.02)
        assert world.guest.written == []
        assert world.watched == {MAP, ObjectKey("Secret", "default", "s")}
        world.objects.maps["m"]["a"] = "new"
        world.refresher.changed(MAP)
        world.refresher.changed(MAP)
        call = await world.guest.next()
        assert (call.volume, {f.path: f.content for f in call.files}) == ("v0", {"a": b"new", "b": b"2"})
        await asyncio.sleep(0.02)
        assert len(world.guest.written) == 1


async def test_new_labels_reach_the_downward_api() -> None:
    source = {"downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}
    async with World() as world:
        world.track(make(source))
        assert (await world.guest.next()).files[0].content == b'app="x"'
        world.track(make(source, labels={"app": "y"}))
        assert (await world.guest.next()).files[0].content == b'app="y"'


async def test_a_push_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "RETRY_SECONDS", 0.01)
    async with World() as world:
        world.guest.failures = [ConnectionResetError(), UnavailableError("no guest")]
        world.objects.failure = UnavailableError("no API server")
        world.track(make({"configMap": {"name": "m"}}))
        await asyncio.sleep(0.03)
        world.objects.failure = None
        assert len((await world.guest.next()).files) == 2


async def test_a_deleted_object_leaves_its_last_content_and_a_forgotten_pod_is_left_alone() -> None:
    async with World() as world:
        world.track(make({"configMap": {"name": "m"}}))
        await world.guest.next()
        del world.objects.maps["m"]
        world.refresher.changed(MAP)
        await asyncio.sleep(0.02)
        world.refresher.forget("u")
        world.objects.maps["m"] = {"c": "3"}
        world.refresher.changed(MAP)
        await asyncio.sleep(0.02)
        assert len(world.guest.written) == 1
        assert world.watched == set()


async def test_a_new_guest_gets_everything_again() -> None:
    async with World() as world:
        made = make({"configMap": {"name": "m"}})
        world.track(made)
        await world.guest.next()
        world.guest = FakeGuest()
        world.track(made)
        assert (await world.guest.next()).volume == "v0"


async def test_a_token_is_renewed_when_it_is_due_and_not_before() -> None:
    async with World() as world:
        made = make(TOKEN, {"configMap": {"name": "m"}})
        world.track(made)
        await world.guest.next()
        world.objects.number = 2
        await asyncio.sleep(0.05)
        assert len(world.guest.written) == 2, "the volumes as they were at first, each once"
        world.guest.changed.clear()
        world.objects.due = True
        call = await world.guest.next()
        assert (call.volume, call.files[0].content) == ("v0", b"//3607/2")

"""Volumes that are files from the API (configMap, secret, projected with tokens, downwardAPI), and their refresh."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from cuboid.guest import agent_pb2 as pb
from cuboid.guest.base import Guest
from cuboid.kube.types import (
    DownwardAPIVolumeFile,
    KeyToPath,
    Pod,
    ServiceAccountTokenProjection,
    Volume,
    VolumeProjection,
)
from cuboid.lib.aio import TaskSet, gather_all, within
from cuboid.lib.errors import CuboidError, ExhaustedError, ForbiddenError, InvalidError, NotFoundError, UnsupportedError
from cuboid.lib.log import get_log
from cuboid.node.downward import field_value, resource_value
from cuboid.node.objects import (
    ObjectKey,
    ObjectReader,
    PodFacts,
    VolumeReader,
    config_map_data,
    secret_data,
    volume_objects,
    volume_tokens,
)

__all__ = ["PodFacts", "VolumeError", "VolumeRefresher", "is_files_volume", "volume_files"]

log = get_log(__name__)
DEFAULT_MODE = 0o644
FILES_LIMIT = 4 << 20  # bytes of one volume: an object has 1 MiB at most, a projection may show several
RETRY_SECONDS = 2.0
PUSH_SECONDS = 5.0
LOOK_SECONDS = 30.0  # between two looks for tokens that are to be renewed


class VolumeError(InvalidError):
    """A volume cannot be filled now; what is missing may come, so the start is tried again."""

    reason = "FailedMount"


def is_files_volume(volume: Volume) -> bool:
    return bool(volume.config_map or volume.secret or volume.projected or volume.downward_api)


async def volume_files(pod: Pod, volume: Volume, objects: VolumeReader, facts: PodFacts) -> list[pb.File]:
    """The files of a volume, sorted by path. VolumeError names what is missing, UnsupportedError what cannot be had."""
    files: dict[str, pb.File] = {}
    for part in await _parts(pod, volume, objects, facts):
        files[part.path] = part
    if sum(len(file.content) for file in files.values()) > FILES_LIMIT:
        raise ExhaustedError(f"volume {volume.name!r} holds more than {FILES_LIMIT >> 20} MiB of files")
    return [files[path] for path in sorted(files)]


async def _parts(pod: Pod, volume: Volume, objects: VolumeReader, facts: PodFacts) -> list[pb.File]:
    if source := volume.config_map:
        return await _object_files(
            "configmap", pod, source.name, source.items, source.optional, source.default_mode, objects
        )
    if secret := volume.secret:
        return await _object_files(
            "secret", pod, secret.secret_name, secret.items, secret.optional, secret.default_mode, objects
        )
    if volume.downward_api:
        return _downward_files(pod, volume.downward_api.items, volume.downward_api.default_mode, facts)
    if volume.projected is None:
        raise InvalidError(f"volume {volume.name!r} does not consist of files from the API")
    mode = volume.projected.default_mode
    found = await gather_all(*(_projection_files(pod, s, mode, objects, facts) for s in volume.projected.sources))
    return [file for part in found for file in part]


async def _projection_files(
    pod: Pod, source: VolumeProjection, mode: int | None, objects: VolumeReader, facts: PodFacts
) -> list[pb.File]:
    if wanted := source.service_account_token:
        content = (await _token(pod, wanted, objects)).encode()
        return [_file(wanted.path, content, DEFAULT_MODE if mode is None else mode)]
    if source.downward_api:
        return _downward_files(pod, source.downward_api.items, mode, facts)
    chosen = source.config_map or source.secret
    if chosen is None:
        return []
    kind = "configmap" if source.config_map else "secret"
    return await _object_files(kind, pod, chosen.name, chosen.items, chosen.optional, mode, objects)


async def _token(pod: Pod, wanted: ServiceAccountTokenProjection, objects: VolumeReader) -> str:
    try:
        return await objects.token(pod, wanted)
    except (NotFoundError, ForbiddenError) as error:  # the account may come; the pod may not be known as ours yet
        account = pod.spec.service_account_name or "default"
        raise VolumeError(f"no token for the service account {account!r}: {error}") from error


async def _object_files(
    kind: str, pod: Pod, name: str, items: list[KeyToPath], optional: bool, mode: int | None, objects: ObjectReader
) -> list[pb.File]:
    read = config_map_data if kind == "configmap" else secret_data
    data = await read(objects, pod.metadata.namespace, name)
    if data is None and not optional:
        raise VolumeError(f'{kind} "{name}" not found')
    data = data or {}
    default = DEFAULT_MODE if mode is None else mode
    if not items:
        return [_file(key, content, default) for key, content in data.items()]
    missing = [item.key for item in items if item.key not in data]
    if missing and not optional:
        raise VolumeError(f'{kind} "{name}" references non-existent config key: {missing[0]}')
    return [_file(i.path, data[i.key], default if i.mode is None else i.mode) for i in items if i.key in data]


def _downward_files(pod: Pod, items: list[DownwardAPIVolumeFile], mode: int | None, facts: PodFacts) -> list[pb.File]:
    default = DEFAULT_MODE if mode is None else mode
    return [_file(i.path, _downward(pod, i, facts).encode(), default if i.mode is None else i.mode) for i in items]


def _downward(pod: Pod, item: DownwardAPIVolumeFile, facts: PodFacts) -> str:
    if item.field_ref:
        return field_value(pod, item.field_ref, facts)
    if item.resource_field_ref and pod.spec.containers:
        return resource_value(pod, pod.spec.containers[0], item.resource_field_ref, facts)
    raise InvalidError(f"downward API file {item.path!r} names neither a field nor a resource")


def _file(path: str, content: bytes, mode: int) -> pb.File:
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or not path or "\0" in path or len(path) > 4096:
        raise InvalidError(f"{path!r} is not a relative path inside a volume", hint="no leading '/', no '..'")
    return pb.File(path="/".join(p for p in parts if p not in ("", ".")), content=content, mode=mode & 0o777)


# --- refresh ---------------------------------------------------------------------------------------------------------


@dataclass
class _Tracked:
    pod: Pod
    guest: Guest
    facts: PodFacts
    sent: dict[str, bytes] = field(default_factory=dict)  # volume → digest of what the guest has

    def volumes(self, key: ObjectKey | None) -> Iterable[Volume]:
        for volume in self.pod.spec.volumes:
            if is_files_volume(volume) and (key is None or key in volume_objects(self.pod, volume)):
                yield volume


class VolumeRefresher:
    """Pushes a volume's files into the guests of running pods when the objects behind them change.

    The daemon calls `track` when a pod's guest is set up and again when the pod object changes, `forget` at its end;
    whoever watches the objects calls `changed`. `watched` is told which objects matter from now on.
    """

    def __init__(
        self,
        objects: VolumeReader,
        *,
        watched: Callable[[set[ObjectKey]], None] | None = None,
        look: float = LOOK_SECONDS,
    ) -> None:
        self._look_seconds = look
        self._objects = objects
        self._watched = watched
        self._pods: dict[str, _Tracked] = {}
        self._due: dict[tuple[str, str], None] = {}  # (pod uid, volume), in order, each once
        self._wake = asyncio.Event()

    def track(self, pod: Pod, guest: Guest, facts: PodFacts, files: dict[str, list[pb.File]] | None = None) -> None:
        """`files`: what `Setup` has given to the guest, by volume name; without it all volumes are pushed once."""
        before = self._pods.get(pod.metadata.uid)
        sent = before.sent if before and before.guest is guest else {}
        sent = sent | {name: _digest(given) for name, given in (files or {}).items()}
        self._pods[pod.metadata.uid] = tracked = _Tracked(pod, guest, facts, sent)
        self._schedule(tracked, None)
        self._tell()

    def forget(self, uid: str) -> None:
        if self._pods.pop(uid, None):
            self._tell()

    def changed(self, key: ObjectKey) -> None:
        """An object was created, changed or deleted."""
        for tracked in self._pods.values():
            self._schedule(tracked, key)

    def keys(self) -> set[ObjectKey]:
        """The objects that volumes of tracked pods show."""
        return {key for t in self._pods.values() for volume in t.volumes(None) for key in volume_objects(t.pod, volume)}

    def _schedule(
        self, tracked: _Tracked, key: ObjectKey | None, wanted: Callable[[Pod, Volume], bool] = lambda _, __: True
    ) -> None:
        for volume in tracked.volumes(key):
            if wanted(tracked.pod, volume):
                self._due[tracked.pod.metadata.uid, volume.name] = None
        if self._due:
            self._wake.set()

    def _tell(self) -> None:
        if self._watched:
            self._watched(self.keys())

    async def run(self) -> None:
        """Push what is due, for ever. A push that fails is tried again after a pause."""
        async with TaskSet("volumes") as tasks:
            tasks.start(self._look(), name="tokens")
            await self._push_all()

    async def _look(self) -> None:
        """Tokens come due by time alone."""
        while True:
            await asyncio.sleep(self._look_seconds)
            for tracked in self._pods.values():
                self._schedule(tracked, None, self._token_due)

    def _token_due(self, pod: Pod, volume: Volume) -> bool:
        return any(self._objects.token_due(pod, wanted) for wanted in volume_tokens(volume))

    async def _push_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                uid, name = next(iter(self._due))
                del self._due[uid, name]
                if uid in self._pods and not await self._push(self._pods[uid], name):
                    asyncio.get_running_loop().call_later(RETRY_SECONDS, self._again, uid, name)

    def _again(self, uid: str, name: str) -> None:
        if uid in self._pods:
            self._due[uid, name] = None
            self._wake.set()

    async def _push(self, tracked: _Tracked, name: str) -> bool:
        """Whether the guest now has the volume's content, or nothing can be done until the object changes again."""
        volume = next((v for v in tracked.pod.spec.volumes if v.name == name), None)
        if volume is None:
            return True
        try:
            files = await volume_files(tracked.pod, volume, self._objects, tracked.facts)
        except (InvalidError, UnsupportedError, ExhaustedError) as error:
            # A deleted object leaves the last content in place, as with a kubelet.
            log.warning("volume not refreshed", pod=tracked.pod.metadata.name, volume=name, error=str(error))
            return True
        except CuboidError as error:
            log.info("volume refresh is tried again", pod=tracked.pod.metadata.name, volume=name, error=str(error))
            return False
        return await self._send(tracked, name, files)

    async def _send(self, tracked: _Tracked, name: str, files: list[pb.File]) -> bool:
        digest = _digest(files)
        if tracked.sent.get(name) == digest:
            return True
        try:
            call = pb.WriteVolume(volume=name, files=files)
            await within(PUSH_SECONDS, tracked.guest.write_volume(call), "writing a volume in the guest")
        except (CuboidError, ConnectionError) as error:
            log.info("volume refresh is tried again", pod=tracked.pod.metadata.name, volume=name, error=str(error))
            return False
        tracked.sent[name] = digest
        return True


def _digest(files: list[pb.File]) -> bytes:
    return hashlib.sha256(pb.WriteVolume(files=files).SerializeToString(deterministic=True)).digest()

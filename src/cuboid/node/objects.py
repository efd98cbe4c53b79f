"""The ConfigMaps and Secrets that this node's pods refer to: read when needed, watched while a volume shows them."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from cuboid.kube.types import ConfigMap, Pod, Secret, ServiceAccountTokenProjection, Volume
from cuboid.lib.errors import InvalidError

Kind = Literal["ConfigMap", "Secret"]


class ObjectKey(NamedTuple):
    kind: Kind
    namespace: str
    name: str


class ObjectReader(Protocol):
    """Each call answers with the object as it is now, or None if there is none."""

    async def config_map(self, namespace: str, name: str) -> ConfigMap | None: ...

    async def secret(self, namespace: str, name: str) -> Secret | None: ...


class VolumeReader(ObjectReader, Protocol):
    """Also gives the tokens of service accounts: see `cuboid.node.tokens.AccountTokens`."""

    async def token(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> str: ...

    def token_due(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> bool: ...


@dataclass(frozen=True)
class PodFacts:
    """What the downward API tells of a pod beyond the object itself."""

    node_name: str = ""
    host_ip: str = ""
    pod_ips: tuple[str, ...] = ()  # the first is the pod's address
    hostname: str = ""
    cpu_millis: int = 1000  # of the VM: what a container without a limit can use
    memory_bytes: int = 0
    ephemeral_bytes: int = 0


async def config_map_data(objects: ObjectReader, namespace: str, name: str) -> dict[str, bytes] | None:
    """Keys and contents of a ConfigMap, None if it does not exist."""
    found = await objects.config_map(namespace, name)
    if found is None:
        return None
    data = {key: text.encode() for key, text in found.data.items()}
    return data | _decoded(found.binary_data, f"configmap {namespace}/{name}")


async def secret_data(objects: ObjectReader, namespace: str, name: str) -> dict[str, bytes] | None:
    found = await objects.secret(namespace, name)
    return None if found is None else _decoded(found.data, f"secret {namespace}/{name}")


def _decoded(data: dict[str, str], what: str) -> dict[str, bytes]:
    try:
        return {key: base64.b64decode(text, validate=True) for key, text in data.items()}
    except (binascii.Error, ValueError) as error:
        raise InvalidError(f"{what} holds a value that is not base64") from error


def volume_tokens(volume: Volume) -> list[ServiceAccountTokenProjection]:
    """The tokens that a volume shows."""
    sources = volume.projected.sources if volume.projected else []
    return [source.service_account_token for source in sources if source.service_account_token]


def volume_objects(pod: Pod, volume: Volume) -> set[ObjectKey]:
    """The objects whose content a volume shows."""
    namespace = pod.metadata.namespace
    keys: set[ObjectKey] = set()
    if volume.config_map:
        keys.add(ObjectKey("ConfigMap", namespace, volume.config_map.name))
    if volume.secret:
        keys.add(ObjectKey("Secret", namespace, volume.secret.secret_name))
    for source in volume.projected.sources if volume.projected else []:
        if source.config_map:
            keys.add(ObjectKey("ConfigMap", namespace, source.config_map.name))
        if source.secret:
            keys.add(ObjectKey("Secret", namespace, source.secret.name))
    return keys

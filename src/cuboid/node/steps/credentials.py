"""imagePullSecrets: which of a pod's registry credentials an image is pulled with."""

from __future__ import annotations

import base64
import json
from typing import Any

from cuboid.images.base import Credentials
from cuboid.kube.types import Pod, Secret
from cuboid.lib.log import get_log
from cuboid.node.objects import ObjectReader

log = get_log(__name__)
HUB = "docker.io"
HUB_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")
SECRET_LIMIT = 1 << 20  # bytes, the API's own limit of an object


async def credentials_for(pod: Pod, image: str, objects: ObjectReader) -> Credentials | None:
    """The entry whose registry and path fit the image best, or None. Secrets that are missing count as empty."""
    best: tuple[int, Credentials] | None = None
    for reference in pod.spec.image_pull_secrets:
        secret = await objects.secret(pod.metadata.namespace, reference.name)
        for key, entry in auths(secret).items() if secret else ():
            fit = match(key, image)
            if fit and (best is None or fit > best[0]) and (found := decode(entry)):
                best = (fit, found)
    return best[1] if best else None


def auths(secret: Secret) -> dict[str, Any]:
    """The entries of a `kubernetes.io/dockerconfigjson` or `dockercfg` secret; none if it is not well-formed."""
    for key, inner in ((".dockerconfigjson", "auths"), (".dockercfg", "")):
        if key not in secret.data or len(secret.data[key]) > SECRET_LIMIT:
            continue
        try:
            content = json.loads(base64.b64decode(secret.data[key], validate=True))
        except (ValueError, RecursionError):
            log.warning("pull secret is not valid JSON", secret=secret.metadata.name)
            continue
        found = content.get(inner) if inner and isinstance(content, dict) else content
        if isinstance(found, dict):
            return found
    return {}


def match(key: str, image: str) -> int:
    """How well an entry's key (`https://host/v1/`, `host`, `host/path`) fits an image; 0: not at all."""
    place = key.partition("://")[2] or key
    host, _, path = place.partition("/")
    path = "" if path.strip("/") in ("", "v1", "v2") else path.strip("/")
    registry, _, rest = _split(image)
    if host != registry and not (registry == HUB and host in HUB_HOSTS):
        return 0
    if path and not (rest == path or rest.startswith(f"{path}/")):
        return 0
    return 1 + len(path)


def _split(image: str) -> tuple[str, str, str]:
    """Registry, "/", repository (with its tag)."""
    first, slash, rest = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, slash, rest
    return HUB, "/", image


def decode(entry: Any) -> Credentials | None:
    """`auth` (base64 of USER:PASSWORD) wins over `username` and `password`."""
    if not isinstance(entry, dict):
        return None
    user, password = str(entry.get("username", "")), str(entry.get("password", ""))
    if isinstance(entry.get("auth"), str) and entry["auth"]:
        try:
            user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except ValueError:  # not base64, not ASCII, not UTF-8
            return None
    token = str(entry.get("identitytoken", ""))
    return Credentials(user, password.strip("\0"), token) if user or token else None

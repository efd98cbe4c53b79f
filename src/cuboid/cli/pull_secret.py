"""Credentials of the caller's Docker configuration as a pull secret, so that private images just run."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from cuboid.cli.api import Api
from cuboid.lib.errors import AlreadyExistsError, ConflictError


def registry_of(image: str) -> str:
    """The registry host of a reference: Docker Hub's configuration key where the image names none."""
    first, slash, _ = image.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    return first if named else "https://index.docker.io/v1/"


def ensure(api: Api, namespace: str, image: str) -> str:
    """Name of a secret with the caller's credentials for the image's registry; "" where the caller has none."""
    entry = _entry(registry_of(image))
    if entry is None:
        return ""
    import hashlib  # loads OpenSSL

    content = json.dumps({"auths": {registry_of(image): entry}}, sort_keys=True).encode()
    name = f"pull-{hashlib.sha256(content).hexdigest()[:12]}"
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": name, "namespace": namespace},
        "data": {".dockerconfigjson": base64.b64encode(content).decode()},
    }
    try:
        api.post(f"/api/v1/namespaces/{namespace}/secrets", secret)
    except (AlreadyExistsError, ConflictError):
        return name
    return name


def _entry(registry: str) -> dict[str, Any] | None:
    try:
        content = json.loads((Path.home() / ".docker/config.json").read_text())
        entry = content.get("auths", {}).get(registry)
    except (OSError, ValueError, AttributeError):
        return None
    return entry if isinstance(entry, dict) and (entry.get("auth") or entry.get("identitytoken")) else None


def credentials(image: str) -> dict[str, str] | None:
    """The caller's credentials for the image's registry in plain fields, for a pull that the caller asks for itself."""
    entry = _entry(registry_of(image))
    if entry is None:
        return None
    if entry.get("identitytoken"):
        return {"identityToken": str(entry["identitytoken"])}
    username, _, password = base64.b64decode(entry["auth"]).decode(errors="replace").partition(":")
    return {"username": username, "password": password}

"""kubeconfig files: one of our own, and a context `cuboid` in the user's, leaving all else as it was."""

from __future__ import annotations

import base64
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cuboid.lib.errors import InvalidError
from cuboid.lib.paths import write_atomic

CONTEXT = "cuboid"
_LISTS = ("clusters", "users", "contexts")


@dataclass(frozen=True)
class Access:
    """What a client needs to reach a server. `ca` is PEM; `namespace` "" is the default one."""

    server: str
    ca: bytes
    token: str
    namespace: str = ""


def render(access: Access, context: str = CONTEXT) -> str:
    """A complete kubeconfig."""
    return _dump(_merged({}, access, context, current=True))


def merge_into(path: Path, access: Access, context: str = CONTEXT) -> bool:
    """Add or renew one context; it becomes the current one only where there was none. Returns whether it is current.

    InvalidError, and an untouched file, when the file is no kubeconfig. Comments in it are lost.
    """
    with _locked(path):
        config = _read(path)
        current = config.get("current-context") or ""
        _write(path, _merged(config, access, context, current=not current))
        return current in ("", context)


def remove_from(path: Path, context: str = CONTEXT) -> bool:
    """Take the context out again. Returns whether it was there."""
    if not path.exists():
        return False
    with _locked(path):
        config = _read(path)
        changed = False
        for key in _LISTS:
            rest = [row for row in _rows(config, key) if row.get("name") != context]
            changed = changed or len(rest) != len(_rows(config, key))
            config[key] = rest
        if config.get("current-context") == context:
            config["current-context"] = ""
        if changed:
            _write(path, config)
        return changed


def _merged(config: dict[str, Any], access: Access, context: str, *, current: bool) -> dict[str, Any]:
    merged = {"apiVersion": "v1", "kind": "Config", **config}
    place = {"namespace": access.namespace} if access.namespace else {}
    rows: dict[str, dict[str, Any]] = {
        "clusters": {
            "cluster": {"server": access.server, "certificate-authority-data": base64.b64encode(access.ca).decode()}
        },
        "users": {"user": {"token": access.token}},
        "contexts": {"context": {"cluster": context, "user": context, **place}},
    }
    for key in _LISTS:
        others = [row for row in _rows(config, key) if row.get("name") != context]
        merged[key] = [*others, {"name": context, **rows[key]}]
    merged.setdefault("preferences", {})
    if current:
        merged["current-context"] = context
    return merged


def _rows(config: dict[str, Any], key: str) -> list[dict[str, Any]]:
    rows = config.get(key) or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InvalidError(f"{key!r} of the kubeconfig must be a list of objects")
    return rows


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidError(f"{path} is not valid YAML", hint="nothing was changed; repair or move it") from error
    if config is None:
        return {}
    if not isinstance(config, dict) or config.get("kind", "Config") != "Config":
        raise InvalidError(f"{path} is not a kubeconfig", hint="nothing was changed; repair or move it")
    return config


def _dump(config: dict[str, Any]) -> str:
    return yaml.safe_dump(config, sort_keys=False, default_flow_style=False)


def _write(path: Path, config: dict[str, Any]) -> None:
    """Through a symbolic link, to where the user keeps the file; owned by whom it was."""
    target = path.resolve()
    owner = target.stat() if target.exists() else target.parent.stat()
    write_atomic(target, _dump(config).encode(), mode=0o600)
    if os.geteuid() == 0:
        os.chown(target, owner.st_uid, owner.st_gid)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One writer at a time among ours."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

"""A client from a kubeconfig file, for what runs beside a cluster: the current context, a token or a certificate."""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cuboid.kube.client import KubeClient
from cuboid.lib.errors import InvalidError, NotFoundError

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Access:
    """What the current context of a file says. Certificates are PEM; relative file names count from the file."""

    server: str
    authority: str
    token: str
    certificate: str
    key: str
    skip_verify: bool

    def __repr__(self) -> str:
        """Without secrets."""
        return f"Access({self.server!r})"


def load(path: Path) -> Access:
    """NotFoundError, InvalidError (what is missing, or needs a program that is not run from here)."""
    try:
        content = yaml.safe_load(path.read_text())
        context = _named(content, "contexts", "context", content["current-context"])
        cluster = _named(content, "clusters", "cluster", context["cluster"])
        user = _named(content, "users", "user", context["user"])
        if "exec" in user or "auth-provider" in user:
            raise InvalidError(
                f"the user {context['user']!r} in {path} gets its credentials from a program, which is not run here",
                hint="put a token of a ServiceAccount into a kubeconfig of its own",
            )
        return Access(
            server=str(cluster["server"]),
            authority=_material(cluster, "certificate-authority", path),
            token=str(user.get("token", "")) or _text(user.get("tokenFile"), path).strip(),
            certificate=_material(user, "client-certificate", path),
            key=_material(user, "client-key", path),
            skip_verify=bool(cluster.get("insecure-skip-tls-verify")),
        )
    except FileNotFoundError as error:
        raise NotFoundError(f"{error.filename or path} does not exist") from error
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InvalidError(f"{path} is not a usable kubeconfig: {error!r}") from error


def _named(content: Raw, rows: str, key: str, name: str) -> Raw:
    for row in content[rows]:
        if row["name"] == name:
            found: Raw = row[key]
            return found
    raise KeyError(f"{key} {name}")


def _material(row: Raw, key: str, path: Path) -> str:
    if data := row.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    return _text(row.get(key), path)


def _text(name: str | None, path: Path) -> str:
    return (path.parent / name).read_text() if name else ""


def client(access: Access) -> KubeClient:
    """InvalidError if authority, certificate or key are none."""
    try:
        context = ssl.create_default_context(cadata=access.authority or None)
        if access.certificate:
            with _private(access.certificate) as certificate, _private(access.key) as key:
                context.load_cert_chain(certificate, key)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidError(f"the kubeconfig's authority, certificate or key can not be used: {error}") from error
    if access.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return KubeClient(access.server, access.token, context=context)


@contextmanager
def _private(text: str) -> Iterator[str]:
    """A file that only we can read, for as long as OpenSSL reads it: it takes no keys from memory."""
    handle, name = tempfile.mkstemp()
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        yield name
    finally:
        Path(name).unlink()

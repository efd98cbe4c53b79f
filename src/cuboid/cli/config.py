"""Where the API is and who is calling. First found wins:

1. CUBOID_SERVER, CUBOID_TOKEN, CUBOID_CA (a file)
2. `<state>/client.json`, which `cuboid up` writes on the machine that runs the platform
3. the context `cuboid` of the user's kubeconfig
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import NamedTuple

from cuboid.lib.errors import InvalidError, UnavailableError
from cuboid.lib.paths import Paths

CONTEXT = "cuboid"


class Connection(NamedTuple):
    server: str  # https://127.0.0.1:6443
    token: str
    ca: str  # PEM
    namespace: str = "default"
    socket: str = ""  # path of a Unix socket of the same server: no TLS is needed then

    def __repr__(self) -> str:
        """Without the token."""
        return f"Connection({self.server!r}, namespace={self.namespace!r})"


def client_file(paths: Paths) -> Path:
    return paths.state / "client.json"


def find() -> Connection:
    """The connection to use; UnavailableError that says how to get one."""
    if server := os.environ.get("CUBOID_SERVER"):
        ca_file = os.environ.get("CUBOID_CA", "")
        return Connection(server, os.environ.get("CUBOID_TOKEN", ""), Path(ca_file).read_text() if ca_file else "")
    if found := _from_client_file(client_file(Paths.default())) or _from_kubeconfig(kubeconfig_path()):
        return found
    raise UnavailableError("no platform is set up for this user", hint="start one here with: cuboid up")


def kubeconfig_path() -> Path:
    """The first file of $KUBECONFIG, else ~/.kube/config."""
    named = os.environ.get("KUBECONFIG", "").split(":")[0]
    return Path(named) if named else Path.home() / ".kube/config"


def _from_client_file(path: Path) -> Connection | None:
    try:
        row = json.loads(path.read_text())
        token, authority = (Path(row[name]).read_text() for name in ("token_file", "ca_file"))
        return Connection(row["server"], token.strip(), authority, socket=row.get("socket", ""))
    except (FileNotFoundError, PermissionError):
        return None
    except (ValueError, KeyError) as error:
        raise InvalidError(f"{path} is damaged: {error!r}", hint="cuboid up writes it anew") from error


def _from_kubeconfig(path: Path) -> Connection | None:
    try:
        text = path.read_text()
    except (FileNotFoundError, PermissionError):
        return None
    if f"name: {CONTEXT}" not in text:
        return None
    import yaml

    try:
        content = yaml.safe_load(text)
        context = next(row["context"] for row in content["contexts"] if row["name"] == CONTEXT)
        cluster = next(row["cluster"] for row in content["clusters"] if row["name"] == context["cluster"])
        user = next(row["user"] for row in content["users"] if row["name"] == context["user"])
        ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
        return Connection(cluster["server"], user["token"], ca, context.get("namespace", "default"))
    except (yaml.YAMLError, StopIteration, KeyError, TypeError, ValueError) as error:
        raise InvalidError(f"context {CONTEXT!r} in {path} is not usable: {error!r}") from error

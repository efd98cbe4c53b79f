"""The tokens of this machine, hashed at rest: the administrator's, and that of the node agent."""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path

from cuboid.kube.identity import User
from cuboid.lib.errors import InvalidError, UnauthorizedError
from cuboid.lib.paths import write_atomic
from cuboid.server.authn.credential import Credential

ADMIN_FILE = "admin.token"
NODE_FILE = "node.token"
_TABLE = "tokens.json"


ADMIN = User("cuboid-admin", ("system:masters", "system:authenticated"))


class Tokens:
    """The token table of a server. Random tokens of 32 bytes need no slow hash: SHA-256 keeps them unreadable."""

    def __init__(self, rows: dict[str, User]) -> None:
        self._rows = rows  # hex digest -> user

    @classmethod
    def open(cls, folder: Path) -> Tokens:
        """Reads the table; at first start makes the administrator's token, in `admin.token` with mode 0600."""
        table = folder / _TABLE
        if not table.exists():
            token = secrets.token_urlsafe(32)
            row = {"sha256": digest(token), "name": ADMIN.name, "groups": list(ADMIN.groups)}
            write_atomic(folder / ADMIN_FILE, token.encode() + b"\n", mode=0o600)
            write_atomic(table, json.dumps([row]).encode(), mode=0o600)
        try:
            rows = json.loads(table.read_bytes())
            return cls({row["sha256"]: User(row["name"], tuple(row["groups"])) for row in rows})
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidError(
                f"{table} is damaged", hint="remove it to have a new administrator's token made"
            ) from error

    def user(self, authorization: str) -> User:
        """Who an `Authorization` header names; UnauthorizedError without saying why."""
        scheme, _, token = authorization.partition(" ")
        found = self._rows.get(digest(token.strip())) if scheme.lower() == "bearer" else None
        if found is None:
            raise UnauthorizedError("Unauthorized")
        return found

    async def check(self, token: str) -> Credential | None:
        """See `cuboid.server.authn.authenticator`. What the look-up's time tells is about a hash, not about a token."""
        user = self._rows.get(digest(token))
        return None if user is None else Credential(user)


def node_credential(folder: Path, node: str) -> None:
    """Give the node agent of this machine a token of its own, in `node.token`: with it the agent may do what its pods
    need and no more. Before the server starts, which reads the table once. Idempotent."""
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    Tokens.open(folder)
    table, file = folder / _TABLE, folder / NODE_FILE
    rows = json.loads(table.read_bytes())
    name = f"system:node:{node}"
    known = next((row for row in rows if row["name"] == name), None)
    if known is not None and file.exists() and digest(file.read_text().strip()) == known["sha256"]:
        return
    token = secrets.token_urlsafe(32)
    row = {"sha256": digest(token), "name": name, "groups": ["system:nodes", "system:authenticated"]}
    others = [other for other in rows if not other["name"].startswith("system:node:")]
    write_atomic(file, token.encode() + b"\n", mode=0o600)
    write_atomic(table, json.dumps([*others, row]).encode(), mode=0o600)


def read_admin(folder: Path) -> str:
    """The administrator's token of the server whose state is in `folder`."""
    return (folder / ADMIN_FILE).read_text().strip()


def digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()

"""What a write is asked with, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cuboid.kube.identity import SERVER, User

MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


@dataclass(frozen=True)
class WriteOptions:
    """`validation` is Strict, Warn or Ignore: what happens to unknown fields and to those that come twice."""

    dry_run: bool = False
    validation: str = "Warn"
    user: User = SERVER
    manager: str = ""  # of the fields that are written, as clients name themselves
    force: bool = False  # an apply takes fields from other managers
    duplicates: tuple[str, ...] = ()  # fields that came twice in the body


@dataclass(frozen=True)
class DeleteOptions:
    """`grace` in seconds, None for the object's own. Preconditions are empty where there is none.

    `propagation` is Background, Foreground, Orphan or "" for the kind's own: what becomes of what the object owns.
    """

    grace: int | None = None
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False
    propagation: str = ""
    user: User = SERVER


@dataclass(frozen=True)
class Result:
    """What a write answers: the object, and warnings for the client."""

    object: dict[str, Any]
    created: bool = False
    gone: bool = False
    warnings: tuple[str, ...] = ()

"""The one tree of errors. Each class is a meaning; a border (HTTP, gRPC, CLI) maps classes in one table of its own.

An error's text is one sentence for the person who can act on it; `hint` is what to do. Neither holds a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any


class CuboidError(Exception):
    """Base of all errors that Cuboid raises on purpose.

    `reason` is a CamelCase word in Kubernetes' manner (`ErrImagePull`), stable for programs; the message is for people.
    """

    reason = "InternalError"
    details: Mapping[str, Any] = MappingProxyType({})
    """More for programs, JSON-able: `details` of a Kubernetes Status."""

    def __init__(self, message: str, *, hint: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if reason:
            self.reason = reason

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class InvalidError(CuboidError):
    """The caller's input is wrong: HTTP 400 or 422, exit code 2."""

    reason = "Invalid"


class NotFoundError(CuboidError):
    """What was named does not exist: HTTP 404."""

    reason = "NotFound"


class AlreadyExistsError(CuboidError):
    """The name is taken: HTTP 409."""

    reason = "AlreadyExists"


class ConflictError(CuboidError):
    """Somebody else changed it first, or its state forbids this: HTTP 409."""

    reason = "Conflict"


class UnauthorizedError(CuboidError):
    """Who is calling is not known: HTTP 401."""

    reason = "Unauthorized"


class ForbiddenError(CuboidError):
    """The caller is known and may not: HTTP 403."""

    reason = "Forbidden"


class GoneError(CuboidError):
    """A version or continuation is too old, list again: HTTP 410."""

    reason = "Expired"


class UnavailableError(CuboidError):
    """Something needed does not answer now; trying later may help: HTTP 503."""

    reason = "ServiceUnavailable"


class DeadlineError(CuboidError):
    """It took longer than allowed: HTTP 504."""

    reason = "Timeout"


class ExhaustedError(CuboidError):
    """A limit is reached (disk, memory, addresses, quota): HTTP 507 or 429."""

    reason = "ResourceExhausted"


class UnsupportedError(CuboidError):
    """This host, driver or version cannot do it: HTTP 501."""

    reason = "Unsupported"


class HostileError(CuboidError):
    """Data from a guest, registry, tenant or network broke a rule; the sender is cut off."""

    reason = "HostileInput"


class ProcessError(CuboidError):
    """A process of ours failed. `command` can be pasted into a shell; `stderr` is its end."""

    reason = "ProcessFailed"

    def __init__(self, message: str, *, command: str, returncode: int | None, stderr: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.command = command
        self.returncode = returncode
        self.stderr = stderr

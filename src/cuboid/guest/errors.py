"""What a guest answers when it cannot, as errors of Cuboid's one tree."""

from __future__ import annotations

from cuboid.guest import agent_pb2 as pb
from cuboid.lib.errors import (
    ConflictError,
    CuboidError,
    ExhaustedError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)

MESSAGE_LIMIT = 2000  # characters of a guest's text that are shown


class GuestLostError(UnavailableError, ConnectionError):
    """The channel to the guest is gone; whether the call was carried out is not known. A new connection is tried."""

    reason = "GuestLost"


class GuestError(CuboidError):
    """The agent refused or failed a call. `code` is a `pb.Error.Code`, `errno` the guest kernel's, or 0."""

    reason = "GuestFailed"

    def __init__(self, message: str, *, code: int = pb.Error.FAILED, errno: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.errno = errno


class GuestInvalidError(GuestError, InvalidError):
    """The call makes no sense to the agent."""

    reason = "Invalid"


class GuestNotFoundError(GuestError, NotFoundError):
    """No such container, volume, user or path in the guest."""

    reason = "NotFound"


class GuestConflictError(GuestError, ConflictError):
    """The container's state forbids the call."""

    reason = "Conflict"


class GuestExhaustedError(GuestError, ExhaustedError):
    """The guest has no disk space or memory left."""

    reason = "ResourceExhausted"


class GuestUnsupportedError(GuestError, UnsupportedError):
    """The agent or the guest's kernel cannot do it."""

    reason = "Unsupported"


class CommandError(GuestError):
    """A command cannot be started: `exit_code` is 127 if it was not found, 126 if it is not executable."""

    reason = "CommandNotStarted"

    @property
    def exit_code(self) -> int:
        return 127 if self.code == pb.Error.COMMAND_NOT_FOUND else 126


_BY_CODE: dict[int, type[GuestError]] = {
    pb.Error.INVALID: GuestInvalidError,
    pb.Error.NOT_FOUND: GuestNotFoundError,
    pb.Error.USER_NOT_FOUND: GuestNotFoundError,
    pb.Error.CONFLICT: GuestConflictError,
    pb.Error.COMMAND_NOT_FOUND: CommandError,
    pb.Error.COMMAND_NOT_EXECUTABLE: CommandError,
    pb.Error.NO_SPACE: GuestExhaustedError,
    pb.Error.NO_MEMORY: GuestExhaustedError,
    pb.Error.UNSUPPORTED: GuestUnsupportedError,
}


def from_pb(error: pb.Error) -> GuestError:
    """The error class for an agent's answer. Its text is the guest's: printable, bounded, not to be trusted."""
    text = "".join(c if c.isprintable() else " " for c in error.message[:MESSAGE_LIMIT])
    kind = _BY_CODE.get(error.code, GuestError)
    return kind(text or "the agent gave no reason", code=error.code, errno=error.errno)

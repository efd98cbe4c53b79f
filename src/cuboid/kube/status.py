"""`metav1.Status` and Cuboid's errors: the one mapping between HTTP's answers and the tree in `cuboid.lib.errors`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from cuboid.kube.fields import FieldError
from cuboid.lib.errors import (
    AlreadyExistsError,
    ConflictError,
    CuboidError,
    DeadlineError,
    ExhaustedError,
    ForbiddenError,
    GoneError,
    HostileError,
    InvalidError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedError,
)

E = TypeVar("E", bound=CuboidError)

_BY_REASON: dict[str, tuple[int, type[CuboidError]]] = {
    "BadRequest": (400, InvalidError),
    "Unauthorized": (401, UnauthorizedError),
    "Forbidden": (403, ForbiddenError),
    "NotFound": (404, NotFoundError),
    "MethodNotAllowed": (405, UnsupportedError),
    "NotAcceptable": (406, InvalidError),
    "AlreadyExists": (409, AlreadyExistsError),
    "Conflict": (409, ConflictError),
    "Expired": (410, GoneError),
    "Gone": (410, GoneError),
    "RequestEntityTooLarge": (413, InvalidError),
    "UnsupportedMediaType": (415, UnsupportedError),
    "Invalid": (422, InvalidError),
    "TooManyRequests": (429, ExhaustedError),
    "InternalError": (500, CuboidError),
    "NotImplemented": (501, UnsupportedError),
    "ServiceUnavailable": (503, UnavailableError),
    "Timeout": (504, DeadlineError),
    "InsufficientStorage": (507, ExhaustedError),
}
_BY_CLASS: tuple[tuple[type[CuboidError], str], ...] = (
    (AlreadyExistsError, "AlreadyExists"),
    (ConflictError, "Conflict"),
    (NotFoundError, "NotFound"),
    (InvalidError, "BadRequest"),
    (HostileError, "BadRequest"),
    (UnauthorizedError, "Unauthorized"),
    (ForbiddenError, "Forbidden"),
    (GoneError, "Expired"),
    (DeadlineError, "Timeout"),
    (ExhaustedError, "TooManyRequests"),
    (UnavailableError, "ServiceUnavailable"),
    (UnsupportedError, "NotImplemented"),
)


def to_status(error: CuboidError) -> tuple[int, dict[str, Any]]:
    """HTTP code and Status object of an error."""
    reason = error.reason
    if reason not in _BY_REASON:
        reason = next((name for kind, name in _BY_CLASS if isinstance(error, kind)), "InternalError")
    code = _BY_REASON[reason][0]
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": str(error),
        "reason": reason,
        "code": code,
    }
    if isinstance(error, ExpiredListError):
        body["metadata"] = {"continue": error.token}
    if error.details:
        body["details"] = dict(error.details)
    return code, body


def from_status(code: int, body: Mapping[str, Any]) -> CuboidError:
    """The error behind a Status, or behind a bare HTTP code when the body is none."""
    reason = str(body.get("reason") or "")
    if reason not in _BY_REASON:
        reason = next((name for name, (number, _) in _BY_REASON.items() if number == code), "InternalError")
    message = str(body.get("message") or f"the server answered {code}")
    details = body.get("details")
    return _with(_BY_REASON[reason][1](message, reason=reason), **(details if isinstance(details, dict) else {}))


def _with(error: E, **details: Any) -> E:
    error.details = {key: value for key, value in details.items() if value not in ("", None, [])}
    return error


def qualified(resource: str, group: str) -> str:
    """How Kubernetes names a resource or kind in messages: `pods`, `leases.coordination.k8s.io`."""
    return f"{resource}.{group}" if group else resource


def not_found(resource: str, group: str, name: str) -> NotFoundError:
    message = f'{qualified(resource, group)} "{name}" not found'
    return _with(NotFoundError(message), name=name, group=group, kind=resource)


def already_exists(resource: str, group: str, name: str) -> AlreadyExistsError:
    message = f'{qualified(resource, group)} "{name}" already exists'
    return _with(AlreadyExistsError(message), name=name, group=group, kind=resource)


def no_name_left(resource: str, group: str, name: str) -> AlreadyExistsError:
    """Of an object with `generateName`, all of whose names were taken."""
    message = (
        f'{qualified(resource, group)} "{name}" already exists, the server was not able to generate a unique name for '
        "the object"
    )
    return _with(AlreadyExistsError(message), name=name, group=group, kind=resource, retryAfterSeconds=1)


def conflict(resource: str, group: str, name: str, why: str) -> ConflictError:
    message = f'Operation cannot be fulfilled on {qualified(resource, group)} "{name}": {why}'
    return _with(ConflictError(message), name=name, group=group, kind=resource)


def apply_conflict(message: str, found: Sequence[tuple[str, str]]) -> ConflictError:
    """Of a server-side apply; `found` are managers, as they are printed, and the fields they have."""
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {manager}", "field": field}
        for manager, field in found
    ]
    return _with(ConflictError(message), causes=causes)


def forbidden(resource: str, group: str, name: str, why: str) -> ForbiddenError:
    message = f'{qualified(resource, group)} "{name}" is forbidden: {why}'
    return _with(ForbiddenError(message), name=name, group=group, kind=resource)


def invalid(kind: str, group: str, name: str, errors: Sequence[FieldError]) -> InvalidError:
    """422 with one cause per field error."""
    texts = list(dict.fromkeys(str(error) for error in errors))
    text = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    causes = [{"reason": error.type, "message": error.text, "field": error.path} for error in errors]
    message = f'{qualified(kind, group)} "{name}" is invalid: {text}'
    return _with(InvalidError(message, reason="Invalid"), name=name, group=group, kind=kind, causes=causes)


def unsupported_propagation(given: object) -> InvalidError:
    """Of options of a deletion, 422."""
    text = f'Unsupported value: "{str(given)[:50]}": supported values: "Background", "Foreground", "Orphan"'
    error = FieldError("FieldValueNotSupported", "propagationPolicy", text)
    return invalid("DeleteOptions", "meta.k8s.io", "", [error])


def bad_request(message: str) -> InvalidError:
    return InvalidError(message, reason="BadRequest")


def method_not_allowed() -> UnsupportedError:
    return UnsupportedError(
        "the server does not allow this method on the requested resource", reason="MethodNotAllowed"
    )


def unsupported_media(message: str) -> UnsupportedError:
    return UnsupportedError(message, reason="UnsupportedMediaType")


def too_large(limit: int) -> InvalidError:
    return InvalidError(f"Request entity too large: limit is {limit}", reason="RequestEntityTooLarge")


class ExpiredListError(GoneError):
    """A list whose pages are forgotten. `token` goes on with what is there now."""

    def __init__(self, token: str) -> None:
        super().__init__(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list "
            "without the continue parameter, or use the continue token in this response to retrieve the remainder of "
            "the results. Continuing with the provided token results in an inconsistent list - objects that were "
            "created, modified, or deleted between the time the first chunk was returned and now may show up in the "
            "list.",
            reason="Expired",
        )
        self.token = token


def too_new(requested: int, current: int) -> DeadlineError:
    """504: a version that this server has not reached."""
    error = DeadlineError(f"Too large resource version: {requested}, current: {current}", reason="Timeout")
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return _with(error, causes=[cause], retryAfterSeconds=1)


def expired(requested: int, oldest: int) -> GoneError:
    return GoneError(f"too old resource version: {requested} ({oldest})", reason="Expired")


def busy(seconds: int) -> ExhaustedError:
    """429 with Retry-After."""
    error = ExhaustedError("too many requests, please try again later", reason="TooManyRequests")
    return _with(error, retryAfterSeconds=seconds)


def success(**details: Any) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

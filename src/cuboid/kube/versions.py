"""What lists and watches may be asked for: `resourceVersion`, `resourceVersionMatch`, `sendInitialEvents`.

Source: k8s.io/apimachinery/pkg/apis/internalversion/validation.
"""

from __future__ import annotations

from cuboid.kube import status
from cuboid.kube.fields import Fields

EXACT, NOT_OLDER = "Exact", "NotOlderThan"
_DIGITS = 18


def parse(version: str) -> int:
    """0 for none. bad_request for what is no version."""
    if not version:
        return 0
    if not (version.isascii() and version.isdigit()) or len(version) > _DIGITS:
        raise status.bad_request(f'Invalid value: "{version[:50]}": resourceVersion must be a number')
    return int(version)


def check_list(version: str, match: str, token: str, initial: bool) -> None:
    """InvalidError (422) for options that do not go together."""
    fields = Fields()
    if match:
        _check_match(version, match, fields)
        if token:
            fields.forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
    if initial:
        fields.forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")
    _raise(fields)
    if token and version not in ("", "0"):
        raise status.bad_request("specifying resource version is not allowed when using continue")


def check_watch(match: str, token: str, initial: bool | None) -> None:
    """`initial` is None where the client does not say."""
    fields = Fields()
    if initial is not None and match != NOT_OLDER:
        detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        fields.forbidden("resourceVersionMatch", detail)
    elif initial is None and match:
        detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        fields.forbidden("resourceVersionMatch", detail)
    if token:
        fields.forbidden("continue", "continue is forbidden for watch")
    _raise(fields)


def _check_match(version: str, match: str, fields: Fields) -> None:
    if not version:
        detail = "resourceVersionMatch is forbidden unless resourceVersion is provided"
        fields.forbidden("resourceVersionMatch", detail)
    elif match == EXACT and version == "0":
        detail = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        fields.forbidden("resourceVersionMatch", detail)
    if match not in (EXACT, NOT_OLDER):
        fields.unsupported("resourceVersionMatch", match[:50], (EXACT, NOT_OLDER, ""))


def _raise(fields: Fields) -> None:
    if fields.errors:
        raise status.invalid("ListOptions", "meta.k8s.io", "", fields.errors)

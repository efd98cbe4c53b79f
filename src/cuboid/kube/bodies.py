"""What clients send, brought into the structure of its kind, and put into its place."""

from __future__ import annotations

from typing import Any

from cuboid.kube import schema, status, unsupported_fields
from cuboid.kube.kind import Kind
from cuboid.kube.options import JSON, WriteOptions
from cuboid.lib.errors import InvalidError

Object = dict[str, Any]


def decode(kind: Kind, body: Any, options: WriteOptions) -> tuple[Object, tuple[str, ...]]:
    """Structure only: types, unknown fields and such that come twice, apiVersion and kind. Object and warnings, which
    also tell of fields without effect."""
    what = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}'
    if not isinstance(body, dict):
        raise status.bad_request(f"{what}: the body is not an object")
    _check_type(kind, body)
    unknown: list[str] = []
    try:
        clean: Object = schema.decode(kind.schema, body, unknown)
    except Exception as error:
        raise _prefixed(error, what) from error
    messages = (
        *(f'duplicate field "{path}"' for path in options.duplicates),
        *(f'unknown field "{path}"' for path in unknown),
    )
    if messages and options.validation == "Strict":
        raise status.bad_request(f"{what}: strict decoding error: {', '.join(messages)}")
    clean.update(apiVersion=kind.api_version, kind=kind.kind)
    clean.setdefault("metadata", {})
    if options.validation == "Ignore":
        return clean, ()
    return clean, (*(messages if options.validation == "Warn" else ()), *unsupported_fields.warnings(kind, clean))


def decode_patched(kind: Kind, old: Object, patched: Any, options: WriteOptions) -> tuple[Object, tuple[str, ...]]:
    """The same for what a patch has made of `old`: parts that it left alone were decoded when they came."""
    if not isinstance(patched, dict):
        return decode(kind, patched, options)
    same = {key: value for key, value in patched.items() if isinstance(value, dict | list) and old.get(key) is value}
    rest = {key: value for key, value in patched.items() if key not in same}
    clean, warnings = decode(kind, rest, options)
    return {**clean, **same}, warnings


def _check_type(kind: Kind, body: Object) -> None:
    version, name = body.get("apiVersion") or kind.api_version, body.get("kind") or kind.kind
    if version != kind.api_version:
        raise status.bad_request(
            f"the API version in the data ({str(version)[:80]}) does not match the expected API version "
            f"({kind.api_version})"
        )
    if name != kind.kind:
        raise status.bad_request(
            f"the kind in the data ({str(name)[:80]}) does not match the expected kind ({kind.kind})"
        )


def _prefixed(error: Exception, what: str) -> Exception:
    if isinstance(error, RecursionError):
        return status.bad_request(f"{what}: the object is nested too deeply")
    if isinstance(error, InvalidError):
        return status.bad_request(f"{what}: {error.message}")
    return error


def place(new: Object, namespace: str) -> None:
    """In the namespace of the URL."""
    found = new["metadata"].get("namespace", "")
    if namespace and found not in ("", namespace):
        raise status.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request "
            f"({found} != {namespace})"
        )
    if namespace:
        new["metadata"]["namespace"] = namespace
    else:
        new["metadata"].pop("namespace", None)


def name(new: Object, wanted: str) -> None:
    """The name of the URL."""
    found = new["metadata"].get("name") or wanted
    if found != wanted:
        raise status.bad_request(f"the name of the object ({found}) does not match the name on the URL ({wanted})")
    new["metadata"]["name"] = wanted


def version_in(body: Any, form: str) -> str:
    """The version that a patch with the shape of the object insists on."""
    if form == JSON or not isinstance(body, dict) or not isinstance(body.get("metadata"), dict):
        return ""
    found = body["metadata"].get("resourceVersion")
    return found if isinstance(found, str) else ""

"""Field ownership of the objects that the registry writes: `managedFields` at birth, at a change, and by an apply."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import msgspec

from cuboid.kube import status
from cuboid.kube.apply import fieldset, managers, typed
from cuboid.kube.apply.fieldset import FieldSet
from cuboid.kube.apply.managers import Applied, Identity, Managers
from cuboid.kube.bodies import Object
from cuboid.kube.fields import FieldError
from cuboid.kube.kind import Kind
from cuboid.kube.options import WriteOptions
from cuboid.kube.validate_meta import MAX_ANNOTATIONS
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import ConflictError, InvalidError

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
KUBECTL = "kubectl"
"""The manager of `kubectl apply --server-side`, which takes over what `kubectl apply` wrote before."""
MAX_MANAGERS = 100
"""Managers of one object. Each costs memory in every copy of the object."""
_STATUS: FieldSet = {"f:status": {}}
_SPEC: FieldSet = {"f:spec": {}}
_NOTHING: FieldSet = {}


def _ignored(kind: Kind, sub: str) -> FieldSet:
    """Fields that a write through this sub-resource can not set, so that nobody owns them by it."""
    if sub == "status":
        return _SPEC
    return _STATUS if kind.strategy.has_status else _NOTHING


P = ParamSpec("P")
R = TypeVar("R")


def _shallow(function: Callable[P, R]) -> Callable[P, R]:
    """Sets of fields are walked in depth; what is nested beyond all measure is the client's mistake."""

    @functools.wraps(function)
    def bounded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except RecursionError as error:
            raise status.bad_request("the object is nested too deeply") from error

    return bounded


@_shallow
def check_lists(kind: Kind, config: Object) -> None:
    """bad_request for lists whose items can not be told apart."""
    try:
        typed.check_lists(kind.schema, config)
    except InvalidError as error:
        place = "/".join(config["metadata"].get(key, "") for key in ("namespace", "name"))
        what = f"{kind.group}/{kind.version}, Kind={kind.kind}"
        raise status.bad_request(f"failed to create typed patch object ({place}; {what}): {error.message}") from error


@_shallow
def at_birth(
    kind: Kind, form: Kind, new: Object, options: WriteOptions, now: str, applied: Object | None = None
) -> Managers:
    """Who owns what of a new object: all is its creator's, or what was applied the applier's.

    For the object as its creator wrote it, with defaults: what admission and the server add is nobody's, so that an
    apply which does not name it does not take it away. `kind` is what the client speaks, also in `applied`; `form` that
    in which the object is stored.
    """
    ignored = _ignored(kind, "")
    if applied is None:
        identity = Identity(options.manager, managers.UPDATE, kind.api_version)
        return managers.born(form.schema, new, identity, ignored, now)
    identity = Identity(options.manager, managers.APPLY, kind.api_version)
    return managers.owner(kind.schema, applied, identity, ignored, now)


def stamp_birth(new: Object, owners: Managers) -> None:
    """Set `managedFields` of a new object."""
    if owners:
        new["metadata"]["managedFields"] = managers.encode(owners)


@_shallow
def stamp_change(
    kind: Kind, form: Kind, old: Object, new: Object, options: WriteOptions, sub: str, known: Managers | None
) -> bool:
    """Set `managedFields` of a changed object. False: nothing changed but times, so nothing is to be written.

    `known` are the managers where an apply has decided on them; `kind` and `form` as at a birth.
    """
    live = managers.stored(old)
    after = known
    if after is None:
        before = managers.given(live, new, sub)
        identity = Identity(options.manager, managers.UPDATE, kind.api_version, sub)
        ignored = _ignored(kind, sub)
        after = managers.updated(before, form.schema, old, new, identity, ignored, rfc3339(time.time()))
    metadata = new["metadata"]
    if managers.same_but_times(after, live):
        subject = old["metadata"].get("managedFields")
        if subject is None:
            metadata.pop("managedFields", None)
        else:
            metadata["managedFields"] = subject
        if new == old:
            return False
    _check_count(kind, new, after, live)
    metadata["managedFields"] = managers.encode(after)
    if not after:
        del metadata["managedFields"]
    return True


def _check_count(kind: Kind, new: Object, after: Managers, live: Managers) -> None:
    if len(after) > max(MAX_MANAGERS, len(live)):
        text = f"Too many: {len(after)}: must have at most {MAX_MANAGERS} items"
        error = FieldError("FieldValueTooMany", "metadata.managedFields", text)
        raise status.invalid(kind.kind, kind.group, new["metadata"]["name"], [error])


def check_applied(body: Any, options: WriteOptions) -> None:
    """What an apply must name."""
    if not options.manager:
        error = FieldError("FieldValueRequired", "fieldManager", "Required value: is required for apply patch")
        raise status.invalid("PatchOptions", "meta.k8s.io", "", [error])
    if not isinstance(body, dict):
        raise status.bad_request("an applied configuration is an object")
    for key in ("apiVersion", "kind"):
        if not isinstance(body.get(key), str) or not body[key]:
            raise status.bad_request(f"invalid object type: an applied configuration must have {key!r}")
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and metadata.get("managedFields"):
        raise status.bad_request("metadata.managedFields must be nil")


@_shallow
def applied(kind: Kind, live: Object, config: Object, options: WriteOptions, sub: str, now: str) -> Applied:
    """The live object with a configuration merged in. ConflictError when others own what it changes."""
    identity = Identity(options.manager, managers.APPLY, kind.api_version, sub)
    owners, ignored = managers.stored(live), _ignored(kind, sub)
    try:
        result = managers.applied(owners, kind.schema, live, config, identity, ignored, now, force=options.force)
    except ConflictError as error:
        if options.manager != KUBECTL or not _ours(kind, live, error):
            raise
        result = managers.applied(owners, kind.schema, live, config, identity, ignored, now, force=True)
    if options.manager == KUBECTL and not sub:
        _renew(live, result.object, config)
    return result


def _last_applied(live: Object) -> str:
    found = live["metadata"].get("annotations", {}).get(LAST_APPLIED, "")
    return found if isinstance(found, str) else ""


def _ours(kind: Kind, live: Object, error: ConflictError) -> bool:
    """Whether every conflict is about a field that a client-side apply wrote, and that still is as it wrote it."""
    try:
        last = msgspec.json.decode(_last_applied(live))
    except (msgspec.DecodeError, RecursionError):
        return False
    if not isinstance(last, dict) or not isinstance(last.get("metadata", {}), dict):
        return False
    last = {**last, "metadata": last.get("metadata", {})}
    changed = typed.compare(kind.schema, last, live)
    fields = typed.fields_of(kind.schema, last)
    for part in changed:
        fields = fieldset.difference(fields, part)
    allowed = {fieldset.text(path) for path in fieldset.paths(fields)}
    return all(cause["field"] in allowed for cause in error.details.get("causes", ()))


def _renew(live: Object, new: Object, config: Object) -> None:
    """Keep the annotation of client-side apply true where there is one, so that one may go back to it."""
    if not _last_applied(live):
        return
    text = msgspec.json.encode(config).decode() + "\n"
    annotations = {**new["metadata"].get("annotations", {}), LAST_APPLIED: text}
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > MAX_ANNOTATIONS:
        del annotations[LAST_APPLIED]
    new["metadata"] = {**new["metadata"], "annotations": annotations}

"""The API's verbs over store and cache: create, get, list, watch, update, patch, delete, for every kind of the table.

No HTTP here: requests come as decoded JSON and options, answers go as objects, errors as `cuboid.lib.errors`.
"""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.kube import patch as patches
from cuboid.kube import schema, status
from cuboid.kube.admission import Chain, Plugin, Request
from cuboid.kube.cache import Cache, Entry, Filter, ResourceCache, stored
from cuboid.kube.fields import Fields
from cuboid.kube.identity import SERVER, User
from cuboid.kube.kinds import Kind, Kinds
from cuboid.kube.pages import Page, Pages
from cuboid.kube.store import Key, MismatchError, Store, Write
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import DeadlineError, InvalidError, NotFoundError

Object = dict[str, Any]
MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_RETRIES = 5
"""Attempts of a patch that others write past."""


@dataclass(frozen=True)
class WriteOptions:
    """`validation` is Strict, Warn or Ignore: what happens to unknown fields."""

    dry_run: bool = False
    validation: str = "Warn"
    user: User = SERVER
    manager: str = ""  # of the fields that are written, as clients name themselves
    force: bool = False  # an apply takes fields from other managers


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

    object: Object
    created: bool = False
    gone: bool = False
    warnings: tuple[str, ...] = ()


class Registry:
    def __init__(self, store: Store, cache: Cache, kinds: Kinds | None = None, admission: Chain | None = None) -> None:
        self.store = store
        self.cache = cache
        self.kinds = kinds or Kinds()
        self.admission = admission or Chain()
        self._pages = Pages()

    # --- reading -----------------------------------------------------------------------------------------------------

    def of(self, kind: Kind) -> ResourceCache:
        return self.cache[kind.stored_as]

    def entry(self, kind: Kind, namespace: str, name: str) -> Entry:
        """NotFoundError if there is none."""
        entry = self.of(kind).get(namespace, name)
        if entry is None:
            raise status.not_found(kind.plural, kind.group, name)
        return entry

    def list(
        self, kind: Kind, wanted: Filter, limit: int = 0, token: str = "", version: str = "", match: str = ""
    ) -> Page:
        """`version` and `match` are `resourceVersion` and `resourceVersionMatch`; a token goes on with its list."""
        if token:
            if version not in ("", "0"):
                raise status.bad_request("specifying resource version is not allowed when using continue")
            return self._pages.following(token, limit)
        self._check_version(version, match)
        return self._pages.first(
            self.of(kind).select(wanted), self.cache.revision, limit, bool(wanted.labels or wanted.fields)
        )

    def _check_version(self, version: str, match: str) -> None:
        number = self.parse_version(version)
        if match and match not in ("Exact", "NotOlderThan"):
            raise status.bad_request(f'resourceVersionMatch: Unsupported value: "{match[:50]}"')
        if match and not version:
            raise status.bad_request("resourceVersionMatch is forbidden unless resourceVersion is provided")
        if number > self.cache.revision:
            raise DeadlineError(f"Too large resource version: {number}, current: {self.cache.revision}")
        if match == "Exact" and number != self.cache.revision:
            raise status.expired(number, self.cache.revision)

    @staticmethod
    def parse_version(version: str) -> int:
        if not version:
            return 0
        if not (version.isascii() and version.isdigit()) or len(version) > 18:
            raise status.bad_request(f'Invalid value: "{version[:50]}": resourceVersion must be a number')
        return int(version)

    # --- writing -----------------------------------------------------------------------------------------------------

    def decode(self, kind: Kind, body: Any, options: WriteOptions) -> tuple[Object, tuple[str, ...]]:
        """Structure only: types, unknown fields, apiVersion and kind."""
        what = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}'
        if not isinstance(body, dict):
            raise status.bad_request(f"{what}: the body is not an object")
        _check_type(kind, body)
        unknown: list[str] = []
        try:
            clean: Object = schema.decode(kind.schema, body, unknown)
        except Exception as error:
            raise _prefixed(error, what) from error
        messages = tuple(f'unknown field "{path}"' for path in unknown)
        if messages and options.validation == "Strict":
            raise status.bad_request(f"{what}: strict decoding error: {', '.join(messages)}")
        clean.update(apiVersion=kind.api_version, kind=kind.kind)
        metadata = clean.setdefault("metadata", {})
        metadata.pop("managedFields", None)
        return clean, messages if options.validation == "Warn" else ()

    async def create(self, kind: Kind, namespace: str, body: Any, options: WriteOptions) -> Result:
        new, warnings = self.decode(kind, body, options)
        new = kind.to_storage(new)
        _place(new, namespace)
        self._check_namespace(kind, namespace, new)
        request = Request("CREATE", kind, namespace, new["metadata"].get("name", ""), new, None, options.user)
        request.dry_run = options.dry_run
        plugins = self._admit(request)
        now = rfc3339(time.time())
        kind.strategy.prepare_create(new, now)
        _born(new, now, kind)
        generated = not body.get("metadata", {}).get("name")
        kind.strategy.default(new)
        kind.strategy.named(new)
        fields = Fields()
        kind.strategy.validate(new, fields)
        self._raise_invalid(kind, new, fields)
        release = self.admission.reserve(plugins, request)
        try:
            stored = await self._create(kind, new, options, generated)
        finally:
            release()
        return Result(kind.from_storage(stored), created=True, warnings=warnings)

    def _admit(self, request: Request) -> tuple[Plugin, ...]:
        """Those that have a say in a write, after they said it."""
        plugins = self.admission.of(request.kind, request.operation, request.sub)
        if plugins and request.new is not None:
            request.kind.strategy.default(request.new)
        for plugin in plugins:
            plugin.admit(request)
        return plugins

    async def _create(self, kind: Kind, new: Object, options: WriteOptions, generated: bool) -> Object:
        for _ in range(_RETRIES):
            key = self._key(kind, new)
            try:
                if self.of(kind).get(key.namespace, key.name) is not None:
                    raise MismatchError(key, 1)
                return await self._write(key, new, 0, options.dry_run)
            except MismatchError:
                if not generated:
                    break
                new["metadata"]["name"] = _generated(new["metadata"]["generateName"])
        raise status.already_exists(kind.plural, kind.group, new["metadata"]["name"])

    def _check_namespace(self, kind: Kind, namespace: str, new: Object) -> None:
        if not kind.namespaced:
            return
        found = self.cache["", "namespaces"].get("", namespace)
        if found is None:
            raise status.not_found("namespaces", "", namespace)
        if found.fields.get("status.phase") == "Terminating":
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise status.forbidden(kind.plural, kind.group, new["metadata"].get("name", ""), why)

    async def update(
        self, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions, sub: str = ""
    ) -> Result:
        """Replace the object, or with `sub` "status" its status."""
        new, warnings = self.decode(kind, body, options)
        new = kind.to_storage(new)
        if new["metadata"].setdefault("name", name) != name:
            raise status.bad_request(
                f"the name of the object ({new['metadata']['name']}) does not match the name on the URL ({name})"
            )
        _place(new, namespace)
        asked = new["metadata"].get("resourceVersion", "")

        def change(_: Object) -> Object:
            return new

        return await self._change(kind, namespace, name, change, options, sub, asked, warnings)

    async def patch(
        self, kind: Kind, namespace: str, name: str, body: Any, form: str, options: WriteOptions, sub: str = ""
    ) -> Result:
        """`form` is the media type: MERGE, JSON or STRATEGIC."""
        warnings: list[str] = []

        def change(old: Object) -> Object:
            try:
                patched = apply_patch(kind, kind.from_storage(old), body, form)
            except RecursionError as error:
                raise status.bad_request("the patch makes the object nest too deeply") from error
            clean, messages = self.decode(kind, patched, options)
            warnings[:] = messages
            return kind.to_storage(clean)

        asked = _version_in(body, form)
        result = await self._change(kind, namespace, name, change, options, sub, asked, ())
        return Result(result.object, gone=result.gone, warnings=tuple(warnings))

    async def _change(
        self, kind: Kind, namespace: str, name: str, change: Callable[[Object], Object], options: WriteOptions,
        sub: str, asked: str, warnings: tuple[str, ...],
    ) -> Result:  # fmt: skip
        for _ in range(_RETRIES):
            entry = self.entry(kind, namespace, name)
            if asked and asked != str(entry.rv):
                raise status.conflict(kind.plural, kind.group, name, MODIFIED)
            new = change(entry.object())
            request = Request("UPDATE", kind, namespace, name, new, entry.object(), options.user, sub, options.dry_run)
            plugins = self._admit(request)
            new = self._prepared(kind, entry, new, sub)
            release = self.admission.reserve(plugins, request)
            try:
                return await self._replace(kind, entry, new, options, warnings)
            except MismatchError:
                continue
            finally:
                release()
        raise status.conflict(kind.plural, kind.group, name, MODIFIED)

    def _prepared(self, kind: Kind, entry: Entry, new: Object, sub: str) -> Object:
        old, strategy = entry.object(), kind.strategy
        metadata, before = new["metadata"], old["metadata"]
        if metadata.get("uid", before["uid"]) != before["uid"]:
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {before['uid']}"
            raise status.conflict(kind.plural, kind.group, entry.key.name, why)
        for key in _SYSTEM_FIELDS:
            _keep(metadata, before, key)
        fields = Fields()
        if sub == "status":
            strategy.prepare_status(new, old)
            strategy.validate_status(new, old, fields)
        else:
            strategy.prepare_update(new, old)
            strategy.validate_update(new, old, fields)
            if strategy.changed(new, old):
                metadata["generation"] = before.get("generation", 0) + 1
        self._raise_invalid(kind, new, fields)
        return new

    async def _replace(
        self, kind: Kind, entry: Entry, new: Object, options: WriteOptions, warnings: tuple[str, ...]
    ) -> Result:
        metadata = new["metadata"]
        metadata["resourceVersion"] = str(entry.rv)
        if new == entry.object():
            return Result(kind.from_storage(new), warnings=warnings)
        if _finished(kind, new):
            return Result(
                kind.from_storage(await self._remove(entry, new, options.dry_run)), gone=True, warnings=warnings
            )
        stored = await self._write(entry.key, new, entry.rv, options.dry_run)
        return Result(kind.from_storage(stored), warnings=warnings)

    async def replace(self, kind: Kind, entry: Entry, new: Object) -> Result:
        """Write an object that the server itself changed, as it is; ConflictError if it is not `entry` any more."""
        try:
            return await self._replace(kind, entry, new, WriteOptions(), ())
        except MismatchError as error:
            raise status.conflict(kind.plural, kind.group, entry.key.name, MODIFIED) from error

    async def bind(
        self, kind: Kind, entry: Entry, node: str, now: str, dry_run: bool, annotations: Mapping[str, str]
    ) -> Object:
        """Put a pod on a node; it gets the binding's annotations. ConflictError when somebody wrote it in between."""
        new = entry.object()
        new["spec"]["nodeName"] = node
        if annotations:
            new["metadata"]["annotations"] = {**new["metadata"].get("annotations", {}), **annotations}
        conditions = [c for c in new.get("status", {}).get("conditions", []) if c.get("type") != "PodScheduled"]
        scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
        new["status"] = {**new.get("status", {}), "conditions": [*conditions, scheduled]}
        try:
            return await self._write(entry.key, new, entry.rv, dry_run)
        except MismatchError as error:
            raise status.conflict("pods/binding", "", entry.key.name, MODIFIED) from error

    # --- deleting ----------------------------------------------------------------------------------------------------

    async def delete(self, kind: Kind, namespace: str, name: str, options: DeleteOptions) -> Result:
        """Result.gone tells whether the object is gone or has only been asked to end."""
        for _ in range(_RETRIES):
            entry = self.entry(kind, namespace, name)
            self._check_preconditions(kind, entry, options)
            self._admit(Request("DELETE", kind, namespace, name, None, entry.object(), options.user))
            try:
                return await self._delete(kind, entry, options)
            except MismatchError:
                continue
        raise status.conflict(kind.plural, kind.group, name, MODIFIED)

    def _check_preconditions(self, kind: Kind, entry: Entry, options: DeleteOptions) -> None:
        for label, asked, found in (
            ("UID", options.uid, entry.object()["metadata"]["uid"] if options.uid else ""),
            ("ResourceVersion", options.resource_version, str(entry.rv)),
        ):
            if asked and asked != found:
                why = f"Precondition failed: {label} in precondition: {asked}, {label} in object meta: {found}"
                raise status.conflict(kind.plural, kind.group, entry.key.name, why)

    async def _delete(self, kind: Kind, entry: Entry, options: DeleteOptions) -> Result:
        old = entry.object()
        new = entry.object()
        grace = kind.strategy.grace_seconds(old, options.grace)
        _mark(new["metadata"], grace, time.time(), kind)
        if "deletionTimestamp" not in old["metadata"]:
            kind.strategy.started_deletion(new)
        if not grace and not new["metadata"].get("finalizers") and not kind.strategy.holds(new):
            return Result(kind.from_storage(await self._remove(entry, old, options.dry_run)), gone=True)
        if new == old:
            return Result(kind.from_storage(old))
        return Result(kind.from_storage(await self._write(entry.key, new, entry.rv, options.dry_run)))

    async def delete_collection(self, kind: Kind, wanted: Filter, options: DeleteOptions) -> Page:
        page = self.list(kind, wanted)
        for entry in page.entries:
            try:
                await self.delete(kind, entry.key.namespace, entry.key.name, options)
            except NotFoundError:
                continue
        return page

    # --- common ------------------------------------------------------------------------------------------------------

    def _key(self, kind: Kind, new: Object) -> Key:
        group, resource = kind.stored_as
        metadata = new["metadata"]
        return Key(group, resource, metadata.get("namespace", ""), metadata["name"])

    async def _write(self, key: Key, new: Object, expected: int, dry_run: bool) -> Object:
        new["metadata"].pop("resourceVersion", None)
        if dry_run:
            return new if not expected else _versioned(new, expected)
        events = await self.store.commit(Write(key, stored(new), expected))
        return _versioned(new, events[0].rv)

    async def _remove(self, entry: Entry, last: Object, dry_run: bool) -> Object:
        if dry_run:
            return last
        events = await self.store.commit(Write(entry.key, None, entry.rv, stored(last)))
        return _versioned(last, events[0].rv)

    def _raise_invalid(self, kind: Kind, new: Object, fields: Fields) -> None:
        if fields.errors:
            raise status.invalid(kind.kind, kind.group, new["metadata"].get("name", ""), fields.errors)


_SYSTEM_FIELDS = (
    "uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "namespace",
    "generateName",
)  # fmt: skip


def apply_patch(kind: Kind, old: Object, body: Any, form: str) -> Any:
    if form == JSON:
        return patches.json_patch(old, body)
    if form == MERGE:
        return patches.merge(old, body)
    if form == STRATEGIC:
        return patches.strategic_merge(kind.schema, old, body)
    raise status.unsupported_media(
        f"the media type {form[:80]!r} is not a patch that this server knows; server-side apply is not supported, "
        f"use one of {JSON}, {MERGE}, {STRATEGIC}"
    )


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


def _place(new: Object, namespace: str) -> None:
    given = new["metadata"].get("namespace", "")
    if namespace and given not in ("", namespace):
        raise status.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request "
            f"({given} != {namespace})"
        )
    if namespace:
        new["metadata"]["namespace"] = namespace
    else:
        new["metadata"].pop("namespace", None)


def _born(new: Object, now: str, kind: Kind) -> None:
    metadata = new["metadata"]
    if metadata.get("resourceVersion"):
        raise status.bad_request("resourceVersion should not be set on objects to be created")
    for key in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"):
        metadata.pop(key, None)
    metadata["uid"] = new_uid()
    metadata["creationTimestamp"] = now
    if kind.strategy.has_generation:
        metadata["generation"] = 1
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = _generated(metadata["generateName"])


_entropy = bytearray()


def new_uid() -> str:
    """A random UUID. Entropy is taken in pages: one system call per object costs more than the rest of its birth."""
    if len(_entropy) < 16:
        _entropy[:] = os.urandom(4096)
    taken = bytes(_entropy[-16:])
    del _entropy[-16:]
    return str(uuid.UUID(bytes=taken, version=4))


def _generated(prefix: str) -> str:
    return prefix[:58] + "".join(secrets.choice(_ALPHABET) for _ in range(5))


def _keep(new: Object, old: Object, key: str) -> None:
    if key in old:
        new[key] = old[key]
    else:
        new.pop(key, None)


def _version_in(body: Any, form: str) -> str:
    """The version that a merge patch insists on."""
    if form == JSON or not isinstance(body, dict) or not isinstance(body.get("metadata"), dict):
        return ""
    found = body["metadata"].get("resourceVersion")
    return found if isinstance(found, str) else ""


def _mark(metadata: Object, grace: int | None, now: float, kind: Kind) -> None:
    """Set the deletion timestamp; a later request may only shorten it."""
    seconds = grace or 0
    stamp = rfc3339(now + seconds)
    if "deletionTimestamp" not in metadata or (
        seconds < metadata.get("deletionGracePeriodSeconds", 0) and stamp < metadata["deletionTimestamp"]
    ):
        metadata["deletionTimestamp"] = stamp
        metadata["deletionGracePeriodSeconds"] = seconds
        if kind.strategy.has_generation:
            metadata["generation"] = metadata.get("generation", 0) + 1


def _finished(kind: Kind, new: Object) -> bool:
    """A deleted object from which the last finalizer was taken."""
    metadata = new["metadata"]
    return bool(
        metadata.get("deletionTimestamp")
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
        and not kind.strategy.holds(new)
    )


def _versioned(new: Object, rv: int) -> Object:
    new["metadata"]["resourceVersion"] = str(rv)
    return new

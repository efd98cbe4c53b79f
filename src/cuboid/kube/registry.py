"""The API's verbs over store and cache: create, get, list, watch, update, patch, apply, delete, for every kind.

No HTTP here: requests come as decoded JSON and options, answers go as objects, errors as `cuboid.lib.errors`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from cuboid.kube import births, bodies, deletion, ownership, status, subwrites, versions
from cuboid.kube import patch as patches
from cuboid.kube.admission import Chain, Plugin, Request
from cuboid.kube.apply.managers import Managers
from cuboid.kube.cache import Cache, Entry, Filter, ResourceCache, stored
from cuboid.kube.fields import Fields
from cuboid.kube.kinds import Kind, Kinds
from cuboid.kube.options import APPLY, JSON, MERGE, MODIFIED, STRATEGIC, DeleteOptions, Result, WriteOptions
from cuboid.kube.pages import Page, Pages
from cuboid.kube.store import Key, MismatchError, Store, Write
from cuboid.lib.clock import rfc3339
from cuboid.lib.errors import AlreadyExistsError, NotFoundError

__all__ = ["APPLY", "JSON", "MERGE", "MODIFIED", "STRATEGIC", "DeleteOptions", "Registry", "Result", "WriteOptions"]

Object = dict[str, Any]
_RETRIES = 5
"""Attempts of a patch that others write past."""
_AT_ONCE = 64
"""Objects of a collection that are deleted together."""
MOST_BYTES = 6 * 1024 * 1024
"""Of an object as it is stored. One request brings 3 MiB; patch after patch would add as much each time."""
_ROOM = 65_536
"""Beyond that for what is written down of an object's end."""
_NAMES = 8
"""Names that are tried for an object that gets a generated one."""


class _Change(NamedTuple):
    """The object as it shall be; `managers` where who owns its fields is known already."""

    new: Object
    managers: Managers | None = None
    warnings: tuple[str, ...] = ()


class Registry:
    def __init__(self, store: Store, cache: Cache, kinds: Kinds | None = None, admission: Chain | None = None) -> None:
        self.store = store
        self.cache = cache
        self.kinds = kinds or Kinds()
        self.admission = admission or Chain()
        self._pages = Pages()
        self._arriving: set[Key] = set()  # being created: their names are taken

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
        self, kind: Kind, wanted: Filter, limit: int = 0, token: str = "", version: str = "", match: str = "",
        initial: bool = False,
    ) -> Page:  # fmt: skip
        """`version` and `match` are `resourceVersion` and `resourceVersionMatch`; a token goes on with its list."""
        versions.check_list(version, match, token, initial)
        selected, scope = bool(wanted.labels or wanted.fields), (kind.stored_as, wanted.namespace)

        def now() -> tuple[list[Entry], int]:
            return self.of(kind).select(wanted), self.cache.revision

        if token:
            return self._pages.following(token, limit, now, selected=selected, scope=scope)
        number = self.check_reached(version)
        if match == versions.EXACT and number != self.cache.revision:
            raise status.expired(number, self.cache.revision)
        entries, revision = now()
        return self._pages.first(entries, revision, limit, selected=selected, scope=scope)

    def check_reached(self, version: str) -> int:
        """The number of a version. DeadlineError (504) when this server has not come to it."""
        number = versions.parse(version)
        if number > self.cache.revision:
            raise status.too_new(number, self.cache.revision)
        return number

    @staticmethod
    def parse_version(version: str) -> int:
        return versions.parse(version)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def create(self, kind: Kind, namespace: str, body: Any, options: WriteOptions) -> Result:
        new, warnings = bodies.decode(kind, body, options)
        return await self._birth(kind, namespace, kind.to_storage(new), options, warnings)

    async def _birth(
        self, kind: Kind, namespace: str, new: Object, options: WriteOptions, warnings: tuple[str, ...],
        applied: Object | None = None,
    ) -> Result:  # fmt: skip
        """`applied` is the configuration from which the object is created, if it is by an apply."""
        bodies.place(new, namespace)
        self._check_namespace(kind, namespace, new)
        name = new["metadata"].get("name", "")
        now = rfc3339(time.time())
        kind.strategy.default(new)
        owners = ownership.at_birth(kind, self._stored(kind), new, options, now, applied)
        request = Request("CREATE", kind, namespace, name, new, None, options.user, dry_run=options.dry_run)
        plugins = self.admit(request, whole=False)
        kind.strategy.prepare_create(new, now)
        births.born(new, now, kind)
        if not name and new["metadata"].get("generateName"):
            self._find_name(kind, new)
        kind.strategy.default(new)
        kind.strategy.named(new)
        fields = Fields()
        kind.strategy.validate(new, fields)
        self._raise_invalid(kind, new, fields)
        ownership.stamp_birth(new, owners)
        key = self._key(kind, new)
        with self._reserved(plugins, request):
            self._arriving.add(key)
            try:
                made = await self._create(kind, key, new, options)
            finally:
                self._arriving.discard(key)
        return Result(kind.from_storage(made), created=True, warnings=warnings)

    def admit(self, request: Request, *, whole: bool = True) -> tuple[Plugin, ...]:
        """Those that have a say in a write, after they said it. `whole`: what is written is the object itself, which
        gets its defaults first."""
        plugins = self.admission.of(request.kind, request.operation, request.sub)
        if plugins and request.new is not None and whole:
            request.kind.strategy.default(request.new)
        for plugin in plugins:
            plugin.admit(request)
        return plugins

    def _find_name(self, kind: Kind, new: Object) -> None:
        """A generated name that nobody has; AlreadyExistsError when luck has run out."""
        metadata = new["metadata"]
        for _ in range(_NAMES):
            key = self._key(kind, new)
            if key not in self._arriving and self.of(kind).get(key.namespace, key.name) is None:
                return
            metadata["name"] = births.generated(metadata["generateName"])
        raise status.no_name_left(kind.plural, kind.group, metadata["name"])

    async def _create(self, kind: Kind, key: Key, new: Object, options: WriteOptions) -> Object:
        try:
            if self.of(kind).get(key.namespace, key.name) is not None:
                raise MismatchError(key, 1)
            return await self._write(key, new, 0, options.dry_run)
        except MismatchError as error:
            raise status.already_exists(kind.plural, kind.group, key.name) from error

    def _check_namespace(self, kind: Kind, namespace: str, new: Object) -> None:
        if not kind.namespaced:
            return
        found = self.cache["", "namespaces"].get("", namespace)
        if found is None:
            raise status.not_found("namespaces", "", namespace)
        if found.fields.get("status.phase") == "Terminating":
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            error = status.forbidden(kind.plural, kind.group, new["metadata"].get("name", ""), why)
            cause = {"reason": "NamespaceTerminating", "message": f"namespace {namespace} is being terminated"}
            error.details = {**error.details, "causes": [{**cause, "field": "metadata.namespace"}]}
            raise error

    async def update(
        self, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions, sub: str = ""
    ) -> Result:
        """Replace the object, or with `sub` what that sub-resource writes of it (`subwrites`)."""
        decoded, warnings = bodies.decode(kind, body, options)
        bodies.name(decoded, name)
        bodies.place(decoded, namespace)
        asked = decoded["metadata"].get("resourceVersion", "")
        new = kind.to_storage(decoded)
        if not sub and kind.stored_as in births.BY_UPDATE and self.of(kind).get(namespace, name) is None:
            self._check_unborn(kind, new, name)
            new["metadata"].pop("resourceVersion", None)
            return await self._birth(kind, namespace, new, options, warnings)

        def change(_: Object) -> _Change:
            return _Change(new, warnings=warnings)

        return await self._change(kind, namespace, name, change, options, sub, asked)

    async def patch(
        self, kind: Kind, namespace: str, name: str, body: Any, form: str, options: WriteOptions, sub: str = ""
    ) -> Result:
        """`form` is the media type: MERGE, JSON, STRATEGIC or APPLY."""
        if form == APPLY:
            return await self.apply(kind, namespace, name, body, options, sub)

        def change(old: Object) -> _Change:
            before = kind.from_storage(old)
            try:
                patched = apply_patch(kind, before, body, form)
            except RecursionError as error:
                raise status.bad_request("the patch makes the object nest too deeply") from error
            clean, messages = bodies.decode_patched(kind, before, patched, options)
            bodies.name(clean, name)
            bodies.place(clean, namespace)
            return _Change(kind.to_storage(clean), warnings=messages)

        return await self._change(kind, namespace, name, change, options, sub, bodies.version_in(body, form))

    async def apply(
        self, kind: Kind, namespace: str, name: str, body: Any, options: WriteOptions, sub: str = ""
    ) -> Result:
        """Server-side apply: the fields in `body` become those of `options.manager`; creates what is missing."""
        ownership.check_applied(body, options)
        config, warnings = bodies.decode(kind, body, options)
        bodies.name(config, name)
        bodies.place(config, namespace)
        ownership.check_lists(kind, config)
        asked = bodies.version_in(config, APPLY)

        def change(old: Object) -> _Change:
            merged = ownership.applied(kind, kind.from_storage(old), config, options, sub, rfc3339(time.time()))
            return _Change(kind.to_storage(merged.object), merged.managers, warnings)

        for _ in range(_RETRIES):
            if self.of(kind).get(namespace, name) is not None:
                return await self._change(kind, namespace, name, change, options, sub, asked)
            if sub:
                raise status.not_found(kind.plural, kind.group, name)
            self._check_unborn(kind, config, name)
            try:
                new, _ = bodies.decode(kind, config, options)
                return await self._birth(kind, namespace, kind.to_storage(new), options, warnings, config)
            except AlreadyExistsError:
                continue
        raise status.conflict(kind.plural, kind.group, name, MODIFIED)

    def _check_unborn(self, kind: Kind, new: Object, name: str) -> None:
        """ConflictError when an object is meant that is not there any more."""
        if uid := new["metadata"].get("uid"):
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: "
            raise status.conflict(kind.plural, kind.group, name, why)

    async def _change(
        self, kind: Kind, namespace: str, name: str, change: Callable[[Object], _Change], options: WriteOptions,
        sub: str, asked: str,
    ) -> Result:  # fmt: skip
        for _ in range(_RETRIES):
            entry = self.entry(kind, namespace, name)
            if asked and asked != str(entry.rv):
                raise status.conflict(kind.plural, kind.group, name, MODIFIED)
            wanted = change(entry.object())
            new = wanted.new
            request = Request("UPDATE", kind, namespace, name, new, entry.object(), options.user, sub, options.dry_run)
            plugins = self.admit(request)
            self._prepare(kind, entry, new, sub)
            old = entry.object()
            moved = ownership.stamp_change(kind, self._stored(kind), old, new, options, sub, wanted.managers)
            if not moved:
                return Result(kind.from_storage(old), warnings=wanted.warnings)
            with self._reserved(plugins, request):
                try:
                    return await self._replace(kind, entry, new, options.dry_run, wanted.warnings)
                except MismatchError:
                    continue
        raise status.conflict(kind.plural, kind.group, name, MODIFIED)

    @contextmanager
    def _reserved(self, plugins: tuple[Plugin, ...], request: Request) -> Iterator[None]:
        """What admission reserves for a write, until the write has ended. One that is given up may end later."""
        release = self.admission.reserve(plugins, request)
        try:
            yield
        except asyncio.CancelledError:
            self.store.afterwards(release)
            raise
        except BaseException:
            release()
            raise
        else:
            release()

    def _prepare(self, kind: Kind, entry: Entry, new: Object, sub: str) -> None:
        old, strategy = entry.object(), kind.strategy
        metadata, before = new["metadata"], old["metadata"]
        if metadata.get("uid", before["uid"]) != before["uid"]:
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {before['uid']}"
            raise status.conflict(kind.plural, kind.group, entry.key.name, why)
        for key in _SYSTEM_FIELDS:
            subwrites.keep(metadata, before, key)
        fields = Fields()
        subwrites.prepare(kind, sub, new, old)
        subwrites.validate(kind, sub, new, old, fields)
        metadata = new["metadata"]
        if sub != "status" and strategy.changed(new, old):
            metadata["generation"] = before.get("generation", 0) + 1
        self._raise_invalid(kind, new, fields)
        metadata["resourceVersion"] = str(entry.rv)

    async def _replace(
        self, kind: Kind, entry: Entry, new: Object, dry_run: bool = False, warnings: tuple[str, ...] = ()
    ) -> Result:
        if deletion.finished(kind, new):
            new["metadata"]["resourceVersion"] = str(entry.rv)
            return Result(kind.from_storage(await self._remove(entry, new, dry_run)), gone=True, warnings=warnings)
        made = await self._write(entry.key, new, entry.rv, dry_run)
        return Result(kind.from_storage(made), warnings=warnings)

    async def replace(self, kind: Kind, entry: Entry, new: Object, *, dry_run: bool = False) -> Result:
        """Write an object that the server itself changed, as it is; ConflictError if it is not `entry` any more."""
        new["metadata"]["resourceVersion"] = str(entry.rv)
        if new == entry.object():
            return Result(kind.from_storage(new))
        try:
            return await self._replace(kind, entry, new, dry_run)
        except MismatchError as error:
            raise status.conflict(kind.plural, kind.group, entry.key.name, MODIFIED) from error

    # --- deleting ----------------------------------------------------------------------------------------------------

    async def delete(self, kind: Kind, namespace: str, name: str, options: DeleteOptions) -> Result:
        """Result.gone tells whether the object is gone or has only been asked to end."""
        for _ in range(_RETRIES):
            entry = self.entry(kind, namespace, name)
            request = Request("DELETE", kind, namespace, name, None, entry.object(), options.user)
            request.dry_run = options.dry_run
            self.admit(request)
            try:
                return await self.delete_entry(kind, entry, options)
            except MismatchError:
                continue
        raise status.conflict(kind.plural, kind.group, name, MODIFIED)

    async def delete_entry(
        self, kind: Kind, entry: Entry, options: DeleteOptions, beside: Sequence[Write] = ()
    ) -> Result:
        """Delete this version and no other, in one transaction with what is written beside; MismatchError otherwise."""
        old = entry.object()
        deletion.check_preconditions(kind, old, options)
        new = deletion.decide(kind, entry.object(), options, time.time())
        if new is None:
            last = await self._remove(entry, old, options.dry_run, beside)
            return Result(kind.from_storage(last), gone=True)
        if new == old and not beside:
            return Result(kind.from_storage(old))
        return Result(kind.from_storage(await self._write(entry.key, new, entry.rv, options.dry_run, beside)))

    async def delete_collection(self, kind: Kind, wanted: Filter, options: DeleteOptions) -> Page:
        """All of a selection, many at once: they share their commits."""
        page = self.list(kind, wanted)
        for start in range(0, len(page.entries), _AT_ONCE):
            some = page.entries[start : start + _AT_ONCE]
            works = (self.delete(kind, entry.key.namespace, entry.key.name, options) for entry in some)
            for result in await asyncio.gather(*works, return_exceptions=True):
                if isinstance(result, BaseException) and not isinstance(result, NotFoundError):
                    raise result
        return page

    # --- common ------------------------------------------------------------------------------------------------------

    def _stored(self, kind: Kind) -> Kind:
        """The row in whose form objects of this kind are stored."""
        if not kind.storage[1]:
            return kind
        return next((row for row in self.kinds.stored() if row.stored_as == kind.stored_as), kind)

    def _key(self, kind: Kind, new: Object) -> Key:
        group, resource = kind.stored_as
        metadata = new["metadata"]
        return Key(group, resource, metadata.get("namespace", ""), metadata["name"])

    async def _write(self, key: Key, new: Object, expected: int, dry_run: bool, beside: Sequence[Write] = ()) -> Object:
        new["metadata"].pop("resourceVersion", None)
        if dry_run:
            return new if not expected else _versioned(new, expected)
        data = stored(new)
        if len(data) > MOST_BYTES + (_ROOM if "deletionTimestamp" in new["metadata"] else 0):
            raise status.too_large(MOST_BYTES)
        events = await self.store.commit(Write(key, data, expected), *beside)
        return _versioned(new, events[0].rv)

    async def _remove(self, entry: Entry, last: Object, dry_run: bool, beside: Sequence[Write] = ()) -> Object:
        if dry_run:
            return last
        events = await self.store.commit(Write(entry.key, None, entry.rv, stored(last)), *beside)
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
    custom = kind.structure is not None
    if form == STRATEGIC and not custom:
        return patches.strategic_merge(kind.schema, old, body)
    known = (JSON, MERGE, APPLY) if custom else (JSON, MERGE, STRATEGIC, APPLY)
    raise status.unsupported_media(
        f"the body of the request was in an unknown format - accepted media types include: {', '.join(known)}"
    )


def _versioned(new: Object, rv: int) -> Object:
    new["metadata"]["resourceVersion"] = str(rv)
    return new

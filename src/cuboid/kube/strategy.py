"""What differs between kinds when an object is written: defaults, what a client may not set, validation, deletion.

A strategy is pure: it gets decoded objects and changes or checks them. Objects are plain JSON dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cuboid.kube import syntax
from cuboid.kube.fields import Fields
from cuboid.kube.validate_meta import validate_meta, validate_meta_update

Object = dict[str, Any]


class Strategy:
    """The common case; a kind overrides what it does otherwise."""

    has_generation = False
    """Counts changes of `spec` in `metadata.generation`."""
    has_status = False
    name_rule = staticmethod(syntax.dns_subdomain)

    def prepare_create(self, new: Object, now: str) -> None:
        """Set defaults, drop what only the server sets. Also given objects that are updated, before validation."""

    def named(self, new: Object) -> None:
        """A new object has got its name and uid: set what is derived from them."""

    def prepare_update(self, new: Object, old: Object) -> None:
        """A client that writes the object does not write its status."""
        if self.has_status:
            _keep(new, old, "status")
        self.default(new)

    def prepare_status(self, new: Object, old: Object) -> None:
        """A client that writes the status writes nothing else."""
        for key in set(new) | set(old):
            if key not in ("status", "metadata"):
                _keep(new, old, key)
        metadata, before = new["metadata"], old["metadata"]
        for key in ("ownerReferences", "finalizers"):
            _keep(metadata, before, key)

    def default(self, new: Object) -> None:
        """Fill in defaults of fields that are not set."""

    def validate(self, new: Object, fields: Fields) -> None:
        validate_meta(new["metadata"], fields, self.name_rule)
        self.validate_body(new, fields)

    def validate_body(self, new: Object, fields: Fields) -> None: ...

    def validate_update(self, new: Object, old: Object, fields: Fields) -> None:
        validate_meta_update(new["metadata"], old["metadata"], fields)
        validate_meta(new["metadata"], fields, None)
        self.validate_body(new, fields)
        self.validate_change(new, old, fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None: ...

    def validate_status(self, new: Object, old: Object, fields: Fields) -> None:
        validate_meta_update(new["metadata"], old["metadata"], fields)
        validate_meta(new["metadata"], fields, None)

    def changed(self, new: Object, old: Object) -> bool:
        """Whether the generation grows."""
        return self.has_generation and bool(new.get("spec") != old.get("spec"))

    def grace_seconds(self, old: Object, asked: int | None) -> int | None:
        """Seconds that an object gets to end, None for a kind that ends at once."""
        return None

    def started_deletion(self, new: Object) -> None:
        """The deletion timestamp was just set."""

    def holds(self, new: Object) -> bool:
        """Something other than `metadata.finalizers` keeps a deleted object."""
        return False

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        """Values of the fields that a field selector may name."""
        metadata = document["metadata"]
        return {"metadata.name": metadata.get("name", ""), "metadata.namespace": metadata.get("namespace", "")}


class StatusStrategy(Strategy):
    """A kind with a status that clients of the object do not write, born empty."""

    has_status = True

    def prepare_create(self, new: Object, now: str) -> None:
        new["status"] = {}


class SpecStrategy(StatusStrategy):
    """As well, a kind whose changes of `spec` are counted."""

    has_generation = True


def _keep(new: Object, old: Object, key: str) -> None:
    if key in old:
        new[key] = old[key]
    else:
        new.pop(key, None)

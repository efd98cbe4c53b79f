"""Kinds made from a definition, and how their objects are treated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from cuboid.kube import schema as schemas
from cuboid.kube import status
from cuboid.kube.crd import compile as compiling
from cuboid.kube.crd import jsonpath, printing, rules, validation
from cuboid.kube.crd.values import MISSING, Schema, default
from cuboid.kube.fields import Fields
from cuboid.kube.kind import SCALE, Kind, Scale, Subresource, status_of
from cuboid.kube.strategy import Object, Strategy
from cuboid.kube.validate_meta import validate_meta, validate_meta_update
from cuboid.lib.errors import InvalidError, UnsupportedError

Convert = Callable[[Object], Object]


class CustomStrategy(Strategy):
    has_generation = True

    def __init__(self, schema: Schema, *, has_status: bool, selectable: Iterable[str] = ()) -> None:
        self.schema = schema
        self.has_status = has_status
        self.ending = False
        """Its definition is being deleted: nothing new is made."""
        self._selectable = tuple(selectable)
        self._has_rules = rules.has_rules(schema)

    def prepare_create(self, new: Object, now: str) -> None:
        if self.ending:
            why = "create not allowed while custom resource definition is terminating"
            raise UnsupportedError(why, reason="MethodNotAllowed")
        if self.has_status:
            new.pop("status", None)

    def prepare_status(self, new: Object, old: Object) -> None:
        """All but the status, and who manages what, stays as it was."""
        found, managers = new.get("status", MISSING), new["metadata"].get("managedFields")
        new.clear()
        new.update({key: value for key, value in old.items() if key != "status"})
        new["metadata"] = {key: value for key, value in old["metadata"].items() if key != "managedFields"}
        if managers is not None:
            new["metadata"]["managedFields"] = managers
        if found is not MISSING:
            new["status"] = found

    def default(self, new: Object) -> None:
        default(self.schema, new)

    def validate_body(self, new: Object, fields: Fields) -> None:
        self._check(new, MISSING, fields)

    def validate_update(self, new: Object, old: Object, fields: Fields) -> None:
        validate_meta_update(new["metadata"], old["metadata"], fields)
        validate_meta(new["metadata"], fields, None)
        self._check(new, old, fields)

    def validate_status(self, new: Object, old: Object, fields: Fields) -> None:
        super().validate_status(new, old, fields)
        self._check(new, old, fields)

    def _check(self, new: Object, old: Any, fields: Fields) -> None:
        try:
            validation.check(self.schema, new, "", fields, old)
            if self._has_rules:
                rules.check(self.schema, new, fields, old)
        except RecursionError as error:
            raise status.bad_request("the object is nested too deeply") from error

    def changed(self, new: Object, old: Object) -> bool:
        unseen = {"metadata", "status"} if self.has_status else {"metadata"}
        return any(new.get(key) != old.get(key) for key in (new.keys() | old.keys()) - unseen)

    def selectable(self, document: Mapping[str, Any]) -> dict[str, str]:
        found = super().selectable(document)
        for path in self._selectable:
            values = jsonpath.find(path, document)
            found[path.lstrip(".")] = _shown(values[0]) if values else ""
        return found


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def rows(definition: Object) -> list[Kind]:
    """The kinds that a definition makes, first the one under which objects are kept."""
    served = [version for version in definition["spec"]["versions"] if version.get("served")]
    stored = next(version["name"] for version in definition["spec"]["versions"] if version.get("storage"))
    served.sort(key=lambda version: version["name"] != stored)
    return [_row(definition, version, stored, first=index == 0) for index, version in enumerate(served)]


def fields_of(kinds: Iterable[Kind]) -> Callable[[Mapping[str, Any]], dict[str, str]]:
    """What can be selected by in any version."""
    found = [kind.strategy for kind in kinds]

    def fields(document: Mapping[str, Any]) -> dict[str, str]:
        return {key: value for strategy in found for key, value in strategy.selectable(document).items()}

    return fields


def _row(definition: Object, version: Object, stored: str, *, first: bool) -> Kind:
    spec = definition["spec"]
    names, group, name = spec["names"], spec["group"], version["name"]
    schema = version["schema"]["openAPIV3Schema"]
    subresources = version.get("subresources") or {}
    structure = compiling.root(schema)
    structure.name = names["kind"]
    columns, cells = printing.printed(version.get("additionalPrinterColumns") or ())
    selectable = [field["jsonPath"] for field in version.get("selectableFields") or ()]
    strategy = CustomStrategy(schema, has_status="status" in subresources, selectable=selectable)
    changed = definition["metadata"].get("generation", 1) > 1
    return Kind(
        group=group,
        version=name,
        kind=names["kind"],
        plural=names["plural"],
        namespaced=spec["scope"] == "Namespaced",
        definition="",
        strategy=strategy,
        columns=columns,
        cells=cells,
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=_subresources(names["kind"], subresources),
        scale=_scale(subresources),
        storage=("", "") if first else (group, names["plural"]),
        to_storage=_renamed(f"{group}/{stored}"),
        from_storage=_read(structure, schema, f"{group}/{name}") if changed else _renamed(f"{group}/{name}"),
        structure=structure,
        singular_name=names.get("singular", ""),
        list_name=names.get("listKind", ""),
        custom_schema=schema,
        converted=changed or name != stored,
        warning=_warning(version, group, names["kind"]),
    )


def _subresources(kind: str, given: Mapping[str, Any]) -> tuple[Subresource, ...]:
    found = [status_of(kind)] if "status" in given else []
    return (*found, SCALE) if given.get("scale") else tuple(found)


def _scale(given: Mapping[str, Any]) -> Scale | None:
    place = given.get("scale")
    if not place:
        return None
    return Scale(place["specReplicasPath"], place["statusReplicasPath"], place.get("labelSelectorPath", ""))


def _warning(version: Object, group: str, kind: str) -> str:
    if not version.get("deprecated"):
        return ""
    return str(version.get("deprecationWarning") or "") or f"{group}/{version['name']} {kind} is deprecated"


def _renamed(api_version: str) -> Convert:
    """Versions differ by their name alone."""

    def convert(document: Object) -> Object:
        return {**document, "apiVersion": api_version}

    return convert


def _read(structure: schemas.Node, schema: Schema, api_version: str) -> Convert:
    """What was stored under an older schema as the schema of today has it."""

    def convert(document: Object) -> Object:
        clean: Object = schemas.decode(structure, document, [])
        clean["apiVersion"] = api_version
        with suppress(InvalidError):  # more defaults than an object may get: then it is shown as it is
            default(schema, clean)
        return clean

    return convert

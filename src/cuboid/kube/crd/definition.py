"""Definitions of custom resources: defaults and validation, in Kubernetes' words.

Source: k8s.io/apiextensions-apiserver, pkg/apis/apiextensions/validation.
"""

from __future__ import annotations

import re
from typing import Any

from cuboid.kube import syntax
from cuboid.kube.crd import jsonpath
from cuboid.kube.crd.structural import check_schema
from cuboid.kube.fields import Fields
from cuboid.kube.strategy import Object, SpecStrategy
from cuboid.lib.errors import InvalidError

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
RESERVED = ("k8s.io", "kubernetes.io")
"""Groups, and those below them, that need an approval."""
APPROVED = "api-approved.kubernetes.io"
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_LABEL_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_SCOPES = ("Cluster", "Namespaced")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
MAX_SELECTABLE = 8


class DefinitionStrategy(SpecStrategy):
    def prepare_create(self, new: Object, now: str) -> None:
        stored = [item["name"] for item in _versions(new) if item.get("storage")]
        new["status"] = {"conditions": [], "acceptedNames": {"kind": "", "plural": ""}, "storedVersions": stored}

    def prepare_update(self, new: Object, old: Object) -> None:
        super().prepare_update(new, old)
        status = new.get("status") or {}
        known = status.get("storedVersions") or []
        more = [item["name"] for item in _versions(new) if item.get("storage") and item["name"] not in known]
        new["status"] = {**status, "storedVersions": [*known, *more]}

    def default(self, new: Object) -> None:
        spec = new.get("spec", {})
        names = spec.get("names", {})
        if kind := names.get("kind"):
            names.setdefault("singular", kind.lower())
            names.setdefault("listKind", f"{kind}List")
        spec.setdefault("conversion", {}).setdefault("strategy", "None")
        if spec.get("preserveUnknownFields") is False:  # what v1 means anyway
            del spec["preserveUnknownFields"]

    def validate_body(self, new: Object, fields: Fields) -> None:
        spec = new.get("spec", {})
        group, names = spec.get("group", ""), spec.get("names", {})
        wanted = f"{names.get('plural', '')}.{group}"
        if new["metadata"].get("name", "") != wanted:
            why = 'must be spec.names.plural+"."+spec.group'
            fields.invalid("metadata.name", new["metadata"].get("name", ""), why)
        _check_group(new, group, fields)
        if not spec.get("scope"):
            fields.required("spec.scope")
        elif spec["scope"] not in _SCOPES:
            fields.unsupported("spec.scope", spec["scope"], _SCOPES)
        if spec.get("preserveUnknownFields"):
            why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema"
            why += " instead"
            fields.invalid("spec.preserveUnknownFields", True, why)
        if spec.get("conversion", {}).get("strategy") not in (None, "None"):
            fields.unsupported("spec.conversion.strategy", spec["conversion"]["strategy"], ("None",))
        if spec.get("conversion", {}).get("webhook"):
            fields.forbidden("spec.conversion.webhook", "should not be set when strategy is not set to Webhook")
        check_names(names, "spec.names", fields)
        _check_versions(spec.get("versions") or [], fields)

    def validate_change(self, new: Object, old: Object, fields: Fields) -> None:
        for path in (("spec", "group"), ("spec", "scope"), ("spec", "names", "plural"), ("spec", "names", "kind")):
            if path == ("spec", "names", "kind") and not _established(old):
                continue
            if _at(new, path) != _at(old, path):
                fields.invalid(".".join(path), _at(new, path), "field is immutable")
        _check_stored(new, fields)

    def validate_status(self, new: Object, old: Object, fields: Fields) -> None:
        super().validate_status(new, old, fields)
        _check_stored(new, fields)

    def started_deletion(self, new: Object) -> None:
        """Its objects go first."""
        finalizers = new["metadata"].setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)


def _versions(document: Object) -> list[Object]:
    found: list[Object] = document.get("spec", {}).get("versions") or []
    return [item for item in found if item.get("name")]


def _at(document: Object, path: tuple[str, ...]) -> Any:
    found: Any = document
    for key in path:
        found = found.get(key, {})
    return found


def _established(document: Object) -> bool:
    conditions = document.get("status", {}).get("conditions") or []
    return any(item.get("type") == "Established" and item.get("status") == "True" for item in conditions)


def _check_stored(new: Object, fields: Fields) -> None:
    """An object in the store that nothing can read any more would be lost."""
    known = {item["name"] for item in _versions(new)}
    stored = new.get("status", {}).get("storedVersions") or []
    for index, version in enumerate(stored):
        if version not in known:
            why = (
                f"missing from spec.versions; {version} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {version} and removes "
                f"{version} from status.storedVersions"
            )
            fields.invalid(f"status.storedVersions[{index}]", version, why)


def _check_group(new: Object, group: str, fields: Fields) -> None:
    if not group:
        fields.required("spec.group")
        return
    fields.all_invalid("spec.group", group, syntax.dns_subdomain(group))
    if "." not in group:
        fields.invalid("spec.group", group, "should be a domain with at least one dot")
    reserved = any(group == item or group.endswith(f".{item}") for item in RESERVED)
    if reserved and not new["metadata"].get("annotations", {}).get(APPROVED):
        why = 'protected groups must have approval annotation "api-approved.kubernetes.io", see https://github.com/kubernetes/enhancements/pull/1111'
        fields.required("metadata.annotations[api-approved.kubernetes.io]", why)


def _label(text: str) -> list[str]:
    problems = ["must be no more than 63 bytes"] if len(text.encode()) > 63 else []
    return problems if _LABEL.fullmatch(text) else [*problems, _LABEL_TEXT]


def check_names(names: Object, path: str, fields: Fields) -> None:
    for key in ("plural", "singular", "kind", "listKind"):
        name = names.get(key, "")
        if not name:
            if key != "singular":
                fields.required(f"{path}.{key}")
            continue
        problems = _label(name.lower() if key in ("kind", "listKind") else name)
        if problems and key in ("kind", "listKind"):
            problems = [f"may have mixed case, but should otherwise match: {', '.join(problems)}"]
        fields.all_invalid(f"{path}.{key}", name, problems)
    for key in ("shortNames", "categories"):
        for index, name in enumerate(names.get(key) or []):
            fields.all_invalid(f"{path}.{key}[{index}]", name, _label(name))
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        fields.invalid(f"{path}.listKind", names["listKind"], "kind and listKind may not be the same")


def _check_versions(versions: list[Object], fields: Fields) -> None:
    stored = [item.get("name") for item in versions if item.get("storage")]
    seen: set[str] = set()
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        name = version.get("name", "")
        if name in seen:
            fields.duplicate(f"{path}.name", name)
        seen.add(name)
        fields.all_invalid(f"{path}.name", name, _label(name))
        _check_version(version, path, fields)
    if not versions:
        fields.required("spec.versions", "must have at least one version")
    elif len(stored) != 1:
        shown = [item.get("name", "") for item in versions]
        fields.invalid("spec.versions", shown, "must have exactly one version marked as storage version")


def _check_version(version: Object, path: str, fields: Fields) -> None:
    given = version.get("schema", {}).get("openAPIV3Schema")
    if not given:
        fields.required(f"{path}.schema.openAPIV3Schema", "schemas are required")
    else:
        check_schema(given, f"{path}.schema.openAPIV3Schema", fields)
    if version.get("deprecationWarning") and not version.get("deprecated"):
        fields.invalid(
            f"{path}.deprecationWarning", version["deprecationWarning"], "can only be set for deprecated versions"
        )
    scale = version.get("subresources", {}).get("scale")
    if scale is not None:
        _check_scale(scale, f"{path}.subresources.scale", fields)
    for index, column in enumerate(version.get("additionalPrinterColumns") or []):
        _check_column(column, f"{path}.additionalPrinterColumns[{index}]", fields)
    selectable = version.get("selectableFields") or []
    if len(selectable) > MAX_SELECTABLE:
        fields.too_many(f"{path}.selectableFields", len(selectable), MAX_SELECTABLE)
    for index, field in enumerate(selectable[:MAX_SELECTABLE]):
        _check_selectable(field, given or {}, f"{path}.selectableFields[{index}]", fields)


def _check_scale(scale: Object, path: str, fields: Fields) -> None:
    for key, roots in (
        ("specReplicasPath", ("spec",)),
        ("statusReplicasPath", ("status",)),
        ("labelSelectorPath", ("spec", "status")),
    ):
        found = scale.get(key, "")
        if not found and len(roots) == 1:
            fields.required(f"{path}.{key}")
        elif found and ("[" in found or not _simple(found) or not found.startswith(tuple(f".{r}." for r in roots))):
            listed = " or ".join(f".{root}" for root in roots)
            fields.invalid(f"{path}.{key}", found, f"should be a json path under {listed}")


def _simple(path: str) -> bool:
    try:
        jsonpath.parse(path)
    except InvalidError:
        return False
    return True


def _check_column(column: Object, path: str, fields: Fields) -> None:
    for key in ("name", "type", "jsonPath"):
        if not column.get(key):
            fields.required(f"{path}.{key}")
    if column.get("type") and column["type"] not in _COLUMN_TYPES:
        fields.invalid(f"{path}.type", column["type"], f"must be one of {','.join(_COLUMN_TYPES)}")
    if column.get("format") and column["format"] not in _COLUMN_FORMATS:
        fields.invalid(f"{path}.format", column["format"], f"must be one of {','.join(_COLUMN_FORMATS)}")
    if column.get("jsonPath"):
        try:
            jsonpath.parse(column["jsonPath"])
        except InvalidError as error:
            fields.invalid(f"{path}.jsonPath", column["jsonPath"], error.message)


def _check_selectable(field: Object, schema: Object, path: str, fields: Fields) -> None:
    given = field.get("jsonPath", "")
    if not given:
        fields.required(f"{path}.jsonPath")
        return
    found: Any = schema
    for part in given.lstrip(".").split("."):
        found = (found.get("properties") or {}).get(part) if isinstance(found, dict) else None
    if given.startswith(".metadata") or not isinstance(found, dict):
        fields.invalid(f"{path}.jsonPath", given, "is an invalid path: does not refer to a valid field")
    elif found.get("type") not in ("string", "boolean", "integer"):
        why = "must point to a field of type string, boolean or integer. "
        why += "Enum string fields and strings with formats are allowed."
        fields.invalid(f"{path}.jsonPath", given, why)

"""The schemas of the objects that Cuboid adds to the API, in the form of Kubernetes' own: group `cuboid.dev`."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
_META = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
_TIME = "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.Time"
_QUANTITY = "#/$defs/io.k8s.apimachinery.pkg.api.resource.Quantity"
_LIMIT = "#/$defs/io.k8s.api.core.v1.LimitRangeItem"
_API = "dev.cuboid.v1."


def _text(description: str) -> Schema:
    return {"type": "string", "description": description}


def _texts(description: str) -> Schema:
    return {
        "type": "array",
        "items": {"type": "string"},
        "description": description,
        "x-kubernetes-list-type": "set",
        "x-kubernetes-patch-strategy": "merge",
    }


def _object(description: str, **properties: Schema) -> Schema:
    return {"type": "object", "description": description, "properties": properties}


def _whole(kind: str, description: str, **parts: Schema) -> Schema:
    made = _object(
        description,
        apiVersion=_text("The version of the schema of this object: cuboid.dev/v1."),
        kind=_text(f"Always {kind}."),
        metadata=_META,
        **parts,
    )
    return {**made, "x-kubernetes-group-version-kind": [{"group": "cuboid.dev", "version": "v1", "kind": kind}]}


DEFINITIONS: dict[str, Schema] = {
    _API + "Tenant": _whole(
        "Tenant",
        "A tenant is some namespaces with their users, quota, limits and share of the API.",
        spec={"$ref": f"#/$defs/{_API}TenantSpec"},
        status={"$ref": f"#/$defs/{_API}TenantStatus"},
    ),
    _API + "TenantSpec": _object(
        "What a tenant has and who belongs to it.",
        namespaces=_texts("Namespaces beside the first one, which is named like the tenant."),
        weight={
            "type": "integer",
            "format": "int32",
            "description": "Share of the API when it is busy, 1 to 100, compared with that of others. Default 1.",
        },
        quota={
            "type": "object",
            "additionalProperties": {"$ref": _QUANTITY},
            "description": "Hard limits, as in a ResourceQuota, on all namespaces of the tenant together.",
        },
        limits={
            "type": "array",
            "items": {"$ref": _LIMIT},
            "x-kubernetes-list-type": "atomic",
            "description": "Items of the LimitRange that each of its namespaces gets.",
        },
        members={
            "type": "array",
            "items": {"$ref": f"#/$defs/{_API}TenantMember"},
            "x-kubernetes-list-type": "atomic",
            "description": "Users and groups, of client certificates or OpenID Connect, that belong to the tenant.",
        },
        priorityClasses=_texts("Priority classes that its pods may name."),
    ),
    _API + "TenantMember": _object(
        "Who belongs to a tenant, and in which role.",
        kind=_text("User or Group."),
        name=_text("Name of the user or group."),
        role=_text("admin, edit or view. Default edit."),
    ),
    _API + "TenantStatus": _object(
        "What the tenant controller has made of it.",
        phase=_text("Active, Pending or Terminating."),
        message=_text("One sentence about what is missing or still to be removed."),
        namespaces=_texts("Namespaces that the tenant has now."),
    ),
    _API + "Token": _whole(
        "Token",
        "A tenant's bearer token, known by its hash alone. Deleting it takes it back at once.",
        spec={"$ref": f"#/$defs/{_API}TokenSpec"},
    ),
    _API + "TokenSpec": _object(
        "Whose token it is and for how long. It does not change.",
        tenant=_text("Name of the tenant."),
        role=_text("admin, edit or view. Default edit."),
        sha256=_text("SHA-256 of the token in hexadecimal digits."),
        expirationTimestamp={"$ref": _TIME, "description": "When it ends."},
    ),
}

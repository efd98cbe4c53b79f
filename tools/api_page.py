"""The reference page of the API: which kinds, verbs and sub-resources are served, and what becomes of each field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from cuboid.kube import kinds
from cuboid.kube.field_tables import IGNORED, REFUSED, WORKS
from cuboid.kube.kind import VERBS, Kind
from cuboid.server.virtual import VIRTUAL

_HEAD = """\
# The API

Kinds of Kubernetes and of Cuboid that the embedded server serves, and what becomes of their fields. On a cluster the
API is the cluster's own. This page is generated from the code.

Every answer, message and default is as in Kubernetes {version} unless this page says otherwise. All kinds have
{verbs}
where the table names no others. Lists take label and field selectors, `limit` and `continue`; `apply` is server-side
apply. Custom resources are served as their definitions say: see [custom resources](../how-to/custom-resources.md).
"""
_FIELDS = """\
## Fields

A field is in one of three tables. *Works*: it does what Kubernetes' documentation says. *Refused*: an object with it is
not taken. *No effect*: the object is taken, nothing acts on the field, and the answer carries a `Warning` that says so,
which `kubectl` prints. Structs that are in no table work as a whole, or belong to a field that is in one of the tables.

What a tenant may write is narrowed further: see [tenants](../how-to/tenants.md).
"""
_NOTES = """\
`pods/resize` changes the limits of containers that run, as far as the pod's machine has what they ask for: it does not
grow while it runs, what it lacks waits for the next machine (`PodResizePending`). A running machine has room
for one image more, that of its ephemeral containers. A Service of type LoadBalancer is reached at its own port of the
machine, and its status names the ready nodes."""


def api_page() -> str:
    from cuboid.kube.schema import VERSION

    lines = [
        _HEAD.format(version=VERSION, verbs=_listed(VERBS)),
        *_kinds(),
        "",
        *_virtual(),
        "",
        _NOTES,
        "",
        _FIELDS,
    ]
    lines += ["### Works", "", "| struct | fields |", "|---|---|"]
    lines += [f"| `{name}` | {_listed(fields.split())} |" for name, fields in sorted(WORKS.items())]
    lines += ["", "### No effect", "", "| field | which values | why |", "|---|---|---|"]
    for name, rows in sorted(IGNORED.items()):
        for key, row in sorted(rows.items()):
            values = f"other than {_listed(map(json.dumps, row.neutral))}" if row.neutral else ""
            lines.append(f"| `{name}.{key}` | {values} | {row.why} |")
    lines += ["", "### Refused", "", "| field | why |", "|---|---|"]
    for name, reasons in sorted(REFUSED.items()):
        for why in dict.fromkeys(reasons.values()):
            keys = [f"{name}.{key}" for key, other in sorted(reasons.items()) if other == why]
            lines.append(f"| {_listed(keys)} | {why} |")
    return "\n".join(lines) + "\n"


def _listed(items: Iterable[str]) -> str:
    return ", ".join(f"`{item}`" for item in items)


def _kinds() -> Iterator[str]:
    yield from ("## Kinds", "", "| group and version | kind | resource | short | of | verbs | sub-resources |")
    yield "|---|---|---|---|---|---|---|"
    for kind in sorted(kinds.KINDS, key=lambda kind: (kind.group, kind.kind, kind.version)):
        yield _row(kind)


def _row(kind: Kind) -> str:
    verbs = "" if kind.verbs == VERBS else ", ".join(kind.verbs)
    subs = ", ".join(sub.name for sub in kind.subresources)
    scope = "namespace" if kind.namespaced else "cluster"
    short = ", ".join(kind.short_names)
    return f"| {kind.api_version} | {kind.kind} | `{kind.plural}` | {short} | {scope} | {verbs} | {subs} |"


def _virtual() -> Iterator[str]:
    yield from (
        "Answered and not stored:",
        "",
        "| group and version | kind | resource | of | verbs |",
        "|---|---|---|---|---|",
    )
    for item in VIRTUAL:
        group = f"{item.group}/{item.version}" if item.group else item.version
        scope = "namespace" if item.namespaced else "cluster"
        yield f"| {group} | {item.kind} | `{item.plural}` | {scope} | {', '.join(item.verbs)} |"

"""A request's method, path and query as what authorization decides about. Pure.

Source: apiserver/pkg/endpoints/request/requestinfo. The path is the one that the handlers read too, decoded once.
"""

from __future__ import annotations

from urllib.parse import parse_qs

from cuboid.kube.rbac.attributes import Attributes

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_ABOUT_NAMESPACES = ("status", "finalize")
STREAMS = ("exec", "attach", "portforward")
"""Sub-resources that act on a pod, though a WebSocket is opened by a GET: the right to create them is needed."""


def attributes(method: str, path: str, query: bytes) -> Attributes:
    """Of any request; what is no resource has its path."""
    parts = path.strip("/").split("/")
    verb = _VERBS.get(method, method.lower())
    if parts[0] == "api" and len(parts) >= 3:
        return _resource(verb, "", parts[1], parts[2:], query)
    if parts[0] == "apis" and len(parts) >= 4:
        return _resource(verb, parts[1], parts[2], parts[3:], query)
    return Attributes(verb, path=path)


def _resource(verb: str, group: str, version: str, parts: list[str], query: bytes) -> Attributes:
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and not (len(parts) == 3 and parts[2] in _ABOUT_NAMESPACES):
            parts = parts[2:]
    resource, name, sub = (*parts[:3], "", "")[:3]
    selector = ""
    if not name and verb in ("get", "delete"):
        verb, name, selector = _collection(verb, query)
    if sub in STREAMS and verb == "get":
        verb = "create"
    return Attributes(verb, group, version, resource, sub, namespace, name, "", selector)


def _collection(verb: str, query: bytes) -> tuple[str, str, str]:
    """Verb, name and field selector: one that picks a name asks for no more than that object."""
    if not query:
        return ("deletecollection" if verb == "delete" else "list"), "", ""
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    selector = given.get("fieldSelector", [""])[-1]
    if verb == "delete":
        return "deletecollection", "", selector
    watch = given.get("watch", ["0"])[-1].lower() in ("1", "true", "t")
    return ("watch" if watch else "list"), _name_in(selector), selector


def _name_in(selector: str) -> str:
    for term in selector.split(","):
        key, sign, value = term.partition("=")
        if key == "metadata.name" and sign and (name := value.removeprefix("=")):
            return name if "\\" not in name else ""
    return ""

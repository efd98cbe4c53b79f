"""What is authorized is what is done: the gate and the handlers read a path alike, whatever it is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.kube.kinds import Kinds
from cuboid.lib.errors import NotFoundError
from cuboid.server.authz.request import attributes
from cuboid.server.paths import Target, parse

KINDS = Kinds()
WORDS = sorted(
    {
        "api", "apis", "v1", "namespaces", "acme", "rival", "status", "finalize", "watch", "proxy", "log", "exec",
        "binding", "scale", "", ".", "..", "?", "#", "%", "%2f", "pods?", "a b", "é", "\\",
        *(kind.plural for kind in KINDS), *(kind.group for kind in KINDS),
    }
)  # fmt: skip
SEGMENTS = st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), min_size=1, max_size=10)
LIKELY = st.builds(
    lambda kind, place, rest: [
        *(["apis", kind.group] if kind.group else ["api"]),
        kind.version,
        *place,
        kind.plural,
        *rest,
    ],
    st.sampled_from(list(KINDS)),
    st.sampled_from([[], ["namespaces", "acme"], ["namespaces", "rival"], ["namespaces", ""]]),
    st.lists(st.sampled_from(WORDS), max_size=4),
)


def read(path: str) -> Target | None:
    try:
        return parse(path, KINDS)
    except NotFoundError:
        return None


@settings(max_examples=1_000, deadline=None)
@given(st.one_of(LIKELY, SEGMENTS), st.sampled_from(["/", "//", ""]), st.sampled_from(["", "/", "//"]))
def test_the_gate_reads_a_path_as_the_handlers_do(parts: list[str], before: str, after: str) -> None:
    path = before + "/".join(parts) + after
    target = read(path)
    if target is None or "//" in path:  # which the gate refuses: see the tenancy matrix
        return
    found = attributes("GET", path, b"")
    assert not found.path, "what handlers take for a resource is authorized as one"
    assert (found.group, found.version, found.resource) == (target.kind.group, target.kind.version, target.kind.plural)
    assert (found.name, found.sub) == (target.name, target.sub)
    if target.kind.namespaced:
        assert found.namespace == target.namespace
    elif target.kind.plural == "namespaces":
        assert found.namespace == target.name

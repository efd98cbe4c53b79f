"""The quick look for fields without effect sees one exactly where the walk would name one."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from cuboid.kube import kinds, unsupported_fields
from cuboid.kube.kinds import Kind
from tests.unit.kube.test_kinds_hostile import KINDS, document


@pytest.mark.parametrize("kind", KINDS, ids=[f"{kind.kind}-{kind.version}" for kind in KINDS])
def test_nothing_is_overlooked(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    pick = random.Random(kind.kind)
    documents = [document(kind, pick) for _ in range(40)]
    quick = [unsupported_fields.warnings(kind, made) for made in documents]
    everything = SimpleNamespace(sees=lambda value: True)
    monkeypatch.setattr(unsupported_fields, "_look", lambda node: everything)
    assert quick == [unsupported_fields.warnings(kind, made) for made in documents]


def test_there_are_pods_with_and_without_such_fields() -> None:
    pick, pod = random.Random(1), kinds.builtin("Pod")
    seen = {bool(unsupported_fields.warnings(pod, document(pod, pick))) for _ in range(40)}
    plain = {"spec": {"containers": [{"name": "a", "image": "b"}]}}
    assert True in seen
    assert unsupported_fields.warnings(pod, plain) == ()

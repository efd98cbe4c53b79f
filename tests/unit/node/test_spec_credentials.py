"""imagePullSecrets: which credentials an image is pulled with."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from cuboid.kube.types import Secret, secret
from cuboid.node.steps.credentials import auths, credentials_for, decode, match
from tests.harness.node import make_pod
from tests.harness.node_world import FakeObjects


def packed(value: Any) -> str:
    return base64.b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).decode()


def made(entries: dict[str, Any]) -> Secret:
    return secret({"metadata": {"name": "pull"}, "data": {".dockerconfigjson": packed({"auths": entries})}})


@pytest.mark.parametrize(
    ("key", "image", "fits"),
    [
        ("https://index.docker.io/v1/", "nginx", True),
        ("docker.io", "library/nginx:1", True),
        ("registry.example.com", "registry.example.com/a/b", True),
        ("https://registry.example.com/v2/", "registry.example.com/a", True),
        ("registry.example.com/team", "registry.example.com/team/app:1", True),
        ("registry.example.com/team", "registry.example.com/teams/app:1", False),
        ("localhost:5000", "localhost:5000/demo/nginx:1", True),
        ("other.example.com", "registry.example.com/a", False),
        ("evil.com", "nginx", False),
    ],
)
def test_an_entry_fits_its_own_registry_and_path_only(key: str, image: str, fits: bool) -> None:
    assert bool(match(key, image)) == fits


async def test_the_most_exact_entry_wins() -> None:
    objects = FakeObjects()
    objects.secrets["pull"] = made(
        {
            "r.example.com": {"auth": packed(b"wide:1")},
            "r.example.com/team": {"username": "exact", "password": "2"},
        }
    )
    pod = make_pod(imagePullSecrets=[{"name": "missing"}, {"name": "pull"}])
    found = await credentials_for(pod, "r.example.com/team/app", objects)
    assert found is not None and (found.username, found.password) == ("exact", "2")
    assert await credentials_for(pod, "nginx", objects) is None


@given(some.binary(max_size=200))
def test_no_secret_breaks_anything(data: bytes) -> None:
    assert isinstance(auths(Secret(data={".dockerconfigjson": packed(data)})), dict)


@given(some.recursive(some.none() | some.text() | some.integers(), lambda inner: some.dictionaries(some.text(), inner)))
def test_no_entry_breaks_anything(entry: Any) -> None:
    decode(entry)
    decode({"auth": entry})

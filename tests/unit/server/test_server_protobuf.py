"""Request bodies in protobuf: every message of the table, and bytes that are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.lib.errors import CuboidError, InvalidError, UnsupportedError
from cuboid.server import protobuf


def varint(number: int) -> bytes:
    number &= 2**64 - 1
    found = b""
    while number > 0x7F:
        found, number = found + bytes((number & 0x7F | 0x80,)), number >> 7
    return found + bytes((number,))


def field(number: int, value: bytes | str | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def body(version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\x00" + field(1, field(1, version) + field(2, kind)) + field(2, raw)


def test_a_deployment_as_a_typed_client_sends_it() -> None:
    metadata = field(1, "d") + field(8, b"") + field(11, field(1, "a") + field(2, "b"))
    container = field(1, "main") + field(2, "app:1")
    container += field(6, field(1, "") + field(2, 0) + field(3, 8080) + field(4, "TCP"))
    container += field(8, field(1, field(1, "cpu") + field(2, field(1, "500m"))))
    port = field(1, 0) + field(2, 8080) + field(3, "")
    probe = field(1, field(2, field(1, "/") + field(2, port))) + field(2, 0) + field(3, 0)
    container += field(11, probe)
    volume = field(1, "v") + field(2, field(6, field(1, "s") + field(4, 0)))
    template = field(2, field(1, volume) + field(2, container) + field(4, 0))
    strategy = field(1, "RollingUpdate") + field(2, field(1, field(1, 1) + field(2, 0) + field(3, "25%")))
    spec = field(1, 0) + field(3, template) + field(4, strategy) + field(5, 0)
    assert protobuf.decode(body("apps/v1", "Deployment", field(1, metadata) + field(2, spec) + field(3, b""))) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"a": "b"}},
        "spec": {
            "replicas": 0,  # a pointer in Go: zero is asked for
            "template": {
                "spec": {
                    "volumes": [{"name": "v", "secret": {"secretName": "s", "optional": False}}],
                    "containers": [
                        {
                            "name": "main",
                            "image": "app:1",
                            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                            "resources": {"limits": {"cpu": "500m"}},
                            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
                        }
                    ],
                    "terminationGracePeriodSeconds": 0,
                }
            },
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%"}},
        },
        "status": {},
    }


def test_json_within_a_definition() -> None:
    schema = field(5, "object") + field(8, field(1, b'{"a":[1]}')) + field(31, field(1, field(5, "string")))
    schema += field(24, field(1, field(5, "integer")))
    version = field(1, "v1") + field(2, 0) + field(3, 1) + field(4, field(1, schema))
    found = protobuf.decode(body("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, field(7, version))))
    assert found["spec"]["versions"][0]["served"] is False
    given_schema = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert given_schema["default"] == {"a": [1]} and given_schema["type"] == "object"


@pytest.mark.parametrize("raw", [b"", b"k8s", b"k8s\x00\xff", b'{"kind":"Pod"}', body("v1", "Pod", b"\x0a\xff")])
def test_bytes_that_are_none_are_refused(raw: bytes) -> None:
    with pytest.raises((InvalidError, UnsupportedError)):
        protobuf.decode(raw)


def test_messages_within_messages_have_an_end() -> None:
    schema = b""
    for _ in range(500):
        schema = field(28, schema)  # `not`
    version = field(7, field(1, "v1") + field(4, field(1, schema)))
    with pytest.raises(CuboidError, match="nested too deeply"):
        protobuf.decode(body("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, version)))


KINDS = [
    ("v1", "Pod"), ("apps/v1", "Deployment"), ("v1", "Service"), ("batch/v1", "CronJob"), ("v1", "DeleteOptions"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"), ("coordination.k8s.io/v1", "Lease"),
]  # fmt: skip


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_sentence(kind: tuple[str, str], raw: bytes) -> None:
    try:
        assert isinstance(protobuf.decode(body(*kind, raw)), dict)
    except CuboidError as error:
        assert str(error)

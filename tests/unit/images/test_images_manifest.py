from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.images.bundle import check
from cuboid.images.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    choose,
    parse_config,
    parse_manifest,
)
from cuboid.images.settings import ImageSettings
from cuboid.lib.errors import CuboidError, HostileError, UnsupportedError

DIGEST = "sha256:" + "ab" * 32
PART = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 7}


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def entry(os: str, architecture: str, variant: str = "", digest: str = DIGEST) -> dict[str, object]:
    platform = {"os": os, "architecture": architecture, "variant": variant}
    return {"mediaType": OCI_MANIFEST, "digest": digest, "size": 5, "platform": platform}


@pytest.mark.parametrize("kind", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_manifest_of_either_kind_is_read(kind: str) -> None:
    parsed = parse_manifest(encode({"schemaVersion": 2, "mediaType": kind, "config": PART, "layers": [PART, PART]}))
    assert isinstance(parsed, Manifest)
    assert [layer.digest for layer in parsed.layers] == [DIGEST, DIGEST]


@pytest.mark.parametrize("kind", [OCI_INDEX, DOCKER_LIST])
def test_an_index_of_either_kind_is_read(kind: str) -> None:
    parsed = parse_manifest(encode({"schemaVersion": 2, "mediaType": kind, "manifests": [entry("linux", "amd64")]}))
    assert isinstance(parsed, Index)
    assert choose(parsed, "x").digest == DIGEST


def test_the_kind_may_come_from_the_header_alone() -> None:
    raw = encode({"schemaVersion": 2, "manifests": [entry("linux", "amd64")]})
    assert isinstance(parse_manifest(raw, f"{OCI_INDEX}; charset=utf-8"), Index)
    assert isinstance(parse_manifest(raw), Index)


def test_our_platform_is_chosen_and_attestations_are_not() -> None:
    other = "sha256:" + "cd" * 32
    index = parse_manifest(
        encode(
            {"manifests": [entry("unknown", "unknown"), entry("linux", "arm64"), entry("linux", "amd64", "", other)]}
        )
    )
    assert isinstance(index, Index)
    assert choose(index, "x").digest == other


def test_a_missing_platform_is_refused_naming_what_there_is() -> None:
    index = parse_manifest(encode({"manifests": [entry("linux", "arm64", "v8"), entry("windows", "amd64")]}))
    assert isinstance(index, Index)
    with pytest.raises(UnsupportedError, match=r"linux/arm64/v8, windows/amd64"):
        choose(index, "the image x")


@pytest.mark.parametrize(
    "value",
    [
        {"config": PART, "layers": [{**PART, "digest": "sha256:../../etc"}]},
        {"config": {**PART, "size": -1}, "layers": []},
        {"config": {**PART, "size": 1 << 60}, "layers": []},
        {"config": PART},
        {"config": PART, "layers": [PART] * 2000},
        {"layers": {}},
        [],
        "text",
        None,
    ],
)
def test_a_malformed_manifest_is_hostile(value: object) -> None:
    with pytest.raises(HostileError):
        parse_manifest(encode(value))


@pytest.mark.parametrize(
    "value",
    [
        {"schemaVersion": 1, "fsLayers": []},
        {"config": {**PART, "mediaType": "application/vnd.cncf.helm.config.v1+json"}, "layers": []},
        {"config": PART, "layers": [{**PART, "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"}]},
    ],
)
def test_what_is_no_runnable_image_is_unsupported(value: object) -> None:
    with pytest.raises(UnsupportedError):
        parse_manifest(encode(value))


def test_json_nested_without_end_is_hostile() -> None:
    with pytest.raises(HostileError):
        parse_manifest(b'{"config":' + b'{"a":' * 100_000)
    with pytest.raises(HostileError):
        parse_manifest(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_a_configuration_says_how_to_run_the_image() -> None:
    raw = encode({
        "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z",
        "config": {
            "Entrypoint": ["/e"], "Cmd": ["c"], "Env": ["A=b"], "WorkingDir": "/w", "User": "u:g",
            "StopSignal": "SIGQUIT",
            "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/v": {}}, "Labels": {"k": "v"}, "Healthcheck": {"Test": []},
        },
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]}, "history": [{"created_by": "x"}],
    })  # fmt: skip
    config = parse_config(raw)
    assert config.run.entrypoint == ("/e",)
    assert config.run.exposed_ports == ("80/tcp",)
    assert config.run.labels == {"k": "v"}
    assert config.diff_ids == (DIGEST,)


def test_null_fields_count_as_absent() -> None:
    config = parse_config(
        encode({"config": {"Entrypoint": None, "Cmd": None, "Env": None, "Labels": None}, "rootfs": None})
    )
    assert config.run.entrypoint == ()
    assert config.diff_ids == ()


@pytest.mark.parametrize(
    "value",
    [
        {"rootfs": {"diff_ids": ["x"]}},
        {"config": {"Cmd": ["a\0b"]}},
        {"config": {"Env": ["a"] * 5000}},
        {"config": {"Cmd": "text"}},
        [],
    ],
)
def test_a_malformed_configuration_is_hostile(value: object) -> None:
    with pytest.raises(HostileError):
        parse_config(encode(value))


def test_another_architecture_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match="linux/arm64"):
        check(parse_config(encode({"os": "linux", "architecture": "arm64"})), (), ImageSettings(), "the image x")


def test_layers_and_digests_of_their_contents_must_be_as_many() -> None:
    with pytest.raises(HostileError):
        check(parse_config(encode({"rootfs": {"diff_ids": [DIGEST]}})), (), ImageSettings(), "the image x")


def test_too_many_and_too_large_layers_are_refused_by_the_setting_that_says_so() -> None:
    configuration = parse_config(encode({"rootfs": {"diff_ids": [DIGEST] * 3}}))
    layers = (Descriptor(DIGEST, 1 << 20),) * 3
    check(configuration, layers, ImageSettings(max_layers=3), "x")
    with pytest.raises(UnsupportedError, match="max_layers"):
        check(configuration, layers, ImageSettings(max_layers=2), "x")
    with pytest.raises(UnsupportedError, match="max_layer_bytes"):
        check(configuration, layers, ImageSettings(max_layer_bytes=1000), "x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["config", "layers", "manifests", "digest", "size", "mediaType", "rootfs", "diff_ids"]),
        inner, max_size=5,
    ),
    max_leaves=20,
)  # fmt: skip


@given(JSON.map(encode) | st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_by_an_error_of_ours(raw: bytes) -> None:
    for parser in (parse_manifest, parse_config):
        try:
            parser(raw)
        except CuboidError as error:
            assert error.message

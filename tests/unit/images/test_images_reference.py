from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.images.reference import host, is_loopback, parse, port
from cuboid.lib.errors import InvalidError

DIGEST = "sha256:" + "0f" * 32


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27-alpine", "docker.io/library/nginx:1.27-alpine"),
        ("team/app", "docker.io/team/app:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/demo/nginx:1", "localhost:5000/demo/nginx:1"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("registry.example/a/b/c_d__e--f.g:T.a-g", "registry.example/a/b/c_d__e--f.g:T.a-g"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"nginx:1@{DIGEST}", f"docker.io/library/nginx:1@{DIGEST}"),
    ],
)
def test_a_reference_is_normalised_as_docker_does(text: str, normalised: str) -> None:
    assert str(parse(text)) == normalised


@pytest.mark.parametrize(
    "text",
    [
        "", "UPPER", "a/UPPER", ":1", "nginx:", "nginx:-x", "nginx@", "nginx@sha256:ab", f"nginx@{DIGEST.upper()}",
        "a//b",
        "/a", "a/", "a b", "a\nb", "-a", "a-", "host:99999/a", "host:0/a", "ho_st.x/a", "a" * 300, "x:" + "t" * 129,
        "https://registry.example/a", "a/../b",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_digest_decides_the_key_and_a_tag_beside_it_does_not() -> None:
    assert parse(f"nginx:1@{DIGEST}").key == parse(f"nginx@{DIGEST}").key


def test_the_hub_is_reached_under_its_own_host() -> None:
    assert parse("nginx").endpoint == "registry-1.docker.io"
    assert parse("localhost:5000/x").endpoint == "localhost:5000"


def test_people_see_hub_names_short() -> None:
    assert parse("nginx:1").familiar == "nginx:1"
    assert parse("team/app").familiar == "team/app:latest"


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_known(name: str) -> None:
    assert is_loopback(name)


@pytest.mark.parametrize("name", ["10.0.0.1", "localhost.example", "127.0.0.1.example", "0.0.0.0", "128.0.0.1", ""])
def test_nothing_else_passes_for_loopback(name: str) -> None:
    assert not is_loopback(name)


def test_host_and_port_are_told_apart() -> None:
    assert (host("[::1]:5000"), port("[::1]:5000")) == ("::1", "5000")
    assert (host("a.example"), port("a.example")) == ("a.example", "")


@given(st.text(max_size=300) | st.from_regex(r"[a-z0-9.:/@_-]{1,60}", fullmatch=True))
def test_any_text_is_parsed_or_refused_and_parsing_is_stable(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidError:
        return
    assert parse(str(reference)) == reference
    assert parse(reference.key).key == reference.key

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.images.auth import config_path, find_credentials, parse_docker_config, read_docker_config
from cuboid.images.base import Credentials
from cuboid.images.tokens import parse_challenge
from cuboid.lib.errors import CuboidError, InvalidError, UnsupportedError


def basic(pair: str) -> str:
    return base64.b64encode(pair.encode()).decode()


def config(**fields: object) -> bytes:
    return json.dumps(fields).encode()


async def look_up(registry: str, raw: bytes) -> Credentials | None:
    return await find_credentials(registry, parse_docker_config(raw, "config.json"))


async def test_a_login_is_found_by_host_and_port() -> None:
    raw = config(auths={"r.example:5000": {"auth": basic("user:pass:word")}})
    assert await look_up("r.example:5000", raw) == Credentials("user", "pass:word")
    assert await look_up("r.example", raw) is None


async def test_old_keys_with_scheme_and_path_still_count() -> None:
    raw = config(auths={"https://r.example/v1/": {"auth": basic("u:p")}})
    assert await look_up("r.example", raw) == Credentials("u", "p")


async def test_the_hub_is_found_under_its_historic_key() -> None:
    raw = config(auths={"https://index.docker.io/v1/": {"auth": basic("u:p")}})
    assert await look_up("docker.io", raw) == Credentials("u", "p")


async def test_an_identity_token_is_taken() -> None:
    raw = config(auths={"r.example": {"auth": basic("u:"), "identitytoken": "tok"}})
    assert await look_up("r.example", raw) == Credentials("u", "", "tok")


async def test_an_empty_entry_is_no_login() -> None:
    assert await look_up("r.example", config(auths={"r.example": {}})) is None


@pytest.mark.parametrize("auth", ["!!!", basic("nocolon"), base64.b64encode(b"\xff:\xff").decode()])
async def test_a_malformed_entry_is_refused_without_showing_it(auth: str) -> None:
    with pytest.raises(InvalidError) as caught:
        await look_up("r.example", config(auths={"r.example": {"auth": auth}}))
    assert auth not in str(caught.value)


async def test_a_helper_that_is_not_installed_is_named() -> None:
    with pytest.raises(UnsupportedError, match="docker-credential-nosuchhelper"):
        await look_up("r.example", config(credHelpers={"r.example": "nosuchhelper"}))


@pytest.mark.parametrize("name", ["../evil", "a b", "", "-x"])
async def test_a_helper_with_an_impossible_name_is_never_started(name: str) -> None:
    with pytest.raises(InvalidError):
        await look_up("r.example", config(credHelpers={"r.example": name}))


async def test_credentials_never_show_in_a_representation() -> None:
    assert "geheim" not in repr(Credentials("u", "geheim", "geheim"))


def test_no_file_means_no_logins(tmp_path: Path) -> None:
    assert read_docker_config(tmp_path / "absent" / "config.json").auths == {}


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(InvalidError):
        read_docker_config(path)


def test_the_environment_says_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", "/x")
    assert config_path() == Path("/x/config.json")
    assert config_path("/y.json") == Path("/y.json")


KEYS = st.sampled_from(["auths", "credHelpers", "credsStore"])
VALUES = st.none() | st.text() | st.dictionaries(st.text(), st.text() | st.dictionaries(st.text(), st.text()))


@given(st.binary(max_size=100) | st.dictionaries(KEYS, VALUES).map(lambda value: json.dumps(value).encode()))
def test_any_docker_config_is_read_or_refused(raw: bytes) -> None:
    try:
        parse_docker_config(raw, "config.json")
    except CuboidError as error:
        assert "config.json" in error.message


def test_a_bearer_challenge_is_taken_apart() -> None:
    challenge = parse_challenge('Bearer realm="https://a.example/t?x=1,2",service="s",scope="repository:a/b:pull"')
    assert challenge is not None
    assert challenge.parameters == {
        "realm": "https://a.example/t?x=1,2", "service": "s", "scope": "repository:a/b:pull",
    }  # fmt: skip


def test_bearer_is_preferred_and_unknown_schemes_are_passed_over() -> None:
    both = parse_challenge('Negotiate, Basic realm="x", Bearer realm="https://t"')
    assert both is not None
    assert (both.scheme, both.parameters["realm"]) == ("bearer", "https://t")
    assert parse_challenge("Negotiate") is None
    assert parse_challenge("") is None


@given(st.text(max_size=300) | st.from_regex(r'(Bearer|Basic) ([a-z]+="?[^"]*"?,?)*', fullmatch=True))
def test_any_challenge_is_read_or_passed_over(header: str) -> None:
    challenge = parse_challenge(header)
    assert challenge is None or challenge.scheme in ("basic", "bearer")

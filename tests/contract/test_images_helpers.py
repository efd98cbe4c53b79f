"""Docker's credential helpers, as real programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuboid.images.auth import DockerConfig, find_credentials
from cuboid.images.base import Credentials
from cuboid.lib import proc
from cuboid.lib.errors import ProcessError, UnauthorizedError


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A helper's file, found before all others; the test writes its script."""
    monkeypatch.setattr(proc, "PATH", f"{tmp_path}:{proc.PATH}")
    path = tmp_path / "docker-credential-test"
    path.touch(mode=0o755)
    return path


async def ask(helper: Path, script: str, registry: str = "r.example") -> Credentials | None:
    helper.write_text(f"#!/bin/sh\n{script}\n")
    return await find_credentials(registry, DockerConfig(creds_store="test"))


async def test_a_helper_is_asked_for_the_registry_by_name(helper: Path) -> None:
    script = 'read server; printf \'{"ServerURL":"%s","Username":"u-%s","Secret":"p"}\' "$server" "$server"'
    assert await ask(helper, script) == Credentials("u-r.example", "p")
    assert await ask(helper, script, "docker.io") == Credentials("u-https://index.docker.io/v1/", "p")


async def test_a_token_from_a_helper_is_an_identity_token(helper: Path) -> None:
    answer = '{"Username":"<token>","Secret":"t"}'
    assert await ask(helper, f"echo '{answer}'") == Credentials(identity_token="t")


async def test_a_helper_that_knows_nothing_means_no_login(helper: Path) -> None:
    assert await ask(helper, "echo credentials not found in native keychain; exit 1") is None


@pytest.mark.parametrize("script", ["exit 1", "echo garbage", "echo '{}'"])
async def test_a_helper_that_fails_is_named_and_quotes_no_secret(helper: Path, script: str) -> None:
    with pytest.raises(UnauthorizedError, match="docker-credential-test"):
        await ask(helper, script)


async def test_a_helper_that_prints_without_end_is_ended(helper: Path) -> None:
    with pytest.raises(ProcessError, match="printed more than"):
        await ask(helper, "yes")

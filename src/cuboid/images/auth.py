"""Credentials for a registry: given, or from Docker's `config.json` (auths, credHelpers, credsStore)."""

from __future__ import annotations

import base64
import binascii
import os
import re
from pathlib import Path

import msgspec

from cuboid.images.base import Credentials
from cuboid.images.reference import DOCKER_HUB, HUB_ENDPOINT
from cuboid.lib import proc
from cuboid.lib.errors import InvalidError, UnauthorizedError

HUB_KEY = "https://index.docker.io/v1/"
_CONFIG_MAX = 1 << 20
_HELPER_TIMEOUT = 15.0  # seconds; a helper may ask a key ring or a cloud
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_TOKEN_USER = "<token>"  # noqa: S105 - the user name by which a helper says "identity token"


class _Auth(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""
    identitytoken: str = ""


class DockerConfig(msgspec.Struct, rename="camel"):
    """The part of `config.json` that names credentials."""

    auths: dict[str, _Auth] = {}
    cred_helpers: dict[str, str] = {}
    creds_store: str = ""


class _HelperAnswer(msgspec.Struct, rename="pascal"):
    username: str
    secret: str


def config_path(configured: str = "") -> Path:
    if configured:
        return Path(configured)
    folder = os.environ.get("DOCKER_CONFIG")
    return (Path(folder) if folder else Path.home() / ".docker") / "config.json"


def parse_docker_config(raw: bytes, where: str) -> DockerConfig:
    """InvalidError naming the file if it is malformed."""
    try:
        return msgspec.json.decode(raw, type=DockerConfig)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidError(f"{where} is not a valid Docker configuration: {error}") from error


def read_docker_config(path: Path) -> DockerConfig:
    try:
        with path.open("rb") as file:
            raw = file.read(_CONFIG_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return DockerConfig()
    except OSError as error:
        raise InvalidError(f"cannot read {path}: {error.strerror}") from error
    if len(raw) > _CONFIG_MAX:
        raise InvalidError(f"{path} is larger than {_CONFIG_MAX >> 10} KiB")
    return parse_docker_config(raw, str(path))


async def find_credentials(registry: str, config: DockerConfig) -> Credentials | None:
    """What Docker would use for `registry`: its own helper, else the common store, else the file."""
    keys = _keys(registry)
    for key in keys:
        if key in config.cred_helpers:
            return await _ask_helper(config.cred_helpers[key], key)
    if config.creds_store:
        found = await _ask_helper(config.creds_store, keys[0])
        if found:
            return found
    by_host = {_host_of(key): auth for key, auth in config.auths.items()}
    for key in keys:
        auth = config.auths.get(key) or by_host.get(key)
        if auth:
            return decode_auth(auth, registry)
    return None


def _keys(registry: str) -> list[str]:
    if registry == DOCKER_HUB:
        return [HUB_KEY, "index.docker.io", DOCKER_HUB, HUB_ENDPOINT]
    return [registry, f"https://{registry}", f"http://{registry}"]


def _host_of(key: str) -> str:
    return key.partition("://")[2].partition("/")[0] if "://" in key else key.partition("/")[0]


def decode_auth(auth: _Auth, registry: str) -> Credentials | None:
    """`auth` is base64 of USER:PASSWORD and wins over the fields beside it, as in Docker."""
    username, password = auth.username, auth.password
    if auth.auth:
        try:
            username, colon, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise InvalidError(f"Docker's configuration has a malformed entry for {registry}") from error
        if not colon:
            raise InvalidError(f"Docker's configuration has an entry without a password for {registry}")
        password = password.strip("\0")
    if not username and not auth.identitytoken:
        return None
    return Credentials(username, password, auth.identitytoken)


async def _ask_helper(name: str, server: str) -> Credentials | None:
    if not _HELPER_NAME.fullmatch(name):
        raise InvalidError(f"Docker's configuration names the credential helper {name[:40]!r}, which is no name")
    program = f"docker-credential-{name}"
    env = {"HOME": str(Path.home())}
    result = await proc.run(
        [proc.find(program, package=program), "get"], stdin=server.encode() + b"\n", timeout=_HELPER_TIMEOUT,
        check=False, env=env, output_limit=65536,
    )  # fmt: skip
    if result.returncode != 0:
        if b"not found" in result.stdout + result.stderr:
            return None
        raise UnauthorizedError(
            f"the credential helper {program} failed for {server}", hint=f"echo {server} | {program} get"
        )
    try:
        answer = msgspec.json.decode(result.stdout, type=_HelperAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnauthorizedError(f"the credential helper {program} gave no credentials for {server}") from error
    if answer.username == _TOKEN_USER:
        return Credentials(identity_token=answer.secret)
    return Credentials(answer.username, answer.secret)

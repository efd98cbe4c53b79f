"""Pull and push against a real registry: open, with a password, with tokens, with TLS."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ipaddress
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

from cuboid.images.base import Credentials, ImageConfig, Phase, Progress
from cuboid.images.manifest import DOCKER_CONFIG, DOCKER_LIST, DOCKER_MANIFEST, OCI_MANIFEST
from cuboid.images.push import push_layout, read_layout
from cuboid.images.store import LocalImageStore
from cuboid.lib.errors import HostileError, NotFoundError, UnauthorizedError, UnavailableError
from tests.harness.fake_registry import Answer, Request, fake_registry
from tests.harness.images import make_layout, make_tar, sha256, small_settings
from tests.harness.registry import RegistryOptions, free_port, running_registry

USER = Credentials("user", "secret")
HTPASSWD = "user:$2b$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"  # "secret"
CONFIG = ImageConfig(entrypoint=("/app",), cmd=("-v",), env=("A=b",), exposed_ports=("80/tcp",), labels={"k": "v"})


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    layers = [make_tar([("base", os.urandom(2 << 20))]), make_tar([("app", b"#!")]), make_tar([(".wh.none", b"")])]
    return make_layout(tmp_path / "build", layers, CONFIG)


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[str]:
    async with running_registry(tmp_path) as host:
        yield host


def store(tmp: Path, **changes: object) -> LocalImageStore:
    return LocalImageStore(tmp / "images", settings=small_settings(**changes))


async def test_what_was_pushed_is_pulled(registry: str, layout: Path, tmp_path: Path) -> None:
    digest = await push_layout(layout, f"{registry}/demo/app:1", settings=small_settings())
    steps: list[Progress] = []
    image = await store(tmp_path).pull(f"{registry}/demo/app:1", progress=steps.append)
    assert (image.digest, image.config, image.architecture) == (digest, CONFIG, "amd64")
    assert image.names == (f"{registry}/demo/app:1",)
    assert image.device_bytes == image.device.stat().st_size > 2 << 20
    assert image.device.stat().st_mode & 0o777 == 0o400
    phases = list(dict.fromkeys(step.phase for step in steps))
    assert phases == [Phase.RESOLVE, Phase.DOWNLOAD, Phase.CONVERT, Phase.DONE]
    downloads = [step for step in steps if step.phase is Phase.DOWNLOAD]
    assert downloads[-1].done == downloads[-1].total > 0


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_every_compression_gives_the_same_device(
    registry: str, layout: Path, tmp_path: Path, compression: str
) -> None:
    layers = [make_tar([("base", b"b" * 100_000)]), make_tar([("app", b"#!")])]
    packed = make_layout(tmp_path / compression, layers, CONFIG, compression)
    await push_layout(packed, f"{registry}/{compression}:1", settings=small_settings())
    image = await store(tmp_path).pull(f"{registry}/{compression}:1")
    assert sha256(image.device.read_bytes()) == sha256((await imported(tmp_path, layers)).read_bytes())


async def imported(tmp: Path, layers: list[bytes]) -> Path:
    other = LocalImageStore(tmp / "other", settings=small_settings())
    [image] = await other.import_archive(make_layout(tmp / "again", layers, CONFIG))
    return image.device


async def test_an_image_is_found_by_tag_id_short_id_and_digest(registry: str, layout: Path, tmp_path: Path) -> None:
    await push_layout(layout, f"{registry}/demo/app:1", settings=small_settings())
    images = store(tmp_path)
    image = await images.pull(f"{registry}/demo/app:1")
    for reference in (
        f"{registry}/demo/app:1", image.id, image.id[7:19], f"{registry}/demo/app@{image.digest}",
        f"{registry}/demo/app:other@{image.digest}",
    ):  # fmt: skip
        assert await images.resolve(reference) == image
    for reference in (f"{registry}/demo/app:2", f"{registry}/demo/other@{image.digest}", "sha256:" + "0" * 64):
        assert await images.resolve(reference) is None


async def test_resolve_answers_in_less_than_a_millisecond(registry: str, layout: Path, tmp_path: Path) -> None:
    await push_layout(layout, f"{registry}/demo/app:1", settings=small_settings())
    images = store(tmp_path)
    await images.pull(f"{registry}/demo/app:1")
    await asyncio.sleep(0.06)
    started = time.perf_counter()
    for _ in range(100):
        await images.resolve(f"{registry}/demo/app:1")
    assert (time.perf_counter() - started) / 100 < 0.001


async def test_a_pinned_image_is_pulled_by_its_digest(registry: str, layout: Path, tmp_path: Path) -> None:
    digest = await push_layout(layout, f"{registry}/demo/app:1", settings=small_settings())
    image = await store(tmp_path).pull(f"{registry}/demo/app@{digest}")
    assert image.names == (f"{registry}/demo/app@{digest}",)
    assert image.digest == digest


async def test_an_index_and_dockers_manifests_lead_to_the_same_image(
    registry: str, layout: Path, tmp_path: Path
) -> None:
    await push_layout(layout, f"{registry}/app:oci", settings=small_settings())
    _, raw = read_layout(layout)
    manifest = json.loads(raw)
    manifest["mediaType"], manifest["config"]["mediaType"] = DOCKER_MANIFEST, DOCKER_CONFIG
    for layer in manifest["layers"]:
        layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    docker = json.dumps(manifest).encode()
    await put_manifest(registry, "app", "docker", docker, DOCKER_MANIFEST)
    entry = {"mediaType": DOCKER_MANIFEST, "digest": sha256(docker), "size": len(docker)}
    other = {**entry, "platform": {"os": "linux", "architecture": "arm64"}}
    ours = {**entry, "platform": {"os": "linux", "architecture": "amd64"}}
    index = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [other, ours]}).encode()
    await put_manifest(registry, "app", "index", index, DOCKER_LIST)
    images = store(tmp_path)
    found = [await images.pull(f"{registry}/app:{tag}") for tag in ("oci", "docker", "index")]
    assert len({image.id for image in found}) == len({image.device for image in found}) == 1
    assert len(found[-1].names) == 3
    assert await images.resolve(f"{registry}/app@{sha256(index)}") is not None


async def put_manifest(registry: str, name: str, tag: str, raw: bytes, kind: str = OCI_MANIFEST) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"http://{registry}/v2/{name}/manifests/{tag}"
        response = await client.put(url, content=raw, headers={"Content-Type": kind})
        assert response.status_code == 201, response.text


async def test_a_tag_that_moved_names_the_new_image(registry: str, layout: Path, tmp_path: Path) -> None:
    images = store(tmp_path)
    await push_layout(layout, f"{registry}/app:1", settings=small_settings())
    old = await images.pull(f"{registry}/app:1")
    newer = make_layout(tmp_path / "newer", [make_tar([("x", b"new")])])
    await push_layout(newer, f"{registry}/app:1", settings=small_settings())
    new = await images.pull(f"{registry}/app:1")
    assert new.id != old.id
    assert await images.resolve(f"{registry}/app:1") == new
    stale = await images.resolve(old.id)
    assert stale is not None
    assert stale.names == ()


async def test_an_unknown_tag_and_an_unknown_repository_are_not_found(
    registry: str, layout: Path, tmp_path: Path
) -> None:
    await push_layout(layout, f"{registry}/app:1", settings=small_settings())
    for reference in ("app:2", "nothing:1"):
        with pytest.raises(NotFoundError, match="does not exist"):
            await store(tmp_path).pull(f"{registry}/{reference}")


async def test_a_second_push_sends_nothing_again(registry: str, layout: Path, tmp_path: Path) -> None:
    first = await push_layout(layout, f"{registry}/app:1", settings=small_settings())
    assert await push_layout(layout, f"{registry}/app:2", settings=small_settings()) == first


async def test_corruption_in_a_real_registrys_storage_is_caught(registry: str, layout: Path, tmp_path: Path) -> None:
    await push_layout(layout, f"{registry}/app:1", settings=small_settings())
    [blob] = [path for path in (tmp_path / "data").rglob("data") if path.stat().st_size > 1 << 20]
    damaged = bytearray(blob.read_bytes())
    damaged[1 << 19] ^= 1
    blob.write_bytes(damaged)
    with pytest.raises(HostileError, match="digest"):
        await store(tmp_path).pull(f"{registry}/app:1")


# --- logins -----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[str]:
    (tmp_path / "htpasswd").write_text(HTPASSWD)
    async with running_registry(tmp_path, RegistryOptions(htpasswd=tmp_path / "htpasswd")) as host:
        yield host


async def test_a_password_opens_a_private_registry(locked: str, layout: Path, tmp_path: Path) -> None:
    await push_layout(layout, f"{locked}/app:1", settings=small_settings(), credentials=USER)
    assert (await store(tmp_path).pull(f"{locked}/app:1", credentials=USER)).device.exists()


async def test_docker_logins_are_used(locked: str, layout: Path, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    auth = base64.b64encode(b"user:secret").decode()
    file.write_text(json.dumps({"auths": {locked: {"auth": auth}}}))
    await push_layout(layout, f"{locked}/app:1", settings=small_settings(docker_config=str(file)))
    assert (await store(tmp_path, docker_config=str(file)).pull(f"{locked}/app:1")).device.exists()


async def test_a_missing_and_a_wrong_login_are_told_apart(locked: str, tmp_path: Path) -> None:
    with pytest.raises(UnauthorizedError, match="wants a login"):
        await store(tmp_path).pull(f"{locked}/app:1")
    with pytest.raises(UnauthorizedError, match="refused the login"):
        await store(tmp_path).pull(f"{locked}/app:1", credentials=Credentials("user", "wrong"))


class Authority:
    """A certificate of its own: signs tokens, and serves TLS for localhost."""

    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
        now = datetime.datetime.now(datetime.UTC)
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        self.file, self.key_file = folder / "cert.pem", folder / "key.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))
        self.key_file.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def token(self, repository: str) -> str:
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {
            "iss": "test-issuer", "aud": "test-registry", "sub": "user", "jti": "1", "iat": now, "nbf": now - 5,
            "exp": now + 300, "access": [{"type": "repository", "name": repository, "actions": ["pull", "push"]}],
        }  # fmt: skip
        signed = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


async def test_tokens_are_fetched_with_the_login_and_shown_to_the_registry(layout: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    expected = "Basic " + base64.b64encode(b"user:secret").decode()

    def give(request: Request) -> Answer | None:
        if not request.path.startswith("/token"):
            return None
        if request.headers.get("authorization") != expected:
            return Answer(401)
        return Answer(body=json.dumps({"token": authority.token("app")}).encode())

    async with fake_registry() as tokens:
        tokens.handler = give
        options = RegistryOptions(token_realm=f"http://{tokens.host}/token", token_root=authority.file)
        async with running_registry(tmp_path, options) as host:
            await push_layout(layout, f"{host}/app:1", settings=small_settings(), credentials=USER)
            assert (await store(tmp_path).pull(f"{host}/app:1", credentials=USER)).device.exists()
            assert any("scope=repository%3Aapp%3Apull" in request.path for request in tokens.requests)
            with pytest.raises(UnauthorizedError):
                await store(tmp_path).pull(f"{host}/app:1", credentials=Credentials("user", "wrong"))


async def test_an_identity_token_is_exchanged(layout: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with fake_registry() as tokens:
        tokens.handler = lambda r: (
            Answer(body=json.dumps({"access_token": authority.token("app")}).encode()) if r.method == "POST" else None
        )
        options = RegistryOptions(token_realm=f"http://{tokens.host}/token", token_root=authority.file)
        async with running_registry(tmp_path, options) as host:
            given = Credentials(identity_token="refresh")
            await push_layout(layout, f"{host}/app:1", settings=small_settings(), credentials=given)
            assert (await store(tmp_path).pull(f"{host}/app:1", credentials=given)).device.exists()


async def test_tls_is_spoken_with_an_authority_that_is_trusted(layout: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    options = RegistryOptions(certificate=authority.file, key=authority.key_file)
    async with running_registry(tmp_path, options) as host:
        trusting = small_settings(ca_file=str(authority.file))
        await push_layout(layout, f"{host}/app:1", settings=trusting)
        assert (await store(tmp_path, ca_file=str(authority.file)).pull(f"{host}/app:1")).device.exists()
        with pytest.raises(UnavailableError, match="not trusted"):
            await LocalImageStore(tmp_path / "strict", settings=small_settings()).pull(f"{host}/app:1")


async def test_nobody_listening_is_said_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="connection refused"):
        await store(tmp_path).pull(f"localhost:{free_port()}/app:1")
    assert time.monotonic() - started < 2

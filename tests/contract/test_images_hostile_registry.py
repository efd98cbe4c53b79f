"""Registries that lie, stall, drop and wander: each told apart in one sentence, nothing left behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cuboid.images.base import Credentials
from cuboid.images.settings import ImageSettings
from cuboid.images.store import LocalImageStore
from cuboid.images.transport import Transport
from cuboid.lib import proc
from cuboid.lib.errors import (
    CuboidError,
    DeadlineError,
    ExhaustedError,
    HostileError,
    NotFoundError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedError,
)
from tests.harness.fake_registry import Answer, FakeRegistry, Request, fake_registry, ranged
from tests.harness.images import make_tar, small_settings

LAYER = make_tar([("file", os.urandom(3 << 20))])


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with fake_registry() as registry:
        yield registry


def make_store(tmp: Path, **changes: object) -> LocalImageStore:
    return LocalImageStore(tmp / "images", settings=small_settings(**changes))


async def failure(store: LocalImageStore, reference: str, credentials: Credentials | None = None) -> CuboidError:
    with pytest.raises(CuboidError) as caught:
        await store.pull(reference, credentials=credentials)
    error = caught.value
    assert "\n" not in str(error)
    assert len(str(error)) < 400
    assert store.images() == []
    return error


def left(tmp: Path) -> list[str]:
    """Files of the store beside its locks and emptied folders."""
    root = tmp / "images"
    return [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.parent.name != "locks"]


async def test_a_well_behaved_registry_is_pulled_from(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.add_image("app", "1", LAYER)
    image = await make_store(tmp_path).pull(f"{registry.host}/app:1")
    assert image.device.exists()
    assert image.names == (f"{registry.host}/app:1",)
    assert [Path(name).parts[0] for name in left(tmp_path)].count("devices") == 1
    assert not [name for name in left(tmp_path) if name.startswith(("blobs", "work"))]


async def test_an_unknown_image_is_not_found(registry: FakeRegistry, tmp_path: Path) -> None:
    error = await failure(make_store(tmp_path), f"{registry.host}/app:1")
    assert isinstance(error, NotFoundError)
    assert f"{registry.host}/app:1" in error.message
    assert error.hint


async def test_a_registry_that_is_down_is_unavailable(tmp_path: Path) -> None:
    error = await failure(make_store(tmp_path), "127.0.0.1:1/app")
    assert isinstance(error, UnavailableError)
    assert "refused" in error.message


async def test_a_lying_layer_is_hostile_and_leaves_nothing(registry: FakeRegistry, tmp_path: Path) -> None:
    [digest] = registry.add_image("app", "1", LAYER)
    registry.objects[f"app/blobs/{digest}"] = LAYER[:-1] + b"!"
    error = await failure(make_store(tmp_path), f"{registry.host}/app:1")
    assert isinstance(error, HostileError)
    assert digest in error.message
    assert left(tmp_path) == []


async def test_a_lying_configuration_is_hostile(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.add_image("app", "1", LAYER)
    for name in [n for n in registry.objects if "/blobs/" in n and len(registry.objects[n]) < 1000]:
        registry.objects[name] = registry.objects[name][:-1] + b" "
    assert isinstance(await failure(make_store(tmp_path), f"{registry.host}/app:1"), HostileError)


async def test_a_pinned_manifest_with_another_digest_is_hostile(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.add_image("app", "1", LAYER)
    pinned = "sha256:" + "12" * 32
    registry.objects[f"app/manifests/{pinned}"] = registry.objects["app/manifests/1"]
    error = await failure(make_store(tmp_path), f"{registry.host}/app@{pinned}")
    assert isinstance(error, HostileError)


async def test_a_layer_with_another_digest_inside_than_stated_is_hostile(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.add_image("app", "1", LAYER, rootfs={"type": "layers", "diff_ids": ["sha256:" + "34" * 32]})
    assert isinstance(await failure(make_store(tmp_path), f"{registry.host}/app:1"), HostileError)
    assert left(tmp_path) == []


async def test_another_architecture_is_unsupported_by_name(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.add_image("app", "1", LAYER, architecture="arm64")
    error = await failure(make_store(tmp_path), f"{registry.host}/app:1")
    assert isinstance(error, UnsupportedError)
    assert "linux/arm64" in error.message
    assert len(registry.asked("/blobs/")) == 1  # the configuration


def blobs(answer: Answer) -> Callable[[Request], Answer | None]:
    """A handler that gives `answer` for layers (not for the small configuration)."""

    def handle(request: Request) -> Answer | None:
        return answer if "/blobs/" in request.path and not _is_config(request) else None

    return handle


def _is_config(request: Request) -> bool:
    return "range" not in request.headers and request.path in CONFIG_PATHS


CONFIG_PATHS: set[str] = set()


@pytest.fixture
def app(registry: FakeRegistry) -> FakeRegistry:
    """The registry with one image; handlers can tell its layer from its configuration."""
    registry.add_image("app", "1", LAYER)
    CONFIG_PATHS.clear()
    CONFIG_PATHS.update(f"/v2/{name}" for name, raw in registry.objects.items() if "/blobs/" in name and raw != LAYER)
    return registry


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(body=LAYER[:100_000], length=len(LAYER)), UnavailableError),  # truncated
        (Answer(body=LAYER[:100_000]), UnavailableError),  # short, and says so
        (Answer(body=LAYER + b"more"), HostileError),
        (Answer(body=bytes(65536), endless=True), HostileError),
        (Answer(body=LAYER, length=10), (HostileError, UnavailableError)),
        (Answer(500), UnavailableError),
        (Answer(404), NotFoundError),
        (Answer(206, {"Content-Range": "bytes 5-9/10"}, b"12345"), UnavailableError),
        (Answer(302, {"Location": "/v2/loop"}), NotFoundError),
        (Answer(302, {"Location": "http://192.0.2.1/x"}), HostileError),
        (Answer(302, {"Location": "file:///etc/passwd"}), HostileError),
        (Answer(302, {"Location": "http://[bad"}), HostileError),
    ],
)
async def test_layers_served_wrongly_are_refused(
    app: FakeRegistry, tmp_path: Path, answer: Answer, kind: type[CuboidError]
) -> None:
    app.handler = blobs(answer)
    store = make_store(tmp_path, attempts=2)
    assert isinstance(await failure(store, f"{app.host}/app:1"), kind)
    assert not [name for name in left(tmp_path) if not name.endswith(".part")]


async def test_a_redirect_loop_is_hostile(app: FakeRegistry, tmp_path: Path) -> None:
    app.handler = lambda r: Answer(302, {"Location": r.path}) if "/manifests/" in r.path else None
    assert isinstance(await failure(make_store(tmp_path), f"{app.host}/app:1"), HostileError)


async def test_a_trickling_manifest_meets_the_deadline(app: FakeRegistry, tmp_path: Path) -> None:
    app.handler = lambda r: Answer(body=b" " * 10_000, pause=0.02) if "/manifests/" in r.path else None
    started = asyncio.get_running_loop().time()
    error = await failure(make_store(tmp_path, request_deadline=0.5), f"{app.host}/app:1")
    assert isinstance(error, DeadlineError)
    assert asyncio.get_running_loop().time() - started < 3


async def test_a_trickling_layer_meets_the_slowest_rate(
    app: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cuboid.images.download._SLACK", 0.3)
    app.handler = blobs(Answer(body=LAYER, pause=0.02))
    error = await failure(make_store(tmp_path, min_rate=1 << 30), f"{app.host}/app:1")
    assert isinstance(error, DeadlineError)


async def test_a_huge_manifest_is_cut_off(app: FakeRegistry, tmp_path: Path) -> None:
    app.handler = lambda r: Answer(body=b" " * 65536, endless=True) if "/manifests/" in r.path else None
    error = await failure(make_store(tmp_path), f"{app.host}/app:1")
    assert isinstance(error, HostileError)
    assert "more than" in error.message


async def test_too_many_requests_are_waited_out(app: FakeRegistry, tmp_path: Path) -> None:
    refusals = iter([429, 503, 429])

    def handle(request: Request) -> Answer | None:
        status = next(refusals, None) if "/manifests/" in request.path else None
        return Answer(status, {"Retry-After": "0"}) if status else None

    app.handler = handle
    assert (await make_store(tmp_path).pull(f"{app.host}/app:1")).device.exists()
    assert len(app.asked("/manifests/")) == 4


async def test_an_interrupted_layer_goes_on_where_it_stopped(app: FakeRegistry, tmp_path: Path) -> None:
    cuts = iter([1 << 20, 2 << 20])

    def handle(request: Request) -> Answer | None:
        if "/blobs/" not in request.path or _is_config(request) or (cut := next(cuts, None)) is None:
            return None
        answer = ranged(request, LAYER)
        answer.hang_up_after = cut - int(request.headers.get("range", "bytes=0-")[6:].partition("-")[0])
        return answer

    app.handler = handle
    await make_store(tmp_path).pull(f"{app.host}/app:1")
    ranges = [r.headers.get("range") for r in app.asked("/blobs/") if not _is_config(r)]
    assert ranges == [None, f"bytes={1 << 20}-{len(LAYER) - 1}", f"bytes={2 << 20}-{len(LAYER) - 1}"]


async def test_a_restart_goes_on_from_the_partial_file(app: FakeRegistry, tmp_path: Path) -> None:
    app.handler = blobs(Answer(body=LAYER, hang_up_after=1 << 20))
    await failure(make_store(tmp_path, attempts=1), f"{app.host}/app:1")
    app.handler = lambda request: None
    app.requests.clear()
    again = make_store(tmp_path)
    await again.sweep()
    await again.pull(f"{app.host}/app:1")
    [layer] = [r for r in app.asked("/blobs/") if not _is_config(r)]
    assert layer.headers["range"] == f"bytes={1 << 20}-{len(LAYER) - 1}"


async def test_a_damaged_partial_file_is_fetched_anew(app: FakeRegistry, tmp_path: Path) -> None:
    store = make_store(tmp_path)
    [name] = [n for n in app.objects if app.objects[n] == LAYER]
    part = tmp_path / "images" / "blobs" / (name.rpartition("/")[2].replace(":", "-") + ".part")
    part.write_bytes(b"rubbish" * 1000)
    assert (await store.pull(f"{app.host}/app:1")).device.exists()


async def test_a_registry_without_ranges_is_read_from_the_start(app: FakeRegistry, tmp_path: Path) -> None:
    first = iter([True])

    def handle(request: Request) -> Answer | None:
        if "/blobs/" not in request.path or _is_config(request):
            return None
        return Answer(body=LAYER, hang_up_after=1 << 20 if next(first, False) else None)

    app.handler = handle
    assert (await make_store(tmp_path).pull(f"{app.host}/app:1")).device.exists()


async def test_credentials_do_not_follow_a_redirect_to_another_host(app: FakeRegistry, tmp_path: Path) -> None:
    async with fake_registry("127.0.0.2") as other:
        other.objects.update(app.objects)

        def handle(request: Request) -> Answer | None:
            if "authorization" not in request.headers and request.path != "/v2/":
                return Answer(401, {"WWW-Authenticate": 'Basic realm="x"'})
            if "/blobs/" in request.path:
                return Answer(307, {"Location": f"http://{other.host}{request.path}"})
            return None

        app.handler = handle
        image = await make_store(tmp_path).pull(f"{app.host}/app:1", credentials=Credentials("u", "p"))
        assert image.device.exists()
        assert len(other.requests) == 2
        assert all("authorization" not in request.headers for request in other.requests)


async def test_credentials_do_not_go_to_a_token_server_elsewhere_without_encryption(
    app: FakeRegistry, tmp_path: Path
) -> None:
    challenge = {"WWW-Authenticate": 'Bearer realm="http://tokens.example/t",service="s"'}
    app.handler = lambda r: Answer(401, challenge) if r.path != "/v2/" else None
    error = await failure(make_store(tmp_path), f"{app.host}/app:1", Credentials("u", "p"))
    assert isinstance(error, HostileError)
    assert "without encryption" in error.message


async def test_a_registry_elsewhere_cannot_name_a_service_of_this_host_as_its_token_server() -> None:
    """Not even one that may be spoken with in plain: it would be given the credentials, and a request at its choice."""
    transport = Transport("registry.example", ImageSettings(insecure_registries=("registry.example",)))
    try:
        assert transport.may_send_secrets("http://registry.example/token")
        assert [
            url for url in ("http://127.0.0.1:9/t", "http://[::1]/t", "file:///t") if transport.may_send_secrets(url)
        ] == []
    finally:
        await transport.close()


async def test_a_token_server_that_answers_garbage_is_hostile(app: FakeRegistry, tmp_path: Path) -> None:
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{app.host}/token",service="s"'}

    def handle(request: Request) -> Answer | None:
        if request.path.startswith("/token"):
            return Answer(body=b"[[[")
        return Answer(401, challenge) if request.path != "/v2/" else None

    app.handler = handle
    assert isinstance(await failure(make_store(tmp_path), f"{app.host}/app:1"), HostileError)


async def test_a_login_that_is_refused_again_and_again_ends(app: FakeRegistry, tmp_path: Path) -> None:
    app.handler = lambda r: Answer(401, {"WWW-Authenticate": 'Basic realm="x"'}) if r.path != "/v2/" else None
    error = await failure(make_store(tmp_path), f"{app.host}/app:1", Credentials("u", "wrong"))
    assert isinstance(error, UnauthorizedError)
    assert "wrong" not in str(error)
    assert len(app.requests) < 5
    assert isinstance(await failure(make_store(tmp_path), f"{app.host}/app:1"), UnauthorizedError)


async def test_no_space_is_said_before_the_disk_is_full(app: FakeRegistry, tmp_path: Path) -> None:
    error = await failure(make_store(tmp_path, min_free_bytes=1 << 60), f"{app.host}/app:1")
    assert isinstance(error, ExhaustedError)
    assert "MiB are free" in error.message
    assert left(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
async def test_a_disk_that_fills_up_on_the_way_is_put_into_words(app: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", tmp_path / "images")
    await proc.run(mount, timeout=10)  # the layer fits, its device does not
    try:
        error = await failure(make_store(tmp_path, min_free_bytes=0), f"{app.host}/app:1")
        assert isinstance(error, ExhaustedError)
        assert "no space" in error.message
        assert left(tmp_path) == []
    finally:
        await proc.run(["umount", tmp_path / "images"], timeout=10)


async def test_plain_http_is_never_tried_beyond_loopback(tmp_path: Path) -> None:
    transport = Transport("registry.example", ImageSettings())
    assert await transport.base() == "https://registry.example"
    await transport.close()

"""The store: names, holds, archives, many callers at once, and death at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import sys
import tarfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cuboid.images.base import Image, ImageConfig, ImageStore, Progress
from cuboid.images.build import image_config, tar_layout
from cuboid.images.store import LocalImageStore
from cuboid.lib.clock import ManualClock
from cuboid.lib.errors import (
    ConflictError,
    CuboidError,
    HostileError,
    InvalidError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from tests.harness.fake_registry import Answer, FakeRegistry, Handler, Request, fake_registry
from tests.harness.images import make_layout, make_tar, sha256, small_settings, symlink

LAYERS = [make_tar([("base", b"b" * 50_000)]), make_tar([("top", b"t")])]
BIG = make_tar([("file", os.urandom(2 << 20))])


@pytest.fixture
def store(tmp_path: Path) -> LocalImageStore:
    return LocalImageStore(tmp_path / "images", settings=small_settings())


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with fake_registry() as registry:
        yield registry


async def bring(
    store: LocalImageStore, tmp: Path, name: str, *layers: bytes, config: ImageConfig | None = None
) -> Image:
    layout = make_layout(tmp / name.replace("/", "-").replace(":", "-"), layers or LAYERS, config)
    [image] = await store.import_archive(layout, name=name)
    return image


def test_the_store_keeps_its_contract(store: LocalImageStore) -> None:
    contract: ImageStore = store  # mypy compares every signature
    assert contract.images() == []


# --- names and removal ------------------------------------------------------------------------------------------------


async def test_images_are_listed_latest_first(tmp_path: Path) -> None:
    clock = ManualClock()
    store = LocalImageStore(tmp_path / "images", settings=small_settings(), clock=clock)
    for name in ("one", "two"):
        clock.advance(1)
        await bring(store, tmp_path, name, make_tar([(name, b"")]))
    assert [image.names for image in store.images()] == [
        ("docker.io/library/two:latest",), ("docker.io/library/one:latest",),
    ]  # fmt: skip


async def test_removing_one_of_two_names_keeps_the_image(store: LocalImageStore, tmp_path: Path) -> None:
    image = await bring(store, tmp_path, "one:1")
    assert (await bring(store, tmp_path, "two:1")).id == image.id
    assert await store.remove("one:1") == ["docker.io/library/one:1"]
    assert await store.resolve("one:1") is None
    assert image.device.exists()
    assert await store.remove("two:1") == ["docker.io/library/two:1", image.id]
    assert not image.device.exists()
    assert store.images() == []


async def test_removing_by_id_takes_all_names(store: LocalImageStore, tmp_path: Path) -> None:
    image = await bring(store, tmp_path, "one:1")
    await bring(store, tmp_path, "two:1")
    assert set(await store.remove(image.id)) == {"docker.io/library/one:1", "docker.io/library/two:1", image.id}
    assert store.images() == []


async def test_images_with_equal_layers_share_a_device_until_the_last_goes(
    store: LocalImageStore, tmp_path: Path
) -> None:
    one = await bring(store, tmp_path, "one:1", config=ImageConfig(cmd=("one",)))
    two = await bring(store, tmp_path, "two:1", config=ImageConfig(cmd=("two",)))
    assert one.id != two.id
    assert one.device == two.device
    await store.remove("one:1")
    assert two.device.exists()
    await store.remove("two:1")
    assert not two.device.exists()


async def test_removing_what_is_not_here_is_not_found(store: LocalImageStore) -> None:
    with pytest.raises(NotFoundError, match="no image nginx:1"):
        await store.remove("nginx:1")


async def test_a_held_image_stays_until_its_pods_are_gone(store: LocalImageStore, tmp_path: Path) -> None:
    image = await bring(store, tmp_path, "app:1")
    for _ in range(2):
        store.hold(image, "pod-a")
    store.hold(image, "pod-b")
    assert store.holders() == {"pod-a", "pod-b"}
    store.release("pod-a")
    store.release("pod-a")
    with pytest.raises(ConflictError, match="used by 1 pod"):
        await store.remove("app:1")
    assert await store.resolve("app:1") == image
    store.release("pod-b")
    assert image.id in await store.remove("app:1")


async def test_holds_and_records_survive_a_restart(store: LocalImageStore, tmp_path: Path) -> None:
    image = await bring(store, tmp_path, "app:1")
    store.hold(image, "pod")
    again = LocalImageStore(tmp_path / "images", settings=small_settings())
    await again.sweep()
    assert again.holders() == {"pod"}
    assert again.images() == [image]


async def test_an_image_that_was_removed_cannot_be_held(store: LocalImageStore, tmp_path: Path) -> None:
    image = await bring(store, tmp_path, "app:1")
    await store.remove("app:1")
    with pytest.raises(NotFoundError):
        store.hold(image, "pod")
    assert store.holders() == set()


@pytest.mark.parametrize("uid", ["", "../x", "a/b", ".", "x" * 300])
async def test_a_pods_uid_cannot_be_a_path(store: LocalImageStore, tmp_path: Path, uid: str) -> None:
    image = await bring(store, tmp_path, "app:1")
    with pytest.raises(InvalidError):
        store.hold(image, uid)


async def test_two_stores_on_one_folder_see_each_others_images(store: LocalImageStore, tmp_path: Path) -> None:
    other = LocalImageStore(tmp_path / "images", settings=small_settings())
    assert await other.resolve("app:1") is None
    image = await bring(store, tmp_path, "app:1")
    assert await other.resolve("app:1") == image
    await other.remove("app:1")
    assert await store.resolve("app:1") is None


# --- archives ---------------------------------------------------------------------------------------------------------


def docker_save(tmp: Path, layers: list[bytes], tags: list[str] | None, *, link: bool = False) -> Path:
    """An archive as `docker save` wrote it before version 25."""
    config = image_config(ImageConfig(cmd=("x",)), [sha256(layer) for layer in layers])
    members: list[tarfile.TarInfo | tuple[str, bytes] | tuple[tarfile.TarInfo, bytes]] = [("c.json", config)]
    members += [(f"{number}/layer.tar", layer) for number, layer in enumerate(layers)]
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    if link:
        members.append(symlink("alias/layer.tar", "../0/layer.tar"))
        names[0] = "alias/layer.tar"
    members.append(("manifest.json", json.dumps([{"Config": "c.json", "RepoTags": tags, "Layers": names}]).encode()))
    path = tmp / "saved.tar"
    path.write_bytes(make_tar(members))
    return path


@pytest.mark.parametrize("link", [False, True])
async def test_a_docker_save_archive_is_imported_under_its_tags(
    store: LocalImageStore, tmp_path: Path, link: bool
) -> None:
    [image] = await store.import_archive(docker_save(tmp_path, LAYERS, ["demo/app:1", "demo/app:2"], link=link))
    assert image.names == ("docker.io/demo/app:1", "docker.io/demo/app:2")
    assert image.config.cmd == ("x",)
    assert image.device == (await bring(store, tmp_path, "same:1")).device


async def test_an_archive_without_tags_needs_a_name_to_be_found(store: LocalImageStore, tmp_path: Path) -> None:
    path = docker_save(tmp_path, LAYERS, None)
    [image] = await store.import_archive(path)
    assert image.names == ()
    [named] = await store.import_archive(path, name="mine:1")
    assert (named.id, named.names) == (image.id, ("docker.io/library/mine:1",))


@pytest.mark.parametrize("form", ["folder", "tar", "tar.gz"])
async def test_an_oci_layout_is_imported_in_every_form(store: LocalImageStore, tmp_path: Path, form: str) -> None:
    path = make_layout(tmp_path / "build", LAYERS, name="registry.example/app:1")
    if form != "folder":
        tar_layout(path, tmp_path / "layout.tar")
        path = tmp_path / "layout.tar"
    if form == "tar.gz":
        path.write_bytes(gzip.compress(path.read_bytes()))
    [image] = await store.import_archive(path)
    assert image.names == ("registry.example/app:1",)
    assert await store.resolve(f"registry.example/app@{image.digest}") == image


async def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    tars = []
    for name in ("one", "two"):
        layout = make_layout(tmp_path / name, LAYERS, ImageConfig(env=("A=1",)))
        tar_layout(layout, tmp_path / f"{name}.tar")
        tars.append((tmp_path / f"{name}.tar").read_bytes())
    assert tars[0] == tars[1]


async def archive_error(store: LocalImageStore, path: Path, **options: str) -> CuboidError:
    with pytest.raises(CuboidError) as caught:
        await store.import_archive(path, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert store.images() == []
    return caught.value


async def test_files_that_are_no_image_archive_are_refused(store: LocalImageStore, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"hello" * 1000)
    (tmp_path / "folder").mkdir()
    (tmp_path / "other.tar").write_bytes(make_tar([("x", b"")]))
    assert isinstance(await archive_error(store, tmp_path / "absent"), NotFoundError)
    assert isinstance(await archive_error(store, tmp_path / "text"), HostileError)
    assert isinstance(await archive_error(store, tmp_path / "folder"), InvalidError)
    assert isinstance(await archive_error(store, tmp_path / "other.tar"), InvalidError)


async def test_archives_that_lie_are_refused(store: LocalImageStore, tmp_path: Path) -> None:
    wrong = image_config(ImageConfig(), ["sha256:" + "0" * 64])
    entry = {"Config": "../../etc/passwd", "RepoTags": None, "Layers": ["l"]}
    for manifest in ([{**entry, "Config": "c"}], [entry], [{**entry, "Config": "c", "Layers": ["gone"]}], {"x": 1}):
        path = tmp_path / "lying.tar"
        path.write_bytes(make_tar([("manifest.json", json.dumps(manifest).encode()), ("c", wrong), ("l", LAYERS[0])]))
        assert isinstance(await archive_error(store, path), HostileError)


async def test_a_layout_with_another_blob_than_its_digest_says_is_refused(
    store: LocalImageStore, tmp_path: Path
) -> None:
    layout = make_layout(tmp_path / "build", LAYERS, name="app/x:1")
    for blob in (layout / "blobs" / "sha256").iterdir():
        blob.write_bytes(blob.read_bytes().replace(b"/bin/sh", b"/bin/su"))
    assert isinstance(await archive_error(store, layout), HostileError)


async def test_a_layout_cannot_point_out_of_itself(store: LocalImageStore, tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "build", LAYERS)
    (layout / "index.json").rename(tmp_path / "index.json")
    (layout / "index.json").symlink_to(tmp_path / "index.json")
    assert isinstance(await archive_error(store, layout), HostileError)


async def test_a_layout_for_another_machine_names_what_it_has(store: LocalImageStore, tmp_path: Path) -> None:
    layout = make_layout(tmp_path / "build", LAYERS)
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0]["platform"]["architecture"] = "riscv64"
    (layout / "index.json").write_text(json.dumps(index))
    error = await archive_error(store, layout)
    assert isinstance(error, UnsupportedError)
    assert "linux/riscv64" in error.message


# --- many at once -----------------------------------------------------------------------------------------------------


async def test_pulls_of_one_image_at_once_are_one_download(
    registry: FakeRegistry, store: LocalImageStore, tmp_path: Path
) -> None:
    [digest] = registry.add_image("app", "1", BIG)
    seen: list[list[Progress]] = [[], [], [], []]
    images = await asyncio.gather(*(store.pull(f"{registry.host}/app:1", progress=hook.append) for hook in seen))
    assert len({image.id for image in images}) == 1
    assert len(registry.asked(digest)) == 1
    assert all(hooks[-1].phase == "done" for hooks in seen)


async def test_two_stores_pulling_one_image_convert_it_once(registry: FakeRegistry, tmp_path: Path) -> None:
    [digest] = registry.add_image("app", "1", BIG)
    stores = [LocalImageStore(tmp_path / "images", settings=small_settings()) for _ in range(2)]
    images = await asyncio.gather(*(store.pull(f"{registry.host}/app:1") for store in stores))
    assert images[0].device == images[1].device
    assert len(registry.asked(digest)) == 1


async def test_images_that_share_a_layer_are_pulled_side_by_side(
    registry: FakeRegistry, store: LocalImageStore
) -> None:
    for number in range(4):
        registry.add_image("app", str(number), BIG, make_tar([(str(number), b"x")]))
    images = await asyncio.gather(*(store.pull(f"{registry.host}/app:{number}") for number in range(4)))
    assert len({image.device for image in images}) == 4
    assert len(registry.asked(sha256(BIG))) <= 4


async def test_a_cancelled_caller_does_not_end_the_pull_of_another(
    registry: FakeRegistry, store: LocalImageStore
) -> None:
    registry.add_image("app", "1", BIG)
    reference = f"{registry.host}/app:1"
    async with asyncio.TaskGroup() as group:
        first, second = (group.create_task(store.pull(reference)) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
    assert first.cancelled()
    assert second.result().device.exists()


async def test_a_pull_that_nobody_waits_for_ends_and_leaves_nothing(
    registry: FakeRegistry, store: LocalImageStore, tmp_path: Path
) -> None:
    registry.add_image("app", "1", BIG)
    registry.handler = lambda r: Answer(body=BIG, pause=0.05) if sha256(BIG) in r.path else None
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(store.pull(f"{registry.host}/app:1"), 0.5)
    assert list((tmp_path / "images" / "work").iterdir()) == []
    registry.handler = lambda request: None
    assert (await store.pull(f"{registry.host}/app:1")).device.exists()


async def test_a_failure_is_everybodys_and_the_next_pull_starts_anew(
    registry: FakeRegistry, store: LocalImageStore
) -> None:
    registry.add_image("app", "1", BIG)
    registry.handler = lambda r: Answer(500) if "/manifests/" in r.path else None
    reference = f"{registry.host}/app:1"
    results = await asyncio.gather(*(store.pull(reference) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(result, UnavailableError) for result in results)
    registry.handler = lambda request: None
    assert (await store.pull(reference)).device.exists()


async def test_a_second_image_with_known_layers_downloads_none(registry: FakeRegistry, store: LocalImageStore) -> None:
    registry.add_image("app", "1", BIG)
    await store.pull(f"{registry.host}/app:1")
    registry.add_image("app", "2", BIG, created="2026-01-01T00:00:00Z")
    await store.pull(f"{registry.host}/app:2")
    assert len(registry.asked(sha256(BIG))) == 1


# --- death ------------------------------------------------------------------------------------------------------------

_PULL = """
import asyncio, sys
from pathlib import Path
from cuboid.images.settings import ImageSettings
from cuboid.images.store import LocalImageStore
async def main():
    store = LocalImageStore(Path(sys.argv[1]), settings=ImageSettings(min_free_bytes=1 << 20))
    print("started", flush=True)
    await store.pull(sys.argv[2], progress=lambda p: print(p.phase, p.done, flush=True))
asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["resolve", "download", "convert", "convert+"])
async def test_kill_9_at_any_moment_leaves_only_what_sweep_removes(
    registry: FakeRegistry, tmp_path: Path, moment: str
) -> None:
    layers = [make_tar([(f"file-{n}", os.urandom(3 << 20))]) for n in range(3)]
    registry.add_image("app", "1", *layers)
    if moment == "download":
        registry.handler = _slow_once(layers[2])
    root, reference = tmp_path / "images", f"{registry.host}/app:1"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PULL, str(root), reference, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    while line := await process.stdout.readline():
        if line.decode().startswith(moment.rstrip("+")):
            break
    if moment == "convert+":
        await asyncio.sleep(0.3)
    with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
        process.kill()
    await process.wait()
    registry.handler = lambda request: None
    store = LocalImageStore(root, settings=small_settings())
    await _unlocked(store, root)
    known = {image.device.name for image in store.images()}
    assert {path.name for path in (root / "devices").iterdir()} == known
    assert list((root / "work").iterdir()) == []
    assert all(path.suffix == ".part" for path in (root / "blobs").iterdir())
    image = await store.pull(reference)
    assert image.device.stat().st_size == image.device_bytes


def _slow_once(layer: bytes) -> Handler:
    def handle(request: Request) -> Answer | None:
        return Answer(body=layer, pause=0.01) if sha256(layer) in request.path else None

    return handle


async def _unlocked(store: LocalImageStore, root: Path) -> None:
    """Sweep once an orphaned converter, which dies of its closed pipe at the latest, lets go of the work folder."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        await store.sweep()
        if not list((root / "work").iterdir()):
            return
        await asyncio.sleep(0.05)


async def test_sweep_removes_what_no_record_names_and_records_without_device(tmp_path: Path) -> None:
    root = tmp_path / "images"
    store = LocalImageStore(root, settings=small_settings(partial_seconds=100.0))
    image = await bring(store, tmp_path, "app:1")
    lost = await bring(store, tmp_path, "lost:1", make_tar([("lost", b"")]))
    lost.device.unlink()
    (root / "devices" / "orphan.erofs").write_bytes(b"x")
    (root / "work" / "left").mkdir()
    (root / "blobs" / "sha256-1").write_bytes(b"x")
    for name, age in (("young", 10), ("old", 1000)):
        part = root / "blobs" / f"sha256-{name}.part"
        part.write_bytes(b"x")
        os.utime(part, (time.time() - age,) * 2)
    (root / "records" / "broken.json").write_bytes(b"{")
    await store.sweep()
    assert [path.name for path in (root / "devices").iterdir()] == [image.device.name]
    assert [path.name for path in (root / "blobs").iterdir()] == ["sha256-young.part"]
    assert store.images() == [image]
    assert list((root / "work").iterdir()) == []


async def test_sweep_leaves_alone_what_another_process_is_pulling(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.add_image("app", "1", BIG)
    pulling, sweeping = (LocalImageStore(tmp_path / "images", settings=small_settings()) for _ in range(2))
    registry.handler = lambda r: Answer(body=BIG, pause=0) if sha256(BIG) in r.path else None
    left = tmp_path / "images/work/left"
    async with asyncio.TaskGroup() as group:
        pull = group.create_task(pulling.pull(f"{registry.host}/app:1"))
        while not pull.done():
            left.mkdir()  # of a pull that was killed
            await sweeping.sweep()
            assert not left.exists()
            await asyncio.sleep(0.005)
    assert pull.result().device.exists()

"""One platform for all tests of a module group: real daemons, a real registry, real images, real virtual machines."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

import pytest

from tests.harness.platform import Platform, platform
from tools import debian_images

REGISTRY = "localhost:5000"
IMAGES = ("busybox", "nginx", "services")


def image(name: str) -> str:
    return f"{REGISTRY}/{name}:1"


def stock(place: Platform, names: Sequence[str] = IMAGES) -> None:
    """A registry with the images of the tests."""
    place.start_registry()
    for name in names:
        place.run([".venv/bin/python", "-m", "tools.push", str(debian_images.layout(name)), image(name)], timeout=180)


def need_qemu() -> None:
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("QEMU is not installed (make setup)")


@pytest.fixture(scope="session")
def place() -> Iterator[Platform]:
    need_qemu()
    # Pods reach the port of an NFS server on the host, and no other.
    with platform("e2e", CUBOID_NET_HOST_PORTS="tcp/2049") as found:
        stock(found)
        yield found


@pytest.fixture
def own_place() -> Iterator[Platform]:
    """A platform that the test may break."""
    need_qemu()
    with platform("e2e-own", CUBOID_NODE_BACKOFF="1") as found:
        stock(found)
        yield found


@pytest.fixture
def pods(place: Platform, request: pytest.FixtureRequest) -> Iterator[Platform]:
    """The shared platform; every pod that the test leaves is removed."""
    yield place
    left = place.cuboid("ps", "-a", "-q").stdout.split()
    if left:
        place.cuboid("rm", "-f", *left, timeout=180)

"""A daemon that is ready is not walked through by the collector, and still collects what comes later."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from cuboid.lib import heap


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def test_what_a_daemon_consists_of_is_set_aside() -> None:
    heap.settle()
    assert gc.get_freeze_count() > len(gc.get_objects())


def test_garbage_of_before_and_after_is_still_collected() -> None:
    before = weakref.ref(Ring())
    heap.settle()
    assert before() is None
    after = weakref.ref(Ring())
    gc.collect()
    assert after() is None

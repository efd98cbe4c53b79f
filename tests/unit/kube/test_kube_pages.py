"""Lists in pages: what is kept for whom."""

from __future__ import annotations

from cuboid.kube.cache import Entry
from cuboid.kube.pages import KEPT, Page, Pages
from cuboid.kube.status import ExpiredListError
from cuboid.kube.store import Key

PODS = ("", "pods")


def entries(namespace: str) -> list[Entry]:
    return [
        Entry(Key("", "pods", namespace, f"p{n}"), n + 1, b'{"metadata":{"name":"p%d"}}' % n, lambda _: {})
        for n in range(3)
    ]


def begun(pages: Pages, namespace: str) -> Page:
    return pages.first(entries(namespace), 9, 1, selected=False, scope=(PODS, namespace))


def goes_on(pages: Pages, page: Page, namespace: str) -> bool:
    try:
        pages.following(page.token, 1, lambda: (entries(namespace), 9), selected=False, scope=(PODS, namespace))
    except ExpiredListError:
        return False
    return True


def test_many_lists_of_one_namespace_push_out_their_own_and_not_those_of_others() -> None:
    pages = Pages()
    mine = begun(pages, "mine")
    theirs = [begun(pages, "theirs") for _ in range(3 * KEPT)]
    assert goes_on(pages, mine, "mine")
    assert not goes_on(pages, theirs[0], "theirs")
    assert goes_on(pages, theirs[-1], "theirs")

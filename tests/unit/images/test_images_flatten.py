from __future__ import annotations

import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuboid.images.flatten import Node, Tree, walk
from cuboid.images.layers import ByteStream
from cuboid.images.settings import Limits
from cuboid.images.tar import Entry, Kind, TarReader
from cuboid.lib.errors import HostileError
from tests.harness.images import folder, hardlink, make_tar, member, symlink

Layer = list[tarfile.TarInfo | tuple[str, bytes] | tuple[tarfile.TarInfo, bytes]]


def merge(*layers: Layer, limits: Limits | None = None) -> Tree:
    tree = Tree(limits or Limits())
    for layer in layers:
        tree.next_layer()
        for entry in TarReader(ByteStream(iter([make_tar(layer)])), Limits()):
            tree.add(entry)
    return tree


def paths(tree: Tree) -> dict[str, Node]:
    return {b"/".join(path).decode(): node for path, node in walk(tree.root) if path}


def listing(*layers: Layer) -> list[str]:
    return list(paths(merge(*layers)))


def test_later_layers_win() -> None:
    found = paths(merge([("a/f", b"1"), ("b", b"1")], [("a/f", b"222")]))
    assert found["a/f"].size == 3
    assert found["b"].size == 1


def test_a_folder_given_again_keeps_its_content_and_takes_its_new_owner() -> None:
    found = paths(merge([folder("a", uid=1), ("a/f", b"")], [folder("a", uid=2, mode=0o700)]))
    assert (found["a"].uid, found["a"].mode) == (2, 0o700)
    assert "a/f" in found


def test_folders_that_no_entry_names_are_made_as_engines_make_them() -> None:
    node = paths(merge([("x/y/f", b"")]))["x/y"]
    assert (node.kind, node.mode, node.uid, node.mtime) == (Kind.DIRECTORY, 0o755, 0, 0)


def test_the_root_takes_its_own_entry() -> None:
    assert merge([folder("./", mode=0o700, uid=3)]).root.mode == 0o700


def test_a_whiteout_hides_a_file_and_a_whole_folder() -> None:
    assert listing([("a/f", b""), ("a/g", b""), ("d/x/y", b"")], [("a/.wh.f", b""), (".wh.d", b"")]) == ["a", "a/g"]


def test_a_whiteout_leaves_what_its_own_layer_brings() -> None:
    assert listing([("a", b"")], [("a", b"new"), (".wh.a", b"")]) == ["a"]
    assert listing([("a", b"")], [(".wh.a", b""), ("a", b"new")]) == ["a"]


def test_a_folder_hidden_and_made_anew_starts_empty() -> None:
    lower: Layer = [("d/old", b"")]
    assert listing(lower, [(".wh.d", b""), ("d/new", b"")]) == ["d", "d/new"]
    assert listing(lower, [("d/new", b""), (".wh.d", b"")]) == ["d", "d/new"]


@pytest.mark.parametrize("order", [1, -1])
def test_an_opaque_folder_shows_its_own_layer_only(order: int) -> None:
    upper: Layer = [("d/.wh..wh..opq", b""), ("d/new", b""), ("d/s/n", b"")]
    assert listing([("d/old", b""), ("d/s/o", b"")], upper[::order]) == ["d", "d/new", "d/s", "d/s/n"]


def test_a_whiteout_of_what_is_not_there_changes_nothing() -> None:
    assert listing([("a", b"")], [(".wh.b", b""), ("no/such/.wh.c", b"")]) == ["a"]


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "d/.wh.."])
def test_a_whiteout_that_names_nothing_is_refused(name: str) -> None:
    with pytest.raises(HostileError):
        merge([(name, b"")])


def test_bookkeeping_of_aufs_is_passed_over() -> None:
    assert listing([(".wh..wh.plnk/x", b""), (".wh..wh.aufs", b"")]) == []


def test_a_path_through_a_whiteout_is_refused() -> None:
    with pytest.raises(HostileError, match="whiteout"):
        merge([("d/.wh.x/f", b"")])


def test_a_hard_link_reaches_into_a_lower_layer() -> None:
    found = paths(merge([("a", b"data")], [hardlink("b", "a")], [hardlink("c", "/b")]))
    assert found["a"] is found["b"] is found["c"]


def test_replacing_one_name_of_a_linked_file_leaves_the_other() -> None:
    found = paths(merge([("a", b"data"), hardlink("b", "a")], [("a", b"x")]))
    assert (found["a"].size, found["b"].size) == (1, 4)


def test_a_hard_link_to_a_symlink_links_the_symlink() -> None:
    found = paths(merge([symlink("s", "gone"), hardlink("h", "s")]))
    assert found["h"].kind is Kind.SYMLINK


@pytest.mark.parametrize("target", ["gone", "d", "../../etc/passwd", "", "/"])
def test_a_hard_link_to_no_file_of_the_image_is_refused(target: str) -> None:
    with pytest.raises(HostileError):
        merge([folder("d"), hardlink("h", target)])


def test_types_may_change_between_layers() -> None:
    assert listing([("x/f", b"")], [("x", b"file")]) == ["x"]
    assert listing([("x", b"")], [folder("x"), ("x/f", b"")]) == ["x", "x/f"]
    assert paths(merge([folder("x")], [symlink("x", "y")]))["x"].kind is Kind.SYMLINK


def test_entries_go_through_symlinked_folders_inside_the_image() -> None:
    found = paths(merge([folder("usr/lib"), symlink("lib", "usr/lib")], [("lib/f", b"")]))
    assert "usr/lib/f" in found
    absolute = paths(merge([folder("usr/lib"), symlink("a", "/usr"), symlink("usr/b", "../usr/lib")], [("a/b/f", b"")]))
    assert "usr/lib/f" in absolute


def test_a_folder_entry_replaces_a_symlink_as_engines_do() -> None:
    found = paths(merge([folder("r"), symlink("l", "r")], [folder("l"), ("l/f", b"")]))
    assert found["l"].kind is Kind.DIRECTORY
    assert "r/f" not in found


def test_a_symlink_out_of_the_image_ends_at_its_root() -> None:
    found = paths(merge([symlink("out", "../../../../etc"), symlink("abs", "/etc")], [("out/a", b""), ("abs/b", b"")]))
    assert [name for name in found if name.startswith("etc/")] == ["etc/a", "etc/b"]


@pytest.mark.parametrize("name", ["../f", "a/../../f", "..", "/../f", "./../../etc/cron.d/x"])
def test_a_path_that_leaves_the_image_is_refused(name: str) -> None:
    with pytest.raises(HostileError, match="leaves the image"):
        merge([(name, b"")])


def test_absolute_paths_and_dots_mean_the_image() -> None:
    assert listing([("/a/./b//f", b""), ("a/x/../g", b"")]) == ["a", "a/b", "a/b/f", "a/g"]


def test_loops_of_symlinks_are_refused() -> None:
    with pytest.raises(HostileError, match="loop"):
        merge([symlink("a", "b"), symlink("b", "a"), ("a/f", b"")])


def test_symlinks_that_unfold_without_end_are_refused() -> None:
    with pytest.raises(HostileError):
        merge([symlink("a", "a/" + "b/" * 1000), ("a/f", b"")])


def test_a_path_through_a_file_is_refused() -> None:
    with pytest.raises(HostileError, match="as if it were a folder"):
        merge([("f", b""), ("f/g", b"")])


def test_the_root_is_not_replaced() -> None:
    with pytest.raises(HostileError):
        merge([symlink(".", "/etc")])


def test_names_longer_than_linux_allows_are_refused() -> None:
    assert listing([("n" * 255, b"")]) == ["n" * 255]
    with pytest.raises(HostileError, match="256 bytes"):
        merge([("n" * 256, b"")])


def test_counts_are_limited_with_duplicates_and_implied_folders() -> None:
    limits = Limits(entries=50, devices=3)
    with pytest.raises(HostileError, match="50 files"):
        merge([("same", b"")] * 51, limits=limits)
    with pytest.raises(HostileError, match="50 files"):
        merge([("d/" * 40 + "f", b""), ("e/" * 40 + "f", b""), ("g", b"")], limits=limits)
    with pytest.raises(HostileError, match="device"):
        merge([member(str(n), tarfile.CHRTYPE, devmajor=1) for n in range(4)], limits=limits)


def test_overlay_marks_of_a_layer_do_not_reach_the_guest() -> None:
    headers = {"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.a": "b"}
    assert paths(merge([(member("f", pax_headers=headers), b"")]))["f"].xattrs == {b"user.a": b"b"}


def test_127_layers_are_merged() -> None:
    layers: list[Layer] = [[(f"only-{n}", b""), ("same", b"x" * n)] for n in range(127)]
    found = paths(merge(*layers))
    assert found["same"].size == 126
    assert len(found) == 128


PIECES = st.sampled_from([b"a", b"b", b"c", b"..", b".", b".wh.a", b".wh..wh..opq", b"", b"\xff"])
ENTRY_PATHS = st.lists(PIECES, min_size=1, max_size=5).map(b"/".join)
ENTRIES = st.builds(
    Entry, name=ENTRY_PATHS, kind=st.sampled_from(list(Kind)), target=ENTRY_PATHS.filter(bool), size=st.integers(0, 9)
)


@settings(max_examples=300)
@given(st.lists(st.lists(ENTRIES, max_size=8), max_size=4))
def test_any_layers_merge_into_a_sound_tree_or_are_refused(layers: list[list[Entry]]) -> None:
    tree = Tree(Limits())
    for layer in layers:
        tree.next_layer()
        for entry in layer:
            try:
                tree.add(entry)
            except HostileError:
                continue
    seen_folders = set()
    for path, node in walk(tree.root):
        assert all(part not in (b"", b".", b"..") and not part.startswith(b".wh.") for part in path)
        assert (node.children is not None) == (node.kind is Kind.DIRECTORY)
        if node.kind is Kind.DIRECTORY:
            assert id(node) not in seen_folders  # a tree: no folder under two names, none inside itself
            seen_folders.add(id(node))

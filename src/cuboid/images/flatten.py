"""Layers merged into one tree, as a container engine would unpack them one over the other. Pure: no file is touched.

Because the tree is in memory, a path can only ever name something inside it: `..` above the root is refused as
engines do, symlinks in the middle of a path are followed inside the tree, absolute ones from its root.
Whiteouts follow the OCI image specification 1.1, "Representing Changes".
"""

from __future__ import annotations

from collections.abc import Iterator

from cuboid.images.settings import Limits
from cuboid.images.tar import NAME_MAX, Entry, Kind
from cuboid.lib.errors import HostileError

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_AUFS = b".wh..wh."  # that file system's own bookkeeping, still found in old layers
_MAX_LINKS = 40  # symlinks followed on one path, as in Linux
# The guest's overlay gives these a meaning; a layer must not.
_DROPPED_XATTRS = (b"trusted.overlay.", b"user.overlay.")


class Node:
    """A file system object; hard links are one Node under several names. `start`, `links`, `nid` and `parent` belong to
    who writes the tree out."""

    __slots__ = (
        "children", "gid", "kind", "layer", "links", "mode", "mtime", "mtime_ns", "nid", "parent", "rdev", "size",
        "start", "target", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, kind: Kind, layer: int) -> None:
        self.kind = kind
        self.layer = layer
        self.mode = 0o755
        self.uid = self.gid = self.mtime = self.mtime_ns = self.size = self.start = self.links = self.nid = 0
        self.rdev = (0, 0)
        self.parent: Node | None = None  # of a folder, set once the tree is complete
        self.target = b""
        self.xattrs: dict[bytes, bytes] = {}
        self.children: dict[bytes, Node] | None = {} if kind is Kind.DIRECTORY else None

    def describe(self, entry: Entry) -> None:
        """Take over what an entry says of the object itself."""
        self.mode, self.uid, self.gid = entry.mode, entry.uid, entry.gid
        self.mtime, self.mtime_ns = entry.mtime, entry.mtime_ns
        self.rdev = (entry.major, entry.minor)
        self.xattrs = {k: v for k, v in entry.xattrs.items() if not k.startswith(_DROPPED_XATTRS)}
        if self.kind is Kind.SYMLINK:
            self.target, self.mode = entry.target, 0o777
        if self.kind is Kind.FILE:
            self.size = entry.size


class Tree:
    """The merged image. Feed it every entry of every layer, lowest layer first."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.root = Node(Kind.DIRECTORY, 0)
        self.layer = -1
        self._nodes = 1
        self._entries = 0
        self._devices = 0
        self._known: dict[tuple[bytes, ...], Node] = {}  # directories by path, until something is replaced

    def next_layer(self) -> None:
        self.layer += 1
        self._known.clear()

    def add(self, entry: Entry) -> Node | None:
        """Merge one entry. Returns the node if it is a file whose content belongs to it now."""
        self._count(entry)
        parts = split(entry.name)
        if not parts:
            self._describe_root(entry)
            return None
        *folders, name = parts
        if any(folder.startswith(_AUFS) for folder in folders):
            return None
        if name.startswith(WHITEOUT):
            self._whiteout(folders, name)
            return None
        parent = self._directory(tuple(folders))
        if entry.kind is Kind.HARDLINK:
            self._link(parent, name, entry)
            return None
        return self._put(parent, name, entry)

    def _count(self, entry: Entry) -> None:
        self._entries += 1
        self._devices += entry.kind in (Kind.CHARACTER, Kind.BLOCK)
        if max(self._entries, self._nodes) > self._limits.entries:
            raise HostileError(
                f"the image has more than {self._limits.entries} files", hint="[images] max_entries"
            )  # fmt: skip
        if self._devices > self._limits.devices:
            raise HostileError(
                f"the image has more than {self._limits.devices} device nodes", hint="[images] max_device_nodes"
            )

    def _new(self, kind: Kind) -> Node:
        self._nodes += 1
        return Node(kind, self.layer)

    def _describe_root(self, entry: Entry) -> None:
        if entry.kind is not Kind.DIRECTORY:
            raise HostileError("a layer replaces the root folder by something else")
        self.root.describe(entry)

    def _put(self, parent: Node, name: bytes, entry: Entry) -> Node | None:
        children = _children(parent)
        node = children.get(name)
        if node is None or node.kind is not entry.kind or entry.kind is not Kind.DIRECTORY:
            if node is not None:
                self._known.clear()
            node = children[name] = self._new(entry.kind)
        node.layer = self.layer
        node.describe(entry)
        return node if entry.kind is Kind.FILE else None

    def _link(self, parent: Node, name: bytes, entry: Entry) -> None:
        *folders, last = split(entry.target) or [b""]
        directory = self._directory(tuple(folders), make=False)
        node = _children(directory).get(last) if directory else None
        if node is None or node.kind is Kind.DIRECTORY:
            raise HostileError(f"the hard link {show(entry.name)} points to {show(entry.target)}, which is no file")
        if _children(parent).get(name) is not node:
            self._known.clear()
        node.layer = self.layer
        _children(parent)[name] = node

    def _whiteout(self, folders: list[bytes], name: bytes) -> None:
        hidden = name[len(WHITEOUT) :]
        if name != OPAQUE and name.startswith(_AUFS):
            return
        if hidden in (b"", b".", b".."):
            raise HostileError(f"a layer has the whiteout {show(name)}, which names no file")
        self._known.clear()
        if name == OPAQUE:  # the folder itself comes into being, as an engine makes it to hold the mark
            self._hide_children(self._directory(tuple(folders)))
        elif parent := self._directory(tuple(folders), make=False):
            self._hide(parent, hidden)

    def _hide_children(self, directory: Node) -> None:
        """Remove what came from lower layers, at any depth."""
        stack = [directory]
        while stack:
            children = _children(stack.pop())
            for name in [name for name, child in children.items() if child.layer < self.layer]:
                del children[name]
            stack += [child for child in children.values() if child.kind is Kind.DIRECTORY]

    def _hide(self, parent: Node, name: bytes) -> None:
        node = _children(parent).get(name)
        if node is None:
            return
        if node.layer < self.layer:
            del _children(parent)[name]
        elif node.kind is Kind.DIRECTORY:  # hidden and made anew in one layer
            self._hide_children(node)

    def _directory(self, path: tuple[bytes, ...], make: bool = True) -> Node:
        """The folder at `path`, made where it is missing. With `make` false an empty stand-in is returned instead."""
        known = self._known.get(path)
        if known is not None:
            return known
        node = self._walk(path, make)
        if make:
            self._known[path] = node
        return node

    def _walk(self, path: tuple[bytes, ...], make: bool) -> Node:
        trail, rest, links = [self.root], list(reversed(path)), 0
        while rest:
            part = rest.pop()
            if part == b"..":  # only out of symlink targets; above the root is the root
                trail = trail[:-1] or trail
                continue
            child = _children(trail[-1]).get(part)
            if child is None:
                if not make:
                    return Node(Kind.DIRECTORY, self.layer)
                if part.startswith(WHITEOUT):
                    raise HostileError(f"the path {show(b'/'.join(path))} runs through a whiteout")
                child = _children(trail[-1])[part] = self._new(Kind.DIRECTORY)
            if child.kind is Kind.SYMLINK:
                links += 1
                if links > _MAX_LINKS:
                    raise HostileError(f"the path {show(b'/'.join(path))} runs through a loop of symbolic links")
                trail = [self.root] if child.target.startswith(b"/") else trail
                rest += [step for step in reversed(child.target.split(b"/")) if step not in (b"", b".")]
            elif child.kind is Kind.DIRECTORY:
                if make:
                    child.layer = self.layer
                trail.append(child)
            else:
                raise HostileError(f"the path {show(b'/'.join(path))} runs through a file as if it were a folder")
            if len(rest) > NAME_MAX * 16:
                raise HostileError("a symbolic link unfolds to an endless path")
        return trail[-1]


def split(path: bytes) -> list[bytes]:
    """The parts of a path from the root; `.` and double slashes vanish, `..` may not leave the root."""
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if not parts:
                raise HostileError(f"a layer has the path {show(path)}, which leaves the image")
            parts.pop()
        elif part not in (b"", b"."):
            if len(part) > NAME_MAX:
                raise HostileError(f"a layer has a name of {len(part)} bytes; Linux allows {NAME_MAX}")
            parts.append(part)
    return parts


def show(path: bytes) -> str:
    """A path for a message: readable, bounded, without control characters."""
    text = path[:120].decode("utf-8", "backslashreplace")
    return repr(text + ("…" if len(path) > 120 else ""))


def _children(node: Node) -> dict[bytes, Node]:
    assert node.children is not None
    return node.children


def walk(root: Node) -> Iterator[tuple[tuple[bytes, ...], Node]]:
    """Every path with its node, parents first, names in byte order."""
    stack: list[tuple[tuple[bytes, ...], Node]] = [((), root)]
    while stack:
        path, node = stack.pop()
        yield path, node
        if node.children:
            stack += [((*path, name), node.children[name]) for name in sorted(node.children, reverse=True)]

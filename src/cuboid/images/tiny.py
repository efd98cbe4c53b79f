"""An EROFS device of a few files of our own, without any image or archive behind it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from cuboid.images.convert.erofs import ErofsWriter
from cuboid.images.flatten import Tree
from cuboid.images.settings import Limits
from cuboid.images.tar import Entry, Kind


def write_tiny(path: Path, programs: Mapping[str, bytes], *, uuid: bytes = bytes(16)) -> None:
    """Executable files by their absolute path, whole or not there. Deterministic. OSError for a host that refuses."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    limits = Limits()
    tree = Tree(limits)
    tree.next_layer()
    try:
        with new.open("wb") as file:
            writer = ErofsWriter(file.fileno(), limits)
            for name, content in sorted(programs.items()):
                node = tree.add(Entry(name.encode(), Kind.FILE, mode=0o755, size=len(content)))
                if node is not None:
                    writer.store(node, iter([content]))
            writer.finish(tree.root, uuid)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
